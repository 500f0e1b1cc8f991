//! Which thresholds are met, for how long, and what follows. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::signal::{Observations, Pressure, Threshold};

/// What is remembered between two rounds; thresholds by their index.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    first_met: BTreeMap<usize, Timestamp>,
    condition_seen: BTreeMap<Pressure, Timestamp>,
    /// Met long enough and not resolved.
    acted_on: BTreeSet<usize>,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub(crate) struct Decision<'a> {
    /// What the node is to say of itself.
    pub conditions: BTreeSet<Pressure>,
    /// The most urgent threshold that asks for something to be given up.
    pub reclaim: Option<&'a Threshold>,
}

impl State {
    /// Takes in a round of observations. Conditions outlive their cause by `hold`. `thresholds` are in the order of urgency,
    /// and always the same.
    pub(crate) fn update<'a>(
        &mut self,
        thresholds: &'a [Threshold],
        observations: &Observations,
        hold: Duration,
        now: Timestamp,
    ) -> Decision<'a> {
        let met: BTreeSet<usize> = thresholds
            .iter()
            .enumerate()
            .filter(|(index, threshold)| Self::is_met(threshold, observations, self.acted_on.contains(index)))
            .map(|(index, _)| index)
            .collect();
        self.first_met.retain(|index, _| met.contains(index));
        for index in &met {
            self.first_met.entry(*index).or_insert(now);
            if let Some(threshold) = thresholds.get(*index) {
                self.condition_seen.insert(threshold.signal.condition(), now);
            }
        }
        let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
        self.condition_seen.retain(|_, seen| *seen == now || now.duration_since(*seen) < hold);
        let long_enough = |index: &usize| {
            let grace = thresholds.get(*index).and_then(|threshold| threshold.grace).unwrap_or_default();
            let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
            self.first_met.get(index).is_some_and(|first| now.duration_since(*first) >= grace)
        };
        self.acted_on = met.into_iter().filter(long_enough).collect();
        Decision {
            conditions: self.condition_seen.keys().copied().collect(),
            reclaim: self.acted_on.first().and_then(|index| thresholds.get(*index)),
        }
    }

    /// Whether too little is left; with `reclaiming`, less than what is to be left after something was given up.
    pub(crate) fn is_met(threshold: &Threshold, observations: &Observations, reclaiming: bool) -> bool {
        let Some(seen) = observations.get(&threshold.signal) else { return false };
        let mut wanted = threshold.amount.of(seen.capacity);
        if reclaiming && let Some(more) = threshold.minimum_reclaim {
            wanted = wanted.saturating_add(more.of(seen.capacity));
        }
        seen.available < wanted
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::{Amount, Observation, Signal};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn left(signal: Signal, available: u64) -> Observations {
        [(signal, Observation { available, capacity: 1000 })].into()
    }

    #[test]
    fn hard_soft_reclaim_and_hold() {
        let hard = Threshold {
            signal: Signal::MemoryAvailable,
            amount: Amount::Quantity(100),
            grace: None,
            minimum_reclaim: Some(Amount::Quantity(50)),
        };
        let soft = Threshold {
            amount: Amount::Percent(20.0),
            grace: Some(Duration::from_secs(30)),
            minimum_reclaim: None,
            ..hard.clone()
        };
        let thresholds = [hard.clone(), soft.clone()];
        let mut state = State::default();
        let pressed = BTreeSet::from([Pressure::Memory]);
        // Seconds, what is left, whether the node is pressed, what is acted on.
        for (second, available, is_pressed, reclaim) in [
            (0, 500, false, None),
            (10, 190, true, None), // soft, not yet long enough
            (39, 190, true, None),
            (40, 190, true, Some(&soft)), // long enough
            (50, 99, true, Some(&hard)),  // hard comes first
            (60, 149, true, Some(&hard)), // not enough was reclaimed
            (70, 150, true, Some(&soft)),
            (80, 300, true, None), // over, but the condition is held
            (379, 300, true, None),
            (380, 300, false, None),
        ] {
            let seen = left(Signal::MemoryAvailable, available);
            let decision = state.update(&thresholds, &seen, Duration::from_secs(310), at(second));
            assert_eq!(decision.reclaim, reclaim, "at {second}");
            assert_eq!(decision.conditions == pressed, is_pressed, "at {second}");
        }
    }

    #[test]
    fn what_is_not_seen_is_not_met() {
        let threshold = Threshold {
            signal: Signal::PidAvailable,
            amount: Amount::Percent(10.0),
            grace: None,
            minimum_reclaim: None,
        };
        assert!(!State::is_met(&threshold, &Observations::new(), false));
        assert!(State::is_met(&threshold, &left(Signal::PidAvailable, 99), false));
        assert!(!State::is_met(&threshold, &left(Signal::PidAvailable, 100), false));
    }
}
