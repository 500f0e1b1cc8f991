//! A watch as a stream: it holds a place in the ring and is woken when something under its prefix happens.

use std::sync::Arc;

use super::{state::Watcher, writer::Shared};
use crate::{Error, WatchItem, WatchStream};

/// How many changes one item carries at most.
const EVENTS_PER_ITEM: usize = 512;

/// Opens a watch under `prefix` after `revision`.
pub(super) fn open(shared: &Arc<Shared>, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
    let (id, watcher) = shared.state.write().add_watcher(prefix, revision)?;
    let watch = Watch { shared: shared.clone(), id, watcher };
    if shared.queue.lock().closed {
        return Err(Error::Closed);
    }
    Ok(Box::pin(futures::stream::unfold(Some(watch), |watch| async move {
        let watch = watch?;
        loop {
            match watch.next() {
                Some(Ok(item)) => return Some((Ok(item), Some(watch))),
                Some(Err(error)) => return Some((Err(error), None)),
                None => watch.watcher.wake.notified().await,
            }
        }
    })))
}

struct Watch {
    shared: Arc<Shared>,
    id: u64,
    watcher: Arc<Watcher>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.state.write().remove_watcher(self.id);
    }
}

impl Watch {
    /// What there is to say now.
    fn next(&self) -> Option<Result<WatchItem, Error>> {
        let state = self.shared.state.read();
        let mut cursor = self.watcher.cursor.lock();
        if cursor.first_match != 0 {
            if cursor.first_match < state.ring_start() {
                let oldest = state.ring_start() - 1;
                return Some(Err(Error::Compacted { requested: cursor.seen, oldest }));
            }
            let matching = state.events_from(cursor.first_match).filter(|e| e.key.starts_with(&*self.watcher.prefix));
            let events: Vec<_> = matching.take(EVENTS_PER_ITEM).cloned().collect();
            let more = (events.len() == EVENTS_PER_ITEM).then(|| events.last().map(|e| e.revision)).flatten();
            cursor.seen = more.unwrap_or(state.revision);
            cursor.first_match = more.filter(|r| *r < state.revision).map_or(0, |r| r + 1);
            if !events.is_empty() {
                return Some(Ok(WatchItem::Events(events)));
            }
        }
        cursor.seen = state.revision;
        if std::mem::take(&mut cursor.progress_wanted) {
            return Some(Ok(WatchItem::Progress(state.revision)));
        }
        cursor.closed.then_some(Err(Error::Closed))
    }
}
