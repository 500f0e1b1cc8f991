//! What becomes of an event: written, counted onto one already written, or dropped. The numbers are upstream's.
//!
//! - Spam: per object, 25 events at once and one more every five minutes.
//! - Aggregation: after ten different messages for the same reason within ten minutes, all that follow become one.
//! - Counting: an event equal to one already written patches that one.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Record;

const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_INTERVAL_SECONDS: i64 = 600;
/// Entries per table; the oldest half goes when it is full.
const MAX_ENTRIES: usize = 4096;

/// Identifies what was written, for [`Correlator::written`].
pub(super) type Slot = u64;

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Drop,
    Create { message: String, slot: Slot },
    CountUp { name: String, message: String, count: i32, first: jiff::Timestamp, slot: Slot },
}

/// Remembers what one component said. Keys are hashes, so that ten thousand events cost kilobytes.
#[derive(Default)]
pub(super) struct Correlator {
    buckets: HashMap<u64, Bucket>,
    similar: HashMap<u64, Similar>,
    written: HashMap<Slot, Written>,
}

struct Bucket {
    tokens: f64,
    at: jiff::Timestamp,
}

struct Similar {
    messages: HashSet<u64>,
    at: jiff::Timestamp,
}

struct Written {
    /// Empty when the write failed.
    name: String,
    count: i32,
    first: jiff::Timestamp,
    at: jiff::Timestamp,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Forgets the older half of a full table.
fn trim<V>(table: &mut HashMap<u64, V>, at: impl Fn(&V) -> jiff::Timestamp) {
    if table.len() < MAX_ENTRIES {
        return;
    }
    let mut times: Vec<_> = table.values().map(&at).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    table.retain(|_, value| at(value) > median);
}

impl Correlator {
    pub(super) fn judge(&mut self, record: &Record) -> Outcome {
        let about = &record.about;
        let object = hash((&about.api_version, &about.kind, &about.namespace, &about.name, &about.uid));
        if !self.take_token(object, record.at) {
            return Outcome::Drop;
        }
        let group = hash((object, record.type_, &record.reason));
        let (message, slot) = if self.is_aggregated(group, record) {
            (format!("(combined from similar events): {}", record.message), group)
        } else {
            (record.message.clone(), hash((group, &about.field_path, &record.message)))
        };
        match self.written.get_mut(&slot) {
            Some(written) if !written.name.is_empty() => {
                written.count = written.count.saturating_add(1);
                written.at = record.at;
                Outcome::CountUp {
                    name: written.name.clone(),
                    message,
                    count: written.count,
                    first: written.first,
                    slot,
                }
            }
            _ => Outcome::Create { message, slot },
        }
    }

    /// A create succeeded.
    pub(super) fn written(&mut self, slot: Slot, name: String, at: jiff::Timestamp) {
        trim(&mut self.written, |written| written.at);
        self.written.insert(slot, Written { name, count: 1, first: at, at });
    }

    /// What was to be counted up had expired and was written anew.
    pub(super) fn renamed(&mut self, slot: Slot, name: String) {
        if let Some(written) = self.written.get_mut(&slot) {
            written.name = name;
        }
    }

    fn take_token(&mut self, object: u64, now: jiff::Timestamp) -> bool {
        trim(&mut self.buckets, |bucket| bucket.at);
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, at: now });
        let seconds = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + seconds * REFILL_PER_SECOND).min(BURST);
        bucket.at = now;
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }

    fn is_aggregated(&mut self, group: u64, record: &Record) -> bool {
        trim(&mut self.similar, |similar| similar.at);
        let similar = self.similar.entry(group).or_insert_with(|| Similar { messages: HashSet::new(), at: record.at });
        if record.at.duration_since(similar.at).as_secs() > SIMILAR_INTERVAL_SECONDS {
            similar.messages.clear();
        }
        similar.at = record.at;
        similar.messages.insert(hash(&record.message));
        if similar.messages.len() < SIMILAR_LIMIT {
            return false;
        }
        // Keep the set at the limit: which messages they are no longer matters.
        if similar.messages.len() > SIMILAR_LIMIT
            && let Some(any) = similar.messages.iter().next().copied()
        {
            similar.messages.remove(&any);
        }
        true
    }
}
