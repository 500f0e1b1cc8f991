//! One at a time, by name: two who want the same blob or layer wait for each other and find it there.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Names that nobody holds any more are forgotten when there are more than this.
const SPARE: usize = 64;

#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        if all.len() > SPARE {
            all.retain(|_, lock| lock.strong_count() > 0);
        }
        if let Some(lock) = all.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        all.insert(name.into(), Arc::downgrade(&lock));
        lock
    }

    /// Waits until nobody else holds `name`.
    pub(super) async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        self.lock(name).lock_owned().await
    }

    /// [`Self::take`] for threads that may block.
    pub(super) fn take_blocking(&self, name: &str) -> OwnedMutexGuard<()> {
        self.lock(name).blocking_lock_owned()
    }
}
