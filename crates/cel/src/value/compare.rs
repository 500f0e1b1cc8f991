//! Equality as the language has it, order, and a total order that puts equal values together.

use std::cmp::Ordering;

use super::{List, Map, Value};
use crate::budget::Budget;
use crate::error::Error;
use crate::types::ListKind;

/// `a == b`. Values of different types are unequal; numbers compare by value.
pub(crate) fn equals(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<bool, Error> {
    budget.step(1)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            number(a, b) == Some(Ordering::Equal)
        }
        (Value::String(a), Value::String(b)) => {
            a.as_str().len() == b.as_str().len() && {
                budget.step_bytes(a.as_str().len())?;
                a == b
            }
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            a.len() == b.len() && {
                budget.step_bytes(a.len())?;
                a == b
            }
        }
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equals(a, b, budget)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::List(a), Value::List(b)) => lists(a, b, budget)?,
        (Value::Map(a), Value::Map(b)) => maps(a, b, budget)?,
        _ => false,
    })
}

fn lists(a: &List<'_>, b: &List<'_>, budget: &mut Budget) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let kind = a.decl().or(b.decl()).map_or(&ListKind::Atomic, |decl| &decl.list);
    if *kind != ListKind::Atomic {
        // In any order. Keyed items are equal when their keys and all else is.
        return Ok(sequence(&sorted(a, budget)?, &sorted(b, budget)?, budget)?.is_eq());
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equals(&a?, &b?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The items in [`total`] order.
pub(crate) fn sorted<'a>(list: &List<'a>, budget: &mut Budget) -> Result<Vec<Value<'a>>, Error> {
    budget.list(list.len())?;
    sort(list.iter().collect::<Result<Vec<_>, _>>()?, &mut |a, b| total(a, b, budget))
}

/// Sorts, and keeps the places of equals. The standard library's sorting cannot stop halfway.
pub(crate) fn sort<T>(
    mut left: Vec<T>,
    compare: &mut impl FnMut(&T, &T) -> Result<Ordering, Error>,
) -> Result<Vec<T>, Error> {
    if left.len() < 2 {
        return Ok(left);
    }
    let mut merged = Vec::with_capacity(left.len());
    let right = left.split_off(left.len() / 2);
    let mut left = sort(left, compare)?.into_iter().peekable();
    let mut right = sort(right, compare)?.into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let lesser = if compare(a, b)?.is_le() { &mut left } else { &mut right };
        merged.extend(lesser.next());
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

fn maps(a: &Map<'_>, b: &Map<'_>, budget: &mut Budget) -> Result<bool, Error> {
    if a.len() != b.len() || a.object().map(|object| &object.name) != b.object().map(|object| &object.name) {
        return Ok(false);
    }
    for key in a.keys() {
        let (Some(left), Some(right)) = (a.entry(&key), b.entry(&key)) else { return Ok(false) };
        if !equals(&left?, &right?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// By value across int, uint and double; `None` for NaN.
fn number(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Int(a), Value::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Uint(a), Value::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b)?,
        (Value::Double(a), Value::Int(b)) => with_integer(*a, i128::from(*b))?,
        (Value::Double(a), Value::Uint(b)) => with_integer(*a, i128::from(*b))?,
        (Value::Int(a), Value::Double(b)) => with_integer(*b, i128::from(*a))?.reverse(),
        (Value::Uint(a), Value::Double(b)) => with_integer(*b, i128::from(*a))?.reverse(),
        _ => return None,
    })
}

fn with_integer(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    // The cast stops at i128's ends, which are beyond every i64 and u64.
    let whole = a.trunc();
    Some((whole as i128).cmp(&b).then_with(|| a.partial_cmp(&whole).unwrap_or(Ordering::Equal)))
}

/// What `<` goes by; `None` for types without order, and for NaN.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => number(a, b),
    }
}

/// Whether `<` is defined at all for the two.
pub(crate) fn comparable(a: &Value<'_>, b: &Value<'_>) -> bool {
    let numeric = |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    (numeric(a) && numeric(b)) || order(a, b).is_some()
}

