//! Counts of what became of a flow schema's requests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus::Histogram;

/// Why a request was turned away. Names are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

impl Reason {
    pub(crate) const ALL: [Self; 4] = [Self::QueueFull, Self::ConcurrencyLimit, Self::TimeOut, Self::Cancelled];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) dispatched: AtomicU64,
    rejected: [AtomicU64; 4],
    pub(crate) waiting: AtomicI64,
    pub(crate) executing: AtomicI64,
    pub(crate) seats: AtomicI64,
    /// How long those that were served had waited.
    pub(super) waits: OnceLock<Histogram>,
}

impl Meters {
    pub(crate) fn reject(&self, reason: Reason) {
        self.of(reason).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: Reason) -> u64 {
        self.of(reason).load(Ordering::Relaxed)
    }

    fn of(&self, reason: Reason) -> &AtomicU64 {
        let [full, limit, time, cancelled] = &self.rejected;
        match reason {
            Reason::QueueFull => full,
            Reason::ConcurrencyLimit => limit,
            Reason::TimeOut => time,
            Reason::Cancelled => cancelled,
        }
    }

    pub(super) fn begin(&self, seats: u32) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(seats.into(), Ordering::Relaxed);
    }

    pub(super) fn end(&self, seats: u32) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(seats.into(), Ordering::Relaxed);
    }
}
