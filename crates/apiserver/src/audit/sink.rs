//! Between requests and a backend: a bounded buffer, and what a request waits for (`--audit-log-mode`,
//! `--audit-webhook-mode`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::event::Moment;
use crate::config::{AuditFormat, AuditMode, AuditTruncate};

/// Bytes of events that wait: of a backend in batch mode, and of requests that are over.
pub(super) const BUFFER_BYTES: usize = 256 << 20;

/// An event on its way to a backend.
pub(super) struct Item {
    /// JSON and a line feed; empty when somebody only waits for what came before.
    pub(super) line: Bytes,
    /// Who waits hears whether it was stored.
    pub(super) done: Option<oneshot::Sender<bool>>,
    /// The bytes that wait, this line included.
    waiting: Arc<AtomicUsize>,
    stored: bool,
    losses: Arc<Losses>,
}

impl Item {
    /// It is stored, or given up.
    pub(super) fn end(mut self, stored: bool) {
        self.stored = stored;
        if let Some(done) = self.done.take() {
            // Who asked may have gone.
            let _ = done.send(stored);
        }
    }
}

/// However it goes away, it is lost unless it was stored.
impl Drop for Item {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.line.len(), Ordering::Relaxed);
        if !self.stored && !self.line.is_empty() {
            self.losses.add();
        }
    }
}

/// How a backend wants its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) format: AuditFormat,
    pub(super) truncate: Option<AuditTruncate>,
}

impl Default for Form {
    fn default() -> Self {
        Self { format: AuditFormat::Json, truncate: None }
    }
}

/// The requests' end of the buffer.
#[derive(Debug)]
pub(super) struct Sink {
    mode: AuditMode,
    form: Form,
    queue: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    losses: Arc<Losses>,
}

/// Events that a backend could not store.
#[derive(Debug)]
struct Losses {
    name: &'static str,
    lost: AtomicU64,
}

impl Losses {
    fn add(&self) {
        if self.lost.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::warn!(backend = self.name, "audit events are lost");
        }
    }
}

impl Sink {
    /// A buffer of that many events.
    pub(super) fn new(name: &'static str, mode: AuditMode, events: usize, form: Form) -> (Self, mpsc::Receiver<Item>) {
        let (queue, receiver) = mpsc::channel(events.max(1));
        let losses = Arc::new(Losses { name, lost: AtomicU64::new(0) });
        (Self { mode, form, queue, waiting: Arc::default(), losses }, receiver)
    }

    /// The line for an event, of which the JSON may be known; `None` when it is too large for this backend.
    pub(super) fn line(&self, moment: &Moment<'_>, json: &mut Option<Bytes>) -> Option<Bytes> {
        let whole = |json: &mut Option<Bytes>| json.get_or_insert_with(|| moment.json(false)).clone();
        let Form { format, truncate } = self.form;
        let fits = |line: &Bytes| truncate.is_none_or(|limit| line.len() <= limit.max_event_bytes);
        let line = match format {
            AuditFormat::Legacy if truncate.is_none() => return Some(moment.legacy()),
            _ => Some(whole(json)).filter(&fits),
        };
        let line = line.or_else(|| moment.has_objects().then(|| moment.json(true)).filter(&fits))?;
        Some(if format == AuditFormat::Legacy { moment.legacy() } else { line })
    }

    /// Hands an event over; whether the request may go on. In batch mode an event that finds the buffer full is lost.
    pub(super) async fn write(&self, line: Bytes) -> bool {
        if self.mode == AuditMode::Batch {
            let item = self.item(line, None);
            if self.waiting.load(Ordering::Relaxed) <= BUFFER_BYTES {
                let _ = self.queue.try_send(item);
            }
            return true;
        }
        self.store(line).await || self.mode == AuditMode::Blocking
    }

    /// An event that there is no room for is lost.
    pub(super) fn lose(&self) {
        self.losses.add();
    }

    /// Waits until everything handed over before is stored or given up.
    pub(super) async fn flush(&self) {
        self.store(Bytes::new()).await;
    }

    /// The backend, and events that it could not store.
    pub(super) fn losses(&self) -> (&'static str, u64) {
        (self.losses.name, self.losses.lost.load(Ordering::Relaxed))
    }

    async fn store(&self, line: Bytes) -> bool {
        let (done, stored) = oneshot::channel();
        let sent = self.queue.send(self.item(line, Some(done))).await.is_ok();
        sent && stored.await.unwrap_or(false)
    }

    fn item(&self, line: Bytes, done: Option<oneshot::Sender<bool>>) -> Item {
        self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        Item { line, done, waiting: self.waiting.clone(), stored: false, losses: self.losses.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_backend_gives_up_is_lost() {
        let (sink, mut queue) = Sink::new("log", AuditMode::Batch, 3, Form::default());
        for stored in [true, false] {
            assert!(sink.write(Bytes::from_static(b"{}\n")).await);
            queue.recv().await.unwrap().end(stored);
        }
        assert_eq!(sink.losses(), ("log", 1));
        // One that is waited for is counted once, and who only waits for others is no event.
        let (sink, mut queue) = Sink::new("log", AuditMode::Blocking, 3, Form::default());
        let give_up = async {
            for _ in 0..2 {
                queue.recv().await.unwrap().end(false);
            }
        };
        let ask = async {
            assert!(sink.write(Bytes::from_static(b"{}\n")).await);
            sink.flush().await;
        };
        tokio::join!(give_up, ask);
        assert_eq!(sink.losses(), ("log", 1));
    }

    #[tokio::test]
    async fn what_never_comes_to_the_backend_is_lost() {
        let line = || Bytes::from_static(b"{}\n");
        let (sink, mut queue) = Sink::new("log", AuditMode::Batch, 1, Form::default());
        assert!(sink.write(line()).await && sink.write(line()).await);
        assert_eq!(sink.losses(), ("log", 1), "there is room for one");
        queue.recv().await.unwrap().end(true);
        assert_eq!(sink.waiting.load(Ordering::Relaxed), 0);
        sink.waiting.store(BUFFER_BYTES, Ordering::Relaxed);
        assert!(sink.write(line()).await);
        assert_eq!(sink.losses(), ("log", 2), "the buffer is full");

        // Who waits may go away: before the event is handed over, and after.
        let (sink, mut queue) = Sink::new("log", AuditMode::BlockingStrict, 1, Form::default());
        let mut first = Box::pin(sink.write(line()));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(sink.write(line()));
        assert!(futures::poll!(&mut second).is_pending());
        drop((first, second));
        assert_eq!(sink.losses(), ("log", 1));
        queue.recv().await.unwrap().end(false);
        assert_eq!(sink.losses(), ("log", 2));
        // A backend that is gone stores nothing.
        drop(queue);
        assert!(!sink.write(line()).await);
        assert_eq!(sink.losses(), ("log", 3));
    }
}
