//! Turns. What is asked for in a namespace waits in the namespace's line, and a task of its own serves all that wait at once,
//! again and again until nobody does. Nobody who asks does another's work, so they may go away at any time: what is being served
//! then is served to its end, and what waits still is not served at all.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::Denied;
use super::charge::Charge;

/// A charge in its line.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) charge: Charge,
    done: oneshot::Sender<Result<(), Denied>>,
}

impl Waiting {
    /// Tells who asked, who may have gone.
    pub(super) fn end(self, outcome: Result<(), Denied>) {
        let _ = self.done.send(outcome);
    }
}

/// The lines of all namespaces that are being served, and only of those.
#[derive(Debug, Default)]
pub(in crate::admission) struct Turns {
    lines: Mutex<HashMap<String, Vec<Waiting>>>,
}

impl Turns {
    /// Has a charge served by `serve`, which must [end](Waiting::end) all that it is given, in one of `tasks`.
    pub(super) async fn charge<F>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        namespace: &str,
        charge: Charge,
        serve: impl Fn(Vec<Waiting>) -> F + Send + 'static,
    ) -> Result<(), Denied>
    where
        F: Future<Output = ()> + Send,
    {
        let (done, outcome) = oneshot::channel();
        let waiting = Waiting { charge, done };
        let begun = {
            let mut lines = self.lines.lock();
            match lines.get_mut(namespace) {
                Some(line) => {
                    line.push(waiting);
                    None
                }
                None => {
                    lines.insert(namespace.to_owned(), vec![waiting]);
                    Some(Line { turns: self.clone(), namespace: namespace.to_owned(), over: false })
                }
            }
        };
        if let Some(mut line) = begun {
            tasks.spawn(async move {
                while let Some(waiting) = line.next() {
                    serve(waiting).await;
                }
            });
        }
        outcome.await.unwrap_or_else(|_| Err(Denied::Failed(Status::internal("resource quota evaluation broke off"))))
    }
}

/// A namespace's line while it is served. However that ends, the line is gone then.
struct Line {
    turns: Arc<Turns>,
    namespace: String,
    over: bool,
}

impl Line {
    /// All that wait for their turn, but for those who went away; `None` when nobody does, and the line is closed.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut lines = self.turns.lines.lock();
        let mut waiting = lines.get_mut(&self.namespace).map(std::mem::take).unwrap_or_default();
        waiting.retain(|one| !one.done.is_closed());
        if waiting.is_empty() {
            lines.remove(&self.namespace);
            // From here on another may have opened one of the same name.
            self.over = true;
            return None;
        }
        Some(waiting)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.over {
            self.turns.lines.lock().remove(&self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use keelson_api::quota::Amounts;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    fn charge(name: &str) -> Charge {
        Charge { by_quota: vec![(name.to_owned(), Amounts::new())], enforced: true, dry_run: false }
    }

    /// Serves what it is given once the gate lets it, and says so first.
    #[derive(Clone)]
    struct Desk {
        gate: Arc<Semaphore>,
        begun: mpsc::UnboundedSender<Vec<String>>,
    }

    impl Desk {
        fn new() -> (Self, mpsc::UnboundedReceiver<Vec<String>>) {
            let (begun, served) = mpsc::unbounded_channel();
            (Self { gate: Arc::new(Semaphore::new(0)), begun }, served)
        }

        fn ask<'a>(
            &self,
            turns: &'a Arc<Turns>,
            tasks: &'a TaskTracker,
            name: &str,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Denied>> + Send + 'a>> {
            let (desk, charge) = (self.clone(), charge(name));
            let serve = move |waiting: Vec<Waiting>| {
                let desk = desk.clone();
                async move {
                    let names = waiting.iter().map(|one| one.charge.by_quota[0].0.clone()).collect();
                    desk.begun.send(names).unwrap();
                    desk.gate.acquire().await.unwrap().forget();
                    waiting.into_iter().for_each(|one| one.end(Ok(())));
                }
            };
            Box::pin(turns.charge(tasks, "team", charge, serve))
        }
    }

    async fn finished(tasks: TaskTracker) {
        tasks.close();
        tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_outlives_who_began_it() {
        let (turns, tasks) = (Arc::new(Turns::default()), TaskTracker::new());
        let (desk, mut served) = Desk::new();
        let mut leader = desk.ask(&turns, &tasks, "leader");
        assert!(matches!(futures::poll!(&mut leader), Poll::Pending));
        assert_eq!(served.recv().await.unwrap(), ["leader"]);
        let mut followers: Vec<_> = ["a", "gone", "b"].map(|name| desk.ask(&turns, &tasks, name)).into();
        for follower in &mut followers {
            assert!(matches!(futures::poll!(follower), Poll::Pending));
        }
        // The one is in the midst of its turn, the other waits for it.
        drop(leader);
        drop(followers.remove(1));
        desk.gate.add_permits(2);
        for follower in followers {
            tokio::time::timeout(Duration::from_secs(30), follower).await.unwrap().unwrap();
        }
        assert_eq!(served.recv().await.unwrap(), ["a", "b"]);
        finished(tasks).await;
        assert!(served.try_recv().is_err(), "nobody is served twice");
        assert!(turns.lines.lock().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_breaks_off_is_gone() {
        let (turns, tasks) = (Arc::new(Turns::default()), TaskTracker::new());
        let broken = turns.charge(&tasks, "team", charge("a"), |_| async { panic!("a bug") }).await;
        assert!(matches!(broken, Err(Denied::Failed(status)) if status.code == 500));
        let (desk, _served) = Desk::new();
        desk.gate.add_permits(1);
        tokio::time::timeout(Duration::from_secs(30), desk.ask(&turns, &tasks, "b")).await.unwrap().unwrap();
        finished(tasks).await;
        assert!(turns.lines.lock().is_empty());
    }
}
