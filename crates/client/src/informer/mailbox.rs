//! What a subscriber has yet to take: a bounded queue that costs nothing while it is empty.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Change;

/// Changes a subscriber may fall behind before it is sent a [`Change::Resync`] instead.
pub const SUBSCRIBER_CAPACITY: usize = 4096;
/// Capacity a drained queue may keep.
const IDLE_CAPACITY: usize = 32;

/// One subscriber's queue.
pub(super) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    wake: Notify,
}

struct Pending<K> {
    changes: VecDeque<Change<K>>,
    /// The subscriber has to begin with the whole state.
    stale: bool,
}

/// What a subscriber finds.
pub(super) enum Mail<K> {
    Change(Change<K>),
    /// Read the whole state, having called [`Mailbox::restart`] while no change can be sent.
    Stale,
    Nothing,
}

impl<K> Mailbox<K> {
    /// Begins stale: the first thing to read is the whole state.
    pub(super) fn new() -> Self {
        Self { pending: Mutex::new(Pending { changes: VecDeque::new(), stale: true }), wake: Notify::new() }
    }

    pub(super) fn take(&self) -> Mail<K> {
        let mut pending = self.pending.lock();
        if pending.stale {
            return Mail::Stale;
        }
        let Some(change) = pending.changes.pop_front() else { return Mail::Nothing };
        if pending.changes.is_empty() && pending.changes.capacity() > IDLE_CAPACITY {
            pending.changes = VecDeque::new();
        }
        Mail::Change(change)
    }

    /// From here on changes are kept again.
    pub(super) fn restart(&self) {
        let mut pending = self.pending.lock();
        pending.changes = VecDeque::new();
        pending.stale = false;
    }

    /// Waits for something new.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn put(&self, change: &Change<K>) {
        let mut pending = self.pending.lock();
        if pending.stale {
            return;
        }
        if pending.changes.len() >= SUBSCRIBER_CAPACITY {
            pending.changes = VecDeque::new();
            pending.stale = true;
        } else {
            pending.changes.push_back(change.clone());
        }
        drop(pending);
        self.wake.notify_one();
    }
}

/// All subscribers of an informer.
pub(super) struct Mailboxes<K>(Mutex<Vec<Weak<Mailbox<K>>>>);

impl<K> Default for Mailboxes<K> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<K> Mailboxes<K> {
    pub(super) fn subscribe(&self) -> Arc<Mailbox<K>> {
        let mailbox = Arc::new(Mailbox::new());
        let mut all = self.0.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&mailbox));
        mailbox
    }

    pub(super) fn send(&self, change: &Change<K>) {
        for mailbox in self.0.lock().iter().filter_map(Weak::upgrade) {
            mailbox.put(change);
        }
    }
}
