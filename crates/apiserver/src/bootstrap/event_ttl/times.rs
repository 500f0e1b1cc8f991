//! When revisions came to be, in steps: everything that was written within a step counts from its end. So there are a few dozen
//! of them at most, and nothing goes before its time.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

/// A step is so small a part of a life, within these limits; leases on a shared store are granted for as much longer.
const STEPS: u32 = 20;
const STEP: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// What is written at or before `revision`, and after that of the step before, counts from `until`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    revision: u64,
    until: Timestamp,
}

/// Steps in the order of time.
#[derive(Debug)]
pub(super) struct Times {
    ttl: Duration,
    step: Duration,
    steps: VecDeque<Step>,
    /// The last step goes on.
    counting: bool,
}

impl Times {
    /// Takes up what [`Times::save`] made; what that does not tell of, or tells wrongly, counts from now.
    pub(super) fn load(ttl: Duration, kept: &[u8], now: Timestamp) -> Self {
        let step = (ttl / STEPS).clamp(*STEP.start(), *STEP.end());
        let kept: Vec<(u64, i64)> = serde_json::from_slice(kept).unwrap_or_default();
        let mut steps: VecDeque<Step> = VecDeque::new();
        for (revision, until) in kept {
            // A clock that was ahead, or is behind.
            let until = Timestamp::from_second(until).map_or(now, |until| until.min(now));
            if steps.back().is_none_or(|last| last.revision < revision) {
                steps.push_back(Step { revision, until });
            }
        }
        Self { ttl, step, steps, counting: false }
    }

    /// `[[REVISION, UNIX SECONDS], …]`
    pub(super) fn save(&self) -> Vec<u8> {
        let steps: Vec<_> = self.steps.iter().map(|step| (step.revision, step.until.as_second() + 1)).collect();
        serde_json::to_vec(&steps).unwrap_or_default()
    }

    /// Whether the newest step has not ended yet: nobody need tell of what is written before it does.
    pub(super) fn is_counting(&self) -> bool {
        self.counting
    }

    /// The newest revision now; whether a step has ended with it.
    pub(super) fn note(&mut self, revision: u64, now: Timestamp) -> bool {
        match self.steps.back_mut() {
            Some(last) if self.counting => {
                last.revision = last.revision.max(revision);
                self.counting = now < last.until;
                if !self.counting {
                    last.until = now;
                }
                !self.counting
            }
            Some(last) if last.revision >= revision => false,
            _ => {
                self.steps.push_back(Step { revision, until: now + self.step });
                self.counting = true;
                false
            }
        }
    }

    /// What was written at this revision or before is to go.
    pub(super) fn due(&self, now: Timestamp) -> Option<u64> {
        let ended = self.steps.len() - usize::from(self.counting);
        let due = self.steps.iter().take(ended).take_while(|step| self.end(step).is_some_and(|end| end <= now));
        due.last().map(|step| step.revision)
    }

    /// Nothing is left of this revision and before.
    pub(super) fn forget(&mut self, revision: u64) {
        self.steps.retain(|step| step.revision > revision);
    }

    /// How long until the next step ends, or is due.
    pub(super) fn next(&self, now: Timestamp) -> Option<Duration> {
        let ends = self.steps.back().filter(|_| self.counting).map(|step| step.until);
        let due = self.steps.iter().find_map(|step| self.end(step).filter(|end| *end > now));
        let next = ends.into_iter().chain(due).min()?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }

    fn end(&self, step: &Step) -> Option<Timestamp> {
        step.until.checked_add(self.ttl).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_written_within_a_step_goes_together_and_not_before_its_time() {
        let mut times = Times::load(HOUR, b"", at(0));
        assert_eq!((times.due(at(0)), times.next(at(0))), (None, None));
        assert!(!times.note(5, at(0)) && times.is_counting());
        assert_eq!(times.next(at(0)), Some(Duration::from_secs(60)));
        assert!(!times.note(7, at(59)));
        assert!(times.note(9, at(60)) && !times.is_counting());
        assert_eq!(times.next(at(60)), Some(HOUR));
        // Nothing new is no step.
        assert!(!times.note(9, at(1000)) && !times.is_counting());
        assert!(!times.note(12, at(2000)) && times.note(12, at(2060)));
        assert_eq!(times.due(at(3659)), None);
        assert_eq!(times.due(at(3660)), Some(9), "an hour after the last write of the step");
        times.forget(9);
        assert_eq!((times.due(at(3660)), times.next(at(3660))), (None, Some(Duration::from_secs(2000))));
        assert_eq!(times.due(at(5660)), Some(12));
        times.forget(12);
        assert_eq!(times.next(at(5660)), None);
    }

    #[test]
    fn a_restart_forgets_no_time() {
        let mut times = Times::load(HOUR, b"", at(0));
        times.note(5, at(0));
        times.note(5, at(60));
        times.note(8, at(600));
        times.note(8, at(660));
        let mut again = Times::load(HOUR, &times.save(), at(700));
        // What was written after the last step counts from now.
        again.note(20, at(700));
        again.note(20, at(760));
        assert_eq!(again.due(at(3661)), Some(5));
        assert_eq!(again.due(at(4261)), Some(8));
        assert_eq!(again.due(at(4360)), Some(20));
        // A clock that ran ahead keeps nothing for longer; what is no list of times is nothing.
        let ahead = Times::load(HOUR, &times.save(), at(-7200));
        assert_eq!(ahead.due(at(-3600)), Some(8));
        assert_eq!(Times::load(HOUR, b"{}", at(0)).due(at(99_999)), None);
    }

    #[test]
    fn steps_are_few() {
        let mut times = Times::load(HOUR, b"", at(0));
        for second in 0..100_000_u32 {
            let now = at(second.into());
            times.note(u64::from(second) + 1, now);
            if let Some(revision) = times.due(now) {
                times.forget(revision);
            }
        }
        assert!(times.steps.len() <= 62, "{}", times.steps.len());
        assert!(times.save().len() < 2048);
    }
}
