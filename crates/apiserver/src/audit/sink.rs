//! Between requests and a backend: a bounded buffer, and what a request waits for (`--audit-log-mode`,
//! `--audit-webhook-mode`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::config::AuditMode;

/// Bytes of events that wait in batch mode.
const BUFFER_BYTES: usize = 256 << 20;

/// An event on its way to a backend.
pub(super) struct Item {
    /// JSON and a line feed; empty when somebody only waits for what came before.
    pub(super) line: Bytes,
    /// Who waits hears whether it was stored.
    pub(super) done: Option<oneshot::Sender<bool>>,
    /// The bytes that wait, this line included.
    waiting: Arc<AtomicUsize>,
}

impl Drop for Item {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.line.len(), Ordering::Relaxed);
    }
}

/// The requests' end of the buffer.
#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    mode: AuditMode,
    queue: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    lost: AtomicU64,
}

impl Sink {
    /// A buffer of that many events.
    pub(super) fn new(name: &'static str, mode: AuditMode, events: usize) -> (Self, mpsc::Receiver<Item>) {
        let (queue, receiver) = mpsc::channel(events.max(1));
        (Self { name, mode, queue, waiting: Arc::default(), lost: AtomicU64::new(0) }, receiver)
    }

    /// Hands an event over; whether the request may go on. In batch mode an event that finds the buffer full is lost.
    pub(super) async fn write(&self, line: Bytes) -> bool {
        if self.mode == AuditMode::Batch {
            let full = self.waiting.load(Ordering::Relaxed) + line.len() > BUFFER_BYTES;
            if full || self.queue.try_send(self.item(line, None)).is_err() {
                self.lost();
            }
            return true;
        }
        let stored = self.store(line).await;
        if !stored {
            self.lost();
        }
        stored || self.mode == AuditMode::Blocking
    }

    /// Waits until everything handed over before is stored or given up.
    pub(super) async fn flush(&self) {
        self.store(Bytes::new()).await;
    }

    /// The backend, and events that it could not store.
    pub(super) fn losses(&self) -> (&'static str, u64) {
        (self.name, self.lost.load(Ordering::Relaxed))
    }

    async fn store(&self, line: Bytes) -> bool {
        let (done, stored) = oneshot::channel();
        let sent = self.queue.send(self.item(line, Some(done))).await.is_ok();
        sent && stored.await.unwrap_or(false)
    }

    fn item(&self, line: Bytes, done: Option<oneshot::Sender<bool>>) -> Item {
        self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        Item { line, done, waiting: self.waiting.clone() }
    }

    fn lost(&self) {
        if self.lost.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::warn!(backend = self.name, "audit events are lost");
        }
    }
}
