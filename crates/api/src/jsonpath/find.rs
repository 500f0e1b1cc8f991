//! Walking a path. Everything found is a reference into the document.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Error, Filter, MAX_VISITS, Op, Operand, Step};

/// Bytes of text that cost as much to compare as a value costs to visit.
const TEXT_PER_VISIT: usize = 64;

struct Search<'v> {
    root: &'v Value,
    visits: usize,
}

pub(super) fn find<'v>(steps: &[Step], root: &'v Value) -> Result<Vec<&'v Value>, Error> {
    Search { root, visits: 0 }.walk(steps, root)
}

impl<'v> Search<'v> {
    fn visit(&mut self, count: usize) -> Result<(), Error> {
        self.visits += count;
        if self.visits > MAX_VISITS { Err(Error::TooMuch) } else { Ok(()) }
    }

    fn walk(&mut self, steps: &[Step], from: &'v Value) -> Result<Vec<&'v Value>, Error> {
        let mut current = vec![from];
        for step in steps {
            let mut next = Vec::new();
            for value in current {
                self.visit(1)?;
                self.step(step, value, &mut next)?;
            }
            current = next;
        }
        Ok(current)
    }

    fn step(&mut self, step: &Step, value: &'v Value, out: &mut Vec<&'v Value>) -> Result<(), Error> {
        match (step, value) {
            (Step::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Step::Wildcard, Value::Object(map)) => {
                self.visit(map.len())?;
                out.extend(map.values());
            }
            (Step::Wildcard, Value::Array(items)) => {
                self.visit(items.len())?;
                out.extend(items);
            }
            (Step::Recursive, value) => self.below(value, out)?,
            (Step::Index(index), Value::Array(items)) => {
                out.extend(position(*index, items.len()).and_then(|at| items.get(at)));
            }
            (Step::Slice(first, end, every), Value::Array(items)) => {
                let bound = |at: Option<i64>, default: usize| at.map_or(default, |at| clamped(at, items.len()));
                let (first, end) = (bound(*first, 0), bound(*end, items.len()));
                self.visit(end.saturating_sub(first))?;
                out.extend(items.get(first..end).unwrap_or_default().iter().step_by(*every));
            }
            (Step::Union(paths), value) => {
                for path in paths {
                    out.extend(self.walk(path, value)?);
                }
            }
            (Step::Filter(filter), Value::Array(items)) => {
                for item in items {
                    self.visit(1)?;
                    if self.passes(filter, item)? {
                        out.push(item);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The value and all that is in it, depth first. Documents are no deeper than their parsers let them be.
    fn below(&mut self, value: &'v Value, out: &mut Vec<&'v Value>) -> Result<(), Error> {
        self.visit(1)?;
        out.push(value);
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.below(item, out)),
            Value::Object(map) => map.values().try_for_each(|item| self.below(item, out)),
            _ => Ok(()),
        }
    }

    fn passes(&mut self, filter: &Filter, item: &'v Value) -> Result<bool, Error> {
        let left = self.operand(&filter.left, item)?;
        let Some((op, right)) = &filter.test else { return Ok(left.is_some()) };
        let right = self.operand(right, item)?;
        let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
        if let (Value::String(left), Value::String(right)) = (left, right) {
            self.visit(left.len().min(right.len()) / TEXT_PER_VISIT)?;
        }
        compare(*op, left, right)
    }

    /// The value to compare; nothing is copied.
    fn operand<'o>(&mut self, operand: &'o Operand, item: &'v Value) -> Result<Option<&'o Value>, Error>
    where
        'v: 'o,
    {
        match operand {
            Operand::Literal(value) => Ok(Some(value)),
            Operand::Path(steps, absolute) => {
                let from = if *absolute { self.root } else { item };
                Ok(self.walk(steps, from)?.first().copied())
            }
        }
    }
}

/// An index from the end when it is negative; `None` outside the list.
fn position(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).ok()?;
    let at = if index < 0 { index.checked_add(len)? } else { index };
    usize::try_from(at).ok().filter(|_| at < len)
}

/// The same for the ends of slices, which may lie outside.
fn clamped(index: i64, len: usize) -> usize {
    let len_signed = i64::try_from(len).unwrap_or(i64::MAX);
    let at = if index < 0 { index.saturating_add(len_signed) } else { index };
    usize::try_from(at.max(0)).unwrap_or(len).min(len)
}

/// Compares scalars; as in kubectl, lists and maps have no order and no equals.
fn compare(op: Op, left: &Value, right: &Value) -> Result<bool, Error> {
    let is_scalar = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    if !is_scalar(left) || !is_scalar(right) {
        return Err(Error::NotComparable);
    }
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    };
    Ok(match op {
        Op::Equal => order == Some(Ordering::Equal),
        Op::NotEqual => order != Some(Ordering::Equal),
        Op::Less => order == Some(Ordering::Less),
        Op::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Op::Greater => order == Some(Ordering::Greater),
        Op::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}
