//! How much of the processors each flow has used of late.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is looked at is this one and the one before.
const WINDOW: Duration = Duration::from_millis(20);
/// What a flow that takes little uses in a window, at most: a quarter of a processor.
const LITTLE: Duration = Duration::from_millis(5);
/// What the express thread may use in a window, that the machine's other programs have half of its processor at least.
const EXPRESS: Duration = Duration::from_millis(10);

/// A flow, and how long a poll of one of its tasks took.
pub(super) type Spent = (u64, Duration);

/// In this window and the one before. The time is a clock's: waiting for a processor counts, too.
pub(super) struct Used {
    since: Instant,
    now: HashMap<u64, Duration>,
    before: HashMap<u64, Duration>,
    express: Duration,
}

impl Used {
    pub(super) fn new() -> Self {
        let (now, before, express) = Default::default();
        Self { since: Instant::now(), now, before, express }
    }

    /// Notes what a worker did.
    pub(super) fn note(&mut self, (flow, time): Spent) {
        *self.now.entry(flow).or_default() += time;
    }

    /// Notes what the express thread did.
    pub(super) fn note_express(&mut self, spent: Spent) {
        self.note(spent);
        self.express += spent.1;
    }

    /// A new window begins when it is time.
    pub(super) fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return;
        }
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.clear();
        if passed > 2 * WINDOW {
            self.before.clear();
        }
        self.since = now;
        self.express = Duration::ZERO;
    }

    pub(super) fn is_light(&self, flow: u64) -> bool {
        [&self.now, &self.before].iter().all(|window| window.get(&flow).is_none_or(|used| *used <= LITTLE))
    }

    pub(super) fn express_has_left(&self) -> bool {
        self.express < EXPRESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_used_is_forgotten_after_two_windows() {
        let mut used = Used::new();
        let start = used.since;
        used.note((1, 4 * MILLI));
        used.note((2, 4 * MILLI));
        assert!(used.is_light(1) && used.is_light(2) && used.is_light(3));
        used.note((1, 4 * MILLI));
        assert!(!used.is_light(1) && used.is_light(2));
        used.turn(start + 19 * MILLI);
        used.turn(start + 24 * MILLI);
        used.note((2, 4 * MILLI));
        assert!(!used.is_light(1) && used.is_light(2), "each window is judged by itself");
        used.turn(start + 45 * MILLI);
        assert!(used.is_light(1));
        used.note((1, 8 * MILLI));
        used.turn(start + 1000 * MILLI);
        assert!(used.is_light(1), "that was long ago");
    }

    #[test]
    fn the_express_thread_has_half_of_each_window() {
        let mut used = Used::new();
        let start = used.since;
        for flow in 0..5 {
            assert!(used.express_has_left());
            used.note_express((flow, 2 * MILLI));
        }
        assert!(!used.express_has_left() && used.is_light(0));
        used.turn(start + WINDOW);
        assert!(used.express_has_left());
    }
}
