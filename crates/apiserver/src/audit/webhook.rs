//! The webhook backend: events posted as `EventList`s, many at once in batch mode. One list is under way at a time; what
//! cannot be delivered is tried again with growing pauses, and given up after the last.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::Rng as _;
use tokio::time::sleep;

use super::batch::Batches;
use super::sink::{Form, Item, Sink};
use crate::Error;
use crate::config::{AuditFormat, AuditWebhook};
use crate::webhook::Webhook;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one list, where nothing is said (`--audit-webhook-truncate-max-batch-size`).
const BATCH_BYTES: usize = 64 << 20;
/// Attempts, how the pause between two grows, and what chance adds.
const ATTEMPTS: u32 = 5;
const GROWTH: f64 = 1.5;
const JITTER: f64 = 0.2;

/// Starts the sender, which ends with the sink.
pub(super) fn start(config: &AuditWebhook) -> Result<Sink, Error> {
    let webhook = Webhook::from_kubeconfig(&config.kubeconfig)?;
    let AuditWebhook { mode, batch, truncate, initial_backoff, .. } = config;
    let form = Form { format: AuditFormat::Json, truncate: *truncate };
    let (sink, queue) = Sink::new("webhook", *mode, batch.buffer_events, form);
    let max_bytes = truncate.map_or(BATCH_BYTES, |limit| limit.max_batch_bytes);
    tokio::spawn(send_all(webhook, Batches::new(queue, *mode, batch, max_bytes), *initial_backoff));
    Ok(sink)
}

async fn send_all(webhook: Webhook, mut batches: Batches, backoff: Duration) {
    while let Some(batch) = batches.next().await {
        let stored = deliver(&webhook, list(&batch), backoff).await;
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

async fn deliver(webhook: &Webhook, body: Option<Bytes>, backoff: Duration) -> bool {
    let Some(body) = body else { return true };
    let mut pause = backoff;
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
