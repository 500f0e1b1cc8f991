//! The one clock. It follows `tokio::time`, so paused time pauses the whole control plane.

use std::sync::OnceLock;

/// The time now.
pub fn now() -> jiff::Timestamp {
    static BASE: OnceLock<(tokio::time::Instant, jiff::Timestamp)> = OnceLock::new();
    let (instant, timestamp) = BASE.get_or_init(|| (tokio::time::Instant::now(), jiff::Timestamp::now()));
    let now = tokio::time::Instant::now();
    match now.checked_duration_since(*instant) {
        Some(since) => *timestamp + since,
        None => *timestamp - instant.duration_since(now),
    }
}
