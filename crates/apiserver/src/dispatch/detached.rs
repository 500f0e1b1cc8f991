//! Requests that change something are answered in tasks of their own: a client that goes away does not cut in two what has
//! begun. What has not begun ends with its client, so that clients that go away leave no work waiting behind.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Response;
use keelson_api::status::Status;
use tokio::task::{AbortHandle, JoinError};
use tokio_util::task::TaskTracker;

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
struct Leash {
    begun: Begun,
    task: AbortHandle,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.begun.is_first() {
            self.task.abort();
        }
    }
}

/// Waits for what answers a request in a task of its own.
pub(super) async fn run(
    tasks: &TaskTracker,
    begun: Begun,
    answer: impl Future<Output = Response<Body>> + Send + 'static,
) -> Response<Body> {
    let task = tasks.spawn(answer);
    let _leash = Leash { begun, task: task.abort_handle() };
    finished(task.await.map(Ok)).unwrap_or_else(|status| reply::error(&status, None))
}

/// What a task came to; its panic goes on here.
pub(super) fn finished<T>(outcome: Result<Result<T, Status>, JoinError>) -> Result<T, Status> {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => Err(Status::unavailable("the server stops")),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    /// A client goes away from work that has begun, or not; whether it is done.
    async fn gone(begins: bool) -> bool {
        let tasks = TaskTracker::new();
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
        let mut waiting = Box::pin(run(&tasks, begun, work));
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
