//! How the server's seats are divided among the priority levels: by their shares first, then, every few seconds, by what
//! they used, within what they may lend and borrow.

use super::demand::Period;

/// How much of what was smoothed stays, a period later.
const DECAY: f64 = 0.977;

/// A level's part of the server's seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) nominal: u32,
    /// What is left when everything that may be lent is lent.
    pub(crate) lowest: u32,
    /// What it may have when others lend.
    pub(crate) highest: u32,
}

/// A level's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) shares: u32,
    pub(super) lendable_percent: u32,
    /// `None`: as much as there is.
    pub(super) borrowing_percent: Option<u32>,
}

/// The bounds of levels with these shares.
pub(super) fn bounds(total: u32, levels: &[Shares]) -> Vec<Bounds> {
    let sum: f64 = levels.iter().map(|level| f64::from(level.shares)).sum();
    let part = |seats: u32, percent: u32| (f64::from(seats) * f64::from(percent) / 100.0).round() as u32;
    let each = |level: &Shares| {
        let nominal = if sum > 0.0 { (f64::from(total) * f64::from(level.shares) / sum).ceil() as u32 } else { 0 };
        let highest = level.borrowing_percent.map_or(total, |percent| nominal + part(nominal, percent));
        Bounds { nominal, lowest: nominal.saturating_sub(part(nominal, level.lendable_percent)), highest }
    };
    levels.iter().map(each).collect()
}

/// What a level's demand was, smoothed: up at once, down slowly.
pub(super) fn smoothed(before: f64, period: Period) -> f64 {
    let envelope = (period.average + period.deviation).min(period.highest);
    envelope.max(DECAY * before + (1.0 - DECAY) * envelope)
}

/// Divides all seats: each level gets what it used lately, up to its nominal part, and at least what it does not lend; what
/// is left is divided in proportion to the targets, within the bounds.
pub(super) fn divide(total: u32, levels: &[(Bounds, Period, f64)]) -> Vec<u32> {
    let floor = |(bounds, period, _): &(Bounds, Period, f64)| {
        f64::from(bounds.lowest).max(f64::from(bounds.nominal).min(period.highest))
    };
    let total = f64::from(total);
    let floors: Vec<f64> = levels.iter().map(floor).collect();
    let targets: Vec<f64> =
        levels.iter().zip(&floors).map(|((_, _, target), floor)| target.max(*floor).max(1.0)).collect();
    let at = |fraction: f64| -> Vec<f64> {
        let parts = levels.iter().zip(&floors).zip(&targets);
        parts
            .map(|(((bounds, ..), floor), target)| (fraction * target).clamp(*floor, floor.max(bounds.highest.into())))
            .collect()
    };
    let (mut low, mut high) = (0.0, total + 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().sum::<f64>() > total { high = middle } else { low = middle }
    }
    at(low).into_iter().map(|seats| seats.round() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Period = Period { highest: 0.0, average: 0.0, deviation: 0.0 };

    fn level(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Shares {
        Shares { shares, lendable_percent, borrowing_percent }
    }

    #[test]
    fn shares_become_seats() {
        let bounds = bounds(600, &[level(100, 90, None), level(5, 0, Some(0)), level(140, 50, Some(10))]);
        assert_eq!(bounds[0], Bounds { nominal: 245, lowest: 24, highest: 600 });
        assert_eq!(bounds[1], Bounds { nominal: 13, lowest: 13, highest: 13 });
        assert_eq!(bounds[2], Bounds { nominal: 343, lowest: 171, highest: 377 });
    }

    #[test]
    fn idle_seats_are_lent() {
        let bounds = bounds(100, &[level(50, 80, None), level(50, 80, None)]);
        let busy = Period { highest: 200.0, average: 90.0, deviation: 0.0 };
        let seats = divide(100, &[(bounds[0], busy, 90.0), (bounds[1], QUIET, 0.0)]);
        assert!(seats[0] >= 89 && seats[1] >= 10, "{seats:?}");
        assert!(seats.iter().sum::<u32>() <= 101, "{seats:?}");
        // Both want everything: each gets its own.
        let seats = divide(100, &[(bounds[0], busy, 90.0), (bounds[1], busy, 90.0)]);
        assert_eq!(seats, [50, 50]);
    }

    #[test]
    fn demand_falls_slowly() {
        let busy = Period { highest: 10.0, average: 8.0, deviation: 4.0 };
        assert_eq!(smoothed(0.0, busy), 10.0);
        let later = smoothed(10.0, QUIET);
        assert!(later > 9.0 && later < 10.0);
    }
}