fn rank(value: &Value<'_>) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Uint(_) | Value::Double(_) => 2,
        Value::String(_) => 3,
        Value::Bytes(_) => 4,
        Value::Duration(_) => 5,
        Value::Timestamp(_) => 6,
        Value::List(_) => 7,
        Value::Map(_) => 8,
        Value::Optional(_) => 9,
        Value::Type(_) => 10,
        Value::Opaque(_) => 11,
    }
}

/// [`total`] for values of which at least one holds no others.
pub(crate) fn flat(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    rank(a).cmp(&rank(b)).then_with(|| order(a, b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b))))
}

/// A total order in which equal values are equal. Lists with items that cannot be read (a bad date) come first.
pub(crate) fn total(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<Ordering, Error> {
    budget.step(1)?;
    Ok(match (a, b) {
        (Value::List(x), Value::List(y)) => {
            let by_length = x.len().cmp(&y.len());
            if by_length != Ordering::Equal {
                return Ok(by_length);
            }
            let unordered = x.decl().or(y.decl()).is_some_and(|decl| decl.list != ListKind::Atomic);
            match (read(x, unordered, budget)?, read(y, unordered, budget)?) {
                (Some(x), Some(y)) => sequence(&x, &y, budget)?,
                (x, y) => x.is_some().cmp(&y.is_some()),
            }
        }
        (Value::Map(x), Value::Map(y)) => maps_total(x, y, budget)?,
        (Value::Optional(x), Value::Optional(y)) => match (x, y) {
            (Some(x), Some(y)) => total(x, y, budget)?,
            (x, y) => x.is_some().cmp(&y.is_some()),
        },
        (Value::Type(x), Value::Type(y)) => x.runtime_name().cmp(&y.runtime_name()),
        (Value::Opaque(x), Value::Opaque(y)) => x.text().cmp(&y.text()),
        (Value::String(x), Value::String(y)) => {
            budget.step_bytes(x.as_str().len().min(y.as_str().len()))?;
            x.cmp(y)
        }
        (Value::Bytes(x), Value::Bytes(y)) => {
            budget.step_bytes(x.len().min(y.len()))?;
            x.cmp(y)
        }
        _ => flat(a, b),
    })
}

fn maps_total(x: &Map<'_>, y: &Map<'_>, budget: &mut Budget) -> Result<Ordering, Error> {
    let by_length = x.len().cmp(&y.len());
    if by_length != Ordering::Equal {
        return Ok(by_length);
    }
    budget.step(x.len() as u64)?;
    // JSON maps are sorted by key, unless the crate's `preserve_order` is on.
    let (mut keys, mut others) = (x.keys(), y.keys());
    keys.sort();
    others.sort();
    let by_keys = keys.cmp(&others);
    if by_keys != Ordering::Equal {
        return Ok(by_keys);
    }
    for key in &keys {
        let (Some(Ok(a)), Some(Ok(b))) = (x.entry(key), y.entry(key)) else { continue };
        let found = total(&a, &b, budget)?;
        if found != Ordering::Equal {
            return Ok(found);
        }
    }
    Ok(Ordering::Equal)
}

/// The items; `None` when one cannot be read.
fn read<'a>(list: &List<'a>, unordered: bool, budget: &mut Budget) -> Result<Option<Vec<Value<'a>>>, Error> {
    let items = if unordered {
        sorted(list, budget)
    } else {
        budget.list(list.len())?;
        list.iter().collect()
    };
    match items {
        Err(Error::CostLimit) => Err(Error::CostLimit),
        items => Ok(items.ok()),
    }
}

fn is_nan(value: &Value<'_>) -> bool {
    matches!(value, Value::Double(value) if value.is_nan())
}

pub(crate) fn sequence(a: &[Value<'_>], b: &[Value<'_>], budget: &mut Budget) -> Result<Ordering, Error> {
    for (a, b) in a.iter().zip(b) {
        let found = total(a, b, budget)?;
        if found != Ordering::Equal {
            return Ok(found);
        }
    }
    Ok(a.len().cmp(&b.len()))
}
