//! The one clock: the machine's, or `tokio::time`'s while that is paused, so that paused time pauses the whole control plane.

use std::sync::OnceLock;
use std::time::Duration;

/// Between two looks at a clock that runs there is less than this, unless the thread was set aside just then.
const ADJACENT: Duration = Duration::from_micros(100);
/// Looks before a difference counts.
const LOOKS: usize = 3;

/// The time now. The machine's time is read each time: it may be set, and goes on while the machine sleeps.
pub fn now() -> jiff::Timestamp {
    static BASE: OnceLock<(tokio::time::Instant, jiff::Timestamp)> = OnceLock::new();
    let (instant, timestamp) = BASE.get_or_init(|| (tokio::time::Instant::now(), jiff::Timestamp::now()));
    if !is_paused() {
        return jiff::Timestamp::now();
    }
    let now = tokio::time::Instant::now();
    match now.checked_duration_since(*instant) {
        Some(since) => *timestamp + since,
        None => *timestamp - instant.duration_since(now),
    }
}

/// Whether `tokio::time` is another one than the machine's.
fn is_paused() -> bool {
    (0..LOOKS).all(|_| {
        let (theirs, real) = (tokio::time::Instant::now().into_std(), std::time::Instant::now());
        real.saturating_duration_since(theirs).max(theirs.saturating_duration_since(real)) > ADJACENT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time() {
        let before = now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let passed = now().duration_since(before).as_secs();
        assert!((3599..=3601).contains(&passed), "{passed} s");
    }

    #[test]
    fn real_time() {
        let real = jiff::Timestamp::now();
        assert!(now().duration_since(real).as_secs().abs() < 5);
        assert!(!is_paused());
    }
}
