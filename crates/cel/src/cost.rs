//! Cost in cel-go's units: what a run costs ([`run`]), and what it may cost at most ([`estimate`]). One unit is about what
//! reading a variable takes; strings count a tenth of a unit per character.

pub(crate) mod estimate;
pub(crate) mod run;

/// A range of costs or sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

/// Cost of a character, of a character of a pattern, of making a list, map and object.
pub(crate) const CHARACTER: f64 = 0.1;
pub(crate) const PATTERN_CHARACTER: f64 = 0.25;
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const OBJECT: u64 = 40;
/// Two authorization checks fit into one expression.
pub(crate) const AUTHORIZATION: u64 = 350_000;

impl Range {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Rounded up.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// `value × factor`, rounded up; stops at the largest `u64`.
pub(crate) fn scaled(value: u64, factor: f64) -> u64 {
    // The cast saturates.
    (value as f64 * factor).ceil() as u64
}
