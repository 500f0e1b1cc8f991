//! How many seats a priority level could have used, over the time since somebody last asked.

use tokio::time::Instant;

/// Sums over time.
#[derive(Debug)]
pub(super) struct Demand {
    seats: u32,
    highest: u32,
    since: Instant,
    updated: Instant,
    /// Of seats and of their squares, times seconds.
    sum: f64,
    squares: f64,
}

/// A period's demand, in seats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Period {
    pub(super) highest: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { seats: 0, highest: 0, since: now, updated: now, sum: 0.0, squares: 0.0 }
    }

    pub(super) fn set(&mut self, seats: u32, now: Instant) {
        self.advance(now);
        self.seats = seats;
        self.highest = self.highest.max(seats);
    }

    /// The demand since the last call.
    pub(super) fn period(&mut self, now: Instant) -> Period {
        self.advance(now);
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let per = |sum: f64| if seconds > 0.0 { sum / seconds } else { 0.0 };
        let average = per(self.sum);
        let variance = (per(self.squares) - average * average).max(0.0);
        let period = Period { highest: f64::from(self.highest), average, deviation: variance.sqrt() };
        *self = Self { seats: self.seats, highest: self.seats, ..Self::new(now) };
        period
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.updated).as_secs_f64();
        let seats = f64::from(self.seats);
        self.sum += seats * seconds;
        self.squares += seats * seats * seconds;
        self.updated = self.updated.max(now);
    }
}
