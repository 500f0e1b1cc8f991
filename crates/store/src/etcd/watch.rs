//! One watch: it goes on after the last revision that it told of, whatever happens to the connection, so that no event is
//! lost and none comes twice.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};

use super::{ANSWER_BYTES, Shared, after, failure::call, revision_of};
use crate::{Error, Event, WatchItem, WatchStream};

/// Pause between two attempts to open the watch again.
const RETRY: Duration = Duration::from_millis(200);
/// How long an attempt may take.
const OPEN: Duration = Duration::from_secs(5);

/// Opens a watch under `prefix` after `revision`.
pub(super) async fn open(shared: &Arc<Shared>, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
    let prefix = shared.key(prefix)?;
    // A watch would wait for a revision to come, and tell of a compaction only later; a read tells at once.
    let options = GetOptions::new().with_count_only().with_revision(revision.cast_signed());
    if let Err(error) = call("watch", shared.kv.clone().get(prefix.as_str(), Some(options))).await {
        return Err(shared.numbered(error, revision).await);
    }
    let nudge = after(&prefix);
    *shared.nudges.lock().entry(nudge.clone()).or_default() += 1;
    let mut watch =
        Watch { shared: shared.clone(), prefix, nudge, seen: revision, stream: None, ready: VecDeque::new() };
    watch.connect().await?;
    Ok(Box::pin(futures::stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(item) => Some((Ok(item), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

struct Watch {
    shared: Arc<Shared>,
    prefix: String,
    /// The key whose changes say how far the watch has come.
    nudge: Vec<u8>,
    /// Everything up to here was told.
    seen: u64,
    stream: Option<etcd_client::WatchStream>,
    ready: VecDeque<WatchItem>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut nudges = self.shared.nudges.lock();
        if let Some(count) = nudges.get_mut(&self.nudge) {
            *count -= 1;
            if *count == 0 {
                nudges.remove(&self.nudge);
            }
        }
    }
}

impl Watch {
    async fn next(&mut self) -> Result<WatchItem, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let Some(stream) = &mut self.stream else {
                match self.connect().await {
                    Ok(()) => tracing::info!(after = self.seen, "watching etcd again"),
                    Err(error @ (Error::Compacted { .. } | Error::Future { .. })) => return Err(error),
                    Err(error) => {
                        tracing::warn!(%error, "etcd cannot be watched; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) => self.take(&response)?,
                Ok(None) => self.stream = None,
                Err(error) => {
                    tracing::warn!(%error, "the watch of etcd broke");
                    self.stream = None;
                }
            }
        }
    }

    /// Opens the stream after what was seen.
    async fn connect(&mut self) -> Result<(), Error> {
        let unreachable = |what: String| Error::Unreachable { what: format!("etcd: watch: {what}") };
        let options = WatchOptions::new()
            .with_range([&self.nudge[..], b"\0"].concat())
            .with_start_revision((self.seen + 1).cast_signed())
            .with_prev_key();
        let mut client = self.shared.client.watch_client().max_decoding_message_size(ANSWER_BYTES);
        let attempt = async {
            let mut stream = client.watch(self.prefix.as_str(), Some(options)).await?;
            let first = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, first))
        };
        let attempt = tokio::time::timeout(OPEN, attempt).await.map_err(|_| unreachable("no answer".into()))?;
        let (stream, first) = attempt.map_err(|error| unreachable(error.to_string()))?;
        let first = first.ok_or_else(|| unreachable("it ended at once".into()))?;
        if revision_of(first.header()) < self.seen && first.created() && !first.canceled() {
            // A member that lags behind the others, if they know what was told; it will catch up.
            let newest = self.shared.revision().await?;
            if newest < self.seen {
                // Another etcd, or one that was set back: what was told is not what is there.
                return Err(Error::Future { requested: self.seen, newest });
            }
        }
        self.stream = Some(stream);
        self.take(&first)
    }

    /// Makes items of an answer.
    fn take(&mut self, response: &WatchResponse) -> Result<(), Error> {
        if response.canceled() {
            self.stream = None;
            let compacted = response.compact_revision().cast_unsigned();
            if compacted > 0 {
                self.shared.note_compacted(compacted);
                return Err(Error::Compacted { requested: self.seen, oldest: compacted });
            }
            tracing::warn!(reason = response.cancel_reason(), "etcd ended the watch");
            return Ok(());
        }
        let mut events = Vec::with_capacity(response.events().len());
        let mut progress = None;
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = kv.mod_revision().cast_unsigned();
            if revision <= self.seen {
                continue;
            }
            if kv.key() == self.nudge {
                progress = Some(revision);
                continue;
            }
            let value = (event.event_type() == EventType::Put).then(|| self.shared.kv(kv.clone()));
            let previous = event.prev_kv().map(|kv| self.shared.kv(kv.clone()));
            let key = value.as_ref().map_or_else(|| self.shared.name(kv.key()), |value| value.key.clone());
            events.push(Event { key, revision, value, previous });
        }
        let last = events.last().map(|event| event.revision);
        if !events.is_empty() {
            self.ready.push_back(WatchItem::Events(events));
        }
        if let Some(revision) = progress {
            self.ready.push_back(WatchItem::Progress(revision.max(last.unwrap_or(0))));
        }
        self.seen = self.seen.max(last.unwrap_or(0)).max(progress.unwrap_or(0));
        Ok(())
    }
}
