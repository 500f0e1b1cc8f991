//! How events that nobody waits for are put together before a backend takes them, and how often.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::sink::Item;
use crate::config::{AuditBatch, AuditMode, AuditThrottle};

/// Events handed on together by a backend whose requests wait for it.
const BLOCKING_EVENTS: usize = 400;

/// The backend's end of the buffer.
pub(super) struct Batches {
    queue: mpsc::Receiver<Item>,
    max_events: usize,
    max_bytes: usize,
    max_wait: Duration,
    bucket: Option<Bucket>,
    /// The first of the next batch, which this one had no room for.
    next: Option<Item>,
}

impl Batches {
    /// Batches of events that are not larger than `max_bytes` together, unless one is.
    pub(super) fn new(queue: mpsc::Receiver<Item>, mode: AuditMode, batch: &AuditBatch, max_bytes: usize) -> Self {
        let (max_events, max_wait, throttle) = match mode {
            AuditMode::Batch => (batch.max_events.max(1), batch.max_wait, batch.throttle),
            AuditMode::Blocking | AuditMode::BlockingStrict => (BLOCKING_EVENTS, Duration::ZERO, None),
        };
        Self { queue, max_events, max_bytes, max_wait, bucket: throttle.map(Bucket::new), next: None }
    }

    /// The next batch, once it may be handed on; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<Item>> {
        let first = match self.next.take() {
            Some(first) => first,
            None => self.queue.recv().await?,
        };
        let until = Instant::now() + self.max_wait;
        let mut bytes = first.line.len();
        let mut batch = vec![first];
        while batch.len() < self.max_events {
            // Nobody who waits is kept waiting for more.
            let waits = self.max_wait > Duration::ZERO && batch.last().is_some_and(|item| item.done.is_none());
            let item = match waits {
                true => timeout_at(until, self.queue.recv()).await.ok().flatten(),
                false => self.queue.try_recv().ok(),
            };
            let Some(item) = item else { break };
            bytes += item.line.len();
            if bytes > self.max_bytes {
                self.next = Some(item);
                break;
            }
            batch.push(item);
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.take().await;
        }
        Some(batch)
    }
}

/// A bucket of tokens, full at first, filled at a steady rate.
struct Bucket {
    qps: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(AuditThrottle { qps, burst }: AuditThrottle) -> Self {
        let burst = f64::from(burst);
        Self { qps: qps.into(), burst, tokens: burst, at: Instant::now() }
    }

    async fn take(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * self.qps).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens < 0.0 {
            sleep(Duration::try_from_secs_f64(-self.tokens / self.qps).unwrap_or_default()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::sink::{Form, Sink};
    use super::*;

    fn sink(mode: AuditMode, batch: &AuditBatch, max_bytes: usize) -> (Sink, Batches) {
        let (sink, queue) = Sink::new("log", mode, batch.buffer_events, Form::default());
        (sink, Batches::new(queue, mode, batch, max_bytes))
    }

    fn line(bytes: usize) -> Bytes {
        vec![b'x'; bytes].into()
    }

    async fn sizes(batches: &mut Batches) -> Vec<usize> {
        let batch = batches.next().await.unwrap();
        let sizes = batch.iter().map(|item| item.line.len()).collect();
        batch.into_iter().for_each(|item| item.end(true));
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_others_within_limits() {
        let wait = Duration::from_secs(30);
        let batch = AuditBatch { buffer_events: 100, max_events: 3, max_wait: wait, throttle: None };
        let (sink, mut batches) = sink(AuditMode::Batch, &batch, 1000);
        let begin = Instant::now();
        for bytes in [1, 2, 3, 4] {
            sink.write(line(bytes)).await;
        }
        assert_eq!((sizes(&mut batches).await, begin.elapsed()), (vec![1, 2, 3], Duration::ZERO), "it is full");
        assert_eq!((sizes(&mut batches).await, begin.elapsed()), (vec![4], wait), "nobody else came");
        for bytes in [600, 500, 2000, 1] {
            sink.write(line(bytes)).await;
        }
        assert_eq!(sizes(&mut batches).await, [600], "the next one does not fit");
        assert_eq!(sizes(&mut batches).await, [500]);
        assert_eq!(sizes(&mut batches).await, [2000], "larger than any batch");
        // Who flushes is not kept waiting.
        let (_, last) = tokio::join!(sink.flush(), sizes(&mut batches));
        assert_eq!((last, begin.elapsed()), (vec![1, 0], wait));
        drop(sink);
        assert!(batches.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_throttled_after_a_burst() {
        let throttle = Some(AuditThrottle { qps: 2.0, burst: 3 });
        let batch = AuditBatch { throttle, ..AuditBatch::LOG };
        let (sink, mut batches) = sink(AuditMode::Batch, &batch, 1000);
        let begin = Instant::now();
        let mut times = Vec::new();
        for _ in 0..5 {
            sink.write(line(1)).await;
            sizes(&mut batches).await;
            times.push(begin.elapsed().as_millis());
        }
        assert_eq!(times, [0, 0, 0, 500, 1000]);
        tokio::time::advance(Duration::from_secs(60)).await;
        let begin = Instant::now();
        for _ in 0..4 {
            sink.write(line(1)).await;
            sizes(&mut batches).await;
        }
        assert_eq!(begin.elapsed().as_millis(), 500, "a pause saves up one burst");
    }
}
