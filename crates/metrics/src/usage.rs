//! What is used now, from what had been used at two moments. Pure.

use crate::exposition::Point;

/// Usage over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Thousand-millionths of a CPU.
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    /// When the window ended, milliseconds since 1970.
    pub at_ms: i64,
    pub window_ms: i64,
}

/// The rate between `before` and `now`. A container that began since `before` counts from its beginning; one of which nothing
/// can be said yet gives nothing.
pub(crate) fn usage(before: Option<&Point>, now: &Point) -> Option<Usage> {
    let began_since = |before: &Point| now.started_ms > before.at_ms || now.cpu_seconds < before.cpu_seconds;
    let (from_ms, from_seconds) = match before {
        Some(before) if !began_since(before) => (before.at_ms, before.cpu_seconds),
        // Unknown before this scrape: only a young container's whole life is its present.
        _ if now.started_ms > 0 && now.at_ms - now.started_ms <= YOUNG_MS => (now.started_ms, 0.0),
        _ => return None,
    };
    let window_ms = now.at_ms - from_ms;
    if window_ms < LEAST_WINDOW_MS {
        return None;
    }
    let nano_cpus = (now.cpu_seconds - from_seconds) * 1e9 / (window_ms as f64 / 1000.0);
    Some(Usage {
        nano_cpus: nano_cpus.max(0.0) as u64,
        memory_bytes: now.memory_bytes.max(0.0) as u64,
        at_ms: now.at_ms,
        window_ms,
    })
}

/// Shorter windows say nothing: the kernel counts in steps.
const LEAST_WINDOW_MS: i64 = 500;
const YOUNG_MS: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let point = |cpu_seconds, at_ms, started_ms| Point { cpu_seconds, at_ms, memory_bytes: 5.0, started_ms };
        for (before, now, expected) in [
            (Some(point(1.0, 1_000, 1)), point(2.0, 3_000, 1), Some((500_000_000, 2_000))),
            // The same pass twice, and a window too short.
            (Some(point(1.0, 1_000, 1)), point(1.0, 1_000, 1), None),
            (Some(point(1.0, 1_000, 1)), point(1.1, 1_100, 1), None),
            // Restarted since: from its new beginning.
            (Some(point(9.0, 1_000, 1)), point(0.5, 3_000, 2_000), Some((500_000_000, 1_000))),
            // New here: young ones from their beginning, others not yet.
            (None, point(2.0, 5_000, 1_000), Some((500_000_000, 4_000))),
            (None, point(2.0, 500_000, 1_000), None),
            // A node says no beginning.
            (None, point(2.0, 5_000, 0), None),
        ] {
            let found = usage(before.as_ref(), &now).map(|usage| (usage.nano_cpus, usage.window_ms));
            assert_eq!(found, expected, "{before:?} {now:?}");
        }
    }
}
