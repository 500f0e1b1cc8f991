//! How long a container that keeps ending, or an image that cannot be pulled, waits for its next try: 10 s, doubled each
//! time up to a limit, forgotten after twice the limit without trouble.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first wait.
pub(crate) const INITIAL: Duration = Duration::from_secs(10);

/// One thing's history of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The wait now in force.
    pub delay: Duration,
    /// When it was last raised.
    pub updated: Timestamp,
}

impl Backoff {
    /// What follows `previous` after a failure that ended at `event`: the next wait, counted from `now`.
    pub(crate) fn next(previous: Option<Backoff>, event: Timestamp, now: Timestamp, limit: Duration) -> Backoff {
        let delay = match previous {
            Some(previous) if !previous.expired(event, limit) => (previous.delay * 2).min(limit),
            _ => INITIAL.min(limit),
        };
        Backoff { delay, updated: now }
    }

    /// Until when something that failed at `event` waits; `None` when it may go on.
    pub(crate) fn waits_until(&self, event: Timestamp, now: Timestamp, limit: Duration) -> Option<Timestamp> {
        if self.expired(event, limit) {
            return None;
        }
        let until = event.checked_add(signed(self.delay)).ok()?;
        (now < until).then_some(until)
    }

    fn expired(&self, event: Timestamp, limit: Duration) -> bool {
        event.duration_since(self.updated) > signed(limit * 2)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A duration as Go prints it, for whole seconds: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A measured duration as Go prints it after rounding to milliseconds: `12ms`, `1.204s`, `1m2.5s`.
pub(crate) fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis() as u64;
    if millis == 0 {
        return "0s".into();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let fraction = format!("{:03}", millis % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = millis / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}{point}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{point}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{point}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn doubles_up_to_the_limit_and_forgets() {
        let limit = Duration::from_secs(300);
        let mut backoff = Backoff::next(None, at(0), at(0), limit);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(backoff.delay.as_secs(), expected);
            now += 1;
            assert_eq!(backoff.waits_until(at(now), at(now), limit), Some(at(now + expected as i64)));
            now += expected as i64;
            backoff = Backoff::next(Some(backoff), at(now), at(now), limit);
        }
        let later = at(now + 601);
        assert_eq!(backoff.waits_until(later, later, limit), None, "ten quiet minutes reset it");
        assert_eq!(Backoff::next(Some(backoff), later, later, limit).delay, INITIAL);
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_seconds(Duration::from_secs(seconds)), text);
        }
        for (millis, text) in [(0, "0s"), (12, "12ms"), (1000, "1s"), (1204, "1.204s"), (62_500, "1m2.5s")] {
            assert_eq!(go_millis(Duration::from_millis(millis)), text);
        }
    }
}
