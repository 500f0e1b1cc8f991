//! Requests that change something are answered in tasks of their own: a client that goes away does not cut in two what has
//! begun. What has not begun ends with its client, so that clients that go away leave no work waiting behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_task::FallibleTask;
use http::Response;
use keelson_api::status::Status;

use crate::executor::Flow;
use crate::http::body::Body;
use crate::http::reply;

/// Who comes first: the work that begins, or the client that goes away.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    /// From here on the work is done to its end. An error when the client has gone, which nobody reads.
    pub(super) fn begin(&self) -> Result<(), Status> {
        if self.is_first() { Ok(()) } else { Err(client_gone()) }
    }

    fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// What becomes of a request whose client did not wait; nobody reads it but in the audit log.
pub(super) fn client_gone() -> Status {
    Status::new(499, "ClientClosedRequest", "the client went away")
}

/// Ends the task when it is dropped, unless its work has begun.
struct Leash<T> {
    begun: Begun,
    task: Option<FallibleTask<T, Flow>>,
}

impl<T> Drop for Leash<T> {
    fn drop(&mut self) {
        let ends = self.begun.is_first();
        if let Some(task) = self.task.take().filter(|_| !ends) {
            task.detach();
        }
    }
}

/// Waits for what answers a request in a task of its own.
pub(super) async fn run(begun: Begun, task: FallibleTask<Response<Body>, Flow>) -> Response<Body> {
    outcome(begun, task).await.unwrap_or_else(|| reply::error(&stopping(), None))
}

/// Waits for a task, whose panic goes on here; `None` when there is nobody left to run it.
pub(super) async fn outcome<T>(begun: Begun, task: FallibleTask<T, Flow>) -> Option<T> {
    let mut leash = Leash { begun, task: Some(task) };
    match &mut leash.task {
        Some(task) => task.await,
        None => None,
    }
}

/// What those hear whose work ends with the server.
pub(super) fn stopping() -> Status {
    Status::unavailable("the server stops")
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::executor::Executor;

    /// A client goes away from work that has begun, or not; whether it is done.
    async fn gone(begins: bool) -> bool {
        let (executor, tasks) = (Executor::new(), TaskTracker::new());
        let begun = Begun::default();
        let (under_way, ready) = oneshot::channel();
        let (go, gate) = oneshot::channel::<()>();
        let (done, outcome) = oneshot::channel();
        let work = {
            let begun = begun.clone();
            async move {
                if begins {
                    begun.begin().unwrap();
                }
                under_way.send(()).unwrap();
                let _ = gate.await;
                let _ = done.send(());
                Response::new(Body::empty())
            }
        };
        let task = executor.spawn(Flow::default(), tasks.track_future(work));
        let mut waiting = Box::pin(run(begun, task));
        assert!(matches!(futures::poll!(&mut waiting), Poll::Pending));
        ready.await.unwrap();
        drop(waiting);
        if !begins {
            // It ends while it waits still.
            tasks.close();
            tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.unwrap();
        }
        let _ = go.send(());
        outcome.await.is_ok()
    }

    #[tokio::test]
    async fn what_has_begun_is_done() {
        assert!(gone(true).await);
        assert!(!gone(false).await);
        let begun = Begun::default();
        assert!(begun.begin().is_ok());
        assert_eq!(begun.begin().unwrap_err().code, 499);
    }
}
