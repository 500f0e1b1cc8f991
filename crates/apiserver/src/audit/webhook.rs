//! The webhook backend: events posted as `EventList`s, many at once in batch mode. One list is under way at a time; what
//! cannot be delivered is tried again with growing pauses, and given up after the last.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::sink::{Item, Sink};
use crate::Error;
use crate::config::{AuditMode, AuditWebhook};
use crate::webhook::Webhook;

/// Events that wait to be sent (`--audit-webhook-batch-buffer-size`).
const BUFFER_EVENTS: usize = 10_000;
/// Events of one list (`--audit-webhook-batch-max-size`).
const BATCH_EVENTS: usize = 400;
/// How long an event waits for others (`--audit-webhook-batch-max-wait`).
const BATCH_WAIT: Duration = Duration::from_secs(30);
/// Between two lists in batch mode (`--audit-webhook-batch-throttle-qps`).
const PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts, the pause after the first (`--audit-webhook-initial-backoff`), how it grows, and what chance adds.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(10);
const GROWTH: f64 = 1.5;
const JITTER: f64 = 0.2;

/// Starts the sender, which ends with the sink.
pub(super) fn start(config: &AuditWebhook) -> Result<Sink, Error> {
    let webhook = Webhook::from_kubeconfig(&config.kubeconfig)?;
    let (sink, queue) = Sink::new("webhook", config.mode, BUFFER_EVENTS);
    tokio::spawn(send_all(webhook, queue, config.mode == AuditMode::Batch));
    Ok(sink)
}

async fn send_all(webhook: Webhook, mut queue: mpsc::Receiver<Item>, batches: bool) {
    let mut next = Instant::now();
    while let Some(first) = queue.recv().await {
        let until = Instant::now() + BATCH_WAIT;
        let mut batch = vec![first];
        // Nobody who waits is kept waiting for more.
        while batch.len() < BATCH_EVENTS && batch.last().is_some_and(|item| item.done.is_none()) {
            let Ok(Some(item)) = timeout_at(until, queue.recv()).await else { break };
            batch.push(item);
        }
        while batch.len() < BATCH_EVENTS
            && let Ok(item) = queue.try_recv()
        {
            batch.push(item);
        }
        if batches {
            sleep_until(next).await;
            next = Instant::now() + PAUSE;
        }
        let stored = deliver(&webhook, list(&batch)).await;
        batch.into_iter().for_each(|item| item.end(stored));
    }
}

/// An `EventList`; `None` when there is no event.
fn list(batch: &[Item]) -> Option<Bytes> {
    let lines = || batch.iter().map(|item| item.line.trim_ascii_end()).filter(|line| !line.is_empty());
    lines().next()?;
    let mut body = BytesMut::with_capacity(lines().map(|line| line.len() + 1).sum::<usize>() + 128);
    body.put_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (at, line) in lines().enumerate() {
        body.put_slice(if at == 0 { b"" } else { b"," });
        body.put_slice(line);
    }
    body.put_slice(b"]}");
    Some(body.freeze())
}

async fn deliver(webhook: &Webhook, body: Option<Bytes>) -> bool {
    let Some(body) = body else { return true };
    let mut pause = BACKOFF;
    for attempt in 1..=ATTEMPTS {
        let why = match webhook.post(body.clone(), TIMEOUT).await {
            Ok((status, _)) if (200..=206).contains(&status.as_u16()) => return true,
            Ok((status, _)) => format!("it answered {status}"),
            Err(error) => error.to_string(),
        };
        tracing::warn!(why, attempt, "audit events cannot be delivered");
        if attempt < ATTEMPTS {
            let jitter = rand::rng().random_range(0.0..=JITTER);
            sleep(pause.mul_f64(1.0 + jitter)).await;
            pause = pause.mul_f64(GROWTH);
        }
    }
    false
}
