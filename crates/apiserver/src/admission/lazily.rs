//! What is costly to make, and so is made when a request first needs it, on a thread for such work. Configurations are taken up
//! in the watch cache's only writer, which must not wait for a compiler; who needs the outcome waits for it, so nothing passes
//! unjudged meanwhile.

use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use keelson_api::status::Status;
use parking_lot::Mutex;

use super::expressions::costly_place;

type Made<T> = Shared<BoxFuture<'static, Result<Arc<T>, String>>>;

/// Something that is made once.
pub(super) struct Lazily<T> {
    make: Mutex<Option<Box<dyn FnOnce() -> T + Send>>>,
    made: OnceLock<Made<T>>,
}

impl<T: Send + Sync + 'static> Lazily<T> {
    pub(super) fn new(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { make: Mutex::new(Some(Box::new(make))), made: OnceLock::new() }
    }

    /// The outcome. Whoever asks first starts it; it goes on though he gives up.
    pub(super) async fn get(&self) -> Result<Arc<T>, Status> {
        let made = self.made.get_or_init(|| self.start());
        match made.peek() {
            Some(outcome) => outcome.clone(),
            None => made.clone().await,
        }
        .map_err(Status::internal)
    }

    fn start(&self) -> Made<T> {
        let make = self.make.lock().take();
        let task = tokio::spawn(async move {
            let make = make.ok_or("it was begun before")?;
            let place = costly_place().await;
            let work = move || {
                let _place = place;
                Arc::new(make())
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
        });
        async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_made_once_beside_the_others_whoever_gives_up() {
        let (go, wait) = mpsc::channel::<u32>();
        let lazily = Lazily::new(move || wait.recv().unwrap());
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, lazily.get()).await.is_err(), "who asked first gives up");
        assert!(tokio::time::timeout(soon, lazily.get()).await.is_err(), "the thread was free all the while");
        go.send(7).unwrap();
        let (one, two) = tokio::join!(lazily.get(), lazily.get());
        assert_eq!((*one.unwrap(), *two.unwrap()), (7, 7));
        assert!(go.send(8).is_err(), "what makes it is gone");
        assert_eq!(*lazily.get().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_an_error_each_time() {
        let lazily: Lazily<u32> = Lazily::new(|| panic!("as a test wants it"));
        for _ in 0..2 {
            assert_eq!(lazily.get().await.unwrap_err().code, 500);
        }
    }
}
