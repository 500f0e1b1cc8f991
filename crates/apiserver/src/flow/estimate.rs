//! How many seats a request takes, and for how long after its end. As upstream estimates it: lists by the bytes that are in
//! memory for them at once, writes by who is watching.

use std::time::Duration;

use crate::core::Core;
use crate::http::path::RequestInfo;
use crate::http::query::Query;

/// Of one seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list is sent in pieces: it never holds more than this.
const LIST_BYTES: u64 = 1_000_000;
const MAX_LIST_SEATS: u32 = 100;
const MAX_WRITE_SEATS: u32 = 10;
const WATCHES_PER_SEAT: u32 = 10;
/// How long a change keeps watchers' seats busy.
const EVENT_TIME: Duration = Duration::from_millis(5);
/// Objects looked at to learn how large one is.
const SAMPLE: usize = 8;

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) seats: u32,
    /// How long the seats are taken after the request has ended.
    pub(super) after: Duration,
}

impl Cost {
    pub(super) const ONE: Self = Self { seats: 1, after: Duration::ZERO };
}

/// The cost of a request, of which `most` seats are granted at most.
pub(super) fn cost(core: &Core, info: &RequestInfo, query: &Query, most: u32) -> Cost {
    let Some(target) = &info.target else { return Cost::ONE };
    let lists = match info.verb.as_str() {
        "list" => true,
        "watch" => query.flag("sendInitialEvents"),
        "create" | "update" | "patch" | "delete" => false,
        _ => return Cost::ONE,
    };
    if lists && !target.name.is_empty() {
        return Cost::ONE;
    }
    let Some(resource) = core.registry.get(&target.group, &target.version, &target.resource) else { return Cost::ONE };
    let Some(cache) = resource.stored() else { return Cost::ONE };
    if lists {
        let snapshot = cache.snapshot();
        let limit = query.number("limit").ok().flatten().and_then(|limit| u64::try_from(limit).ok());
        let count = snapshot.map.len() as u64;
        let count = limit.filter(|limit| *limit > 0).map_or(count, |limit| limit.min(count));
        let sample = snapshot.map.values().take(SAMPLE).map(|entry| entry.value.len() as u64);
        let size = sample.sum::<u64>() / (snapshot.map.len().clamp(1, SAMPLE) as u64);
        let bytes = count.saturating_mul(size).min(LIST_BYTES);
        return Cost { seats: seats(bytes.div_ceil(BYTES_PER_SEAT), most.min(MAX_LIST_SEATS)), after: Duration::ZERO };
    }
    let watchers = u32::try_from(cache.watchers()).unwrap_or(u32::MAX);
    if watchers < WATCHES_PER_SEAT {
        return Cost::ONE;
    }
    let wanted = watchers.div_ceil(WATCHES_PER_SEAT);
    let seats = seats(wanted.into(), most.min(MAX_WRITE_SEATS));
    // As much work in all, whatever its shape.
    Cost { seats, after: EVENT_TIME.mul_f64(f64::from(wanted) / f64::from(seats)) }
}

fn seats(wanted: u64, most: u32) -> u32 {
    u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, most.max(1))
}
