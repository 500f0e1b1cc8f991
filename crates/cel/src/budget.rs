//! What a run may look at and build beyond what cel-go's costs tell.

use std::sync::Arc;

use crate::error::Error;
use crate::limits;
use crate::value::{List, Map, Text, Value};

/// Values compared or copied for one unit of cost: a run that spends all on them takes about the 0.1 s that upstream's limit
/// stands for.
pub(crate) const STEPS: u64 = 16;
/// Bytes of text compared in one step.
const STEP_BYTES: usize = 64;
/// Bytes that a pattern compiled at run time counts for.
pub(crate) const PATTERN_BYTES: u64 = 64 << 10;

/// What is left. Going beyond is [`Error::CostLimit`].
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { steps: 0, bytes: limits::MEMORY }
    }

    /// Allows the steps that so many units pay for, and says how many.
    pub(crate) fn allow(&mut self, units: u64) -> u64 {
        self.steps = units.saturating_mul(STEPS);
        self.steps
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Looks at so many values.
    pub(crate) fn step(&mut self, count: u64) -> Result<(), Error> {
        let left = self.steps.checked_sub(count);
        self.steps = left.unwrap_or(0);
        left.map(drop).ok_or(Error::CostLimit)
    }

    /// Compares so much text.
    pub(crate) fn step_bytes(&mut self, bytes: usize) -> Result<(), Error> {
        self.step((bytes / STEP_BYTES) as u64)
    }

    /// Whether so many bytes may be built.
    pub(crate) fn fits(&self, bytes: u64) -> Result<(), Error> {
        if bytes > self.bytes { Err(Error::CostLimit) } else { Ok(()) }
    }

    /// Room for a list of so many values, which are looked at one by one.
    pub(crate) fn list(&mut self, len: usize) -> Result<(), Error> {
        self.step(len as u64)?;
        self.fits(spine(len))
    }

    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), Error> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(0);
        left.map(drop).ok_or(Error::CostLimit)
    }

    /// Counts a value that a call or a read made. What others hold too was counted before, or is part of an object.
    pub(crate) fn built(&mut self, value: &Value<'_>) -> Result<(), Error> {
        match value {
            Value::List(List::Owned(items, _)) if Arc::strong_count(items) == 1 => {
                self.take(spine(items.len()))?;
                items.iter().try_for_each(|item| self.leaf(item))
            }
            Value::Optional(Some(inner)) if Arc::strong_count(inner) == 1 => self.leaf(inner),
            value => self.leaf(value),
        }
    }

    fn leaf(&mut self, value: &Value<'_>) -> Result<(), Error> {
        match value {
            Value::String(Text::Shared(text)) if Arc::strong_count(text) == 1 => self.take(text.len() as u64),
            Value::Bytes(bytes) if Arc::strong_count(bytes) == 1 => self.take(bytes.len() as u64),
            _ => Ok(()),
        }
    }

    /// Counts a container put together from values that were counted themselves.
    pub(crate) fn assembled(&mut self, value: &Value<'_>) -> Result<(), Error> {
        match value {
            Value::List(list) => self.take(spine(list.len())),
            Value::Map(Map::Owned(map) | Map::Struct(_, map)) => self.take(2 * spine(map.len())),
            _ => Ok(()),
        }
    }
}

/// Bytes that a list takes beside its items.
fn spine(len: usize) -> u64 {
    (len * size_of::<Value<'_>>()) as u64
}
