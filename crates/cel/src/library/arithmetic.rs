//! Operators. Numbers that do not fit are errors.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Args, lists, no_overload, time};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Value, compare};

fn overflow() -> Error {
    Error::new("integer overflow")
}

fn unsigned_overflow() -> Error {
    Error::new("unsigned integer overflow")
}

pub(super) fn not<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => no_overload(),
    }
}

pub(super) fn compare<'a>(args: Args<'_, 'a>, test: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    let [a, b] = args else { return no_overload() };
    if !compare::comparable(a, b) {
        return no_overload();
    }
    Ok(Value::Bool(compare::order(a, b).is_some_and(test)))
}

pub(super) fn equal<'a>(args: Args<'_, 'a>, wanted: bool, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let [a, b] = args else { return no_overload() };
    Ok(Value::Bool(compare::equals(a, b, budget)? == wanted))
}

pub(super) fn add<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let [a, b] = args else { return no_overload() };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            budget.fits((a.as_str().len() + b.as_str().len()) as u64)?;
            Value::text([a.as_str(), b.as_str()].concat())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.fits((a.len() + b.len()) as u64)?;
            Value::Bytes(Arc::from([&**a, &**b].concat()))
        }
        (Value::Duration(a), Value::Duration(b)) => {
            Value::Duration(a.checked_add(*b).ok_or_else(|| Error::new("duration overflow"))?)
        }
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            Value::Timestamp(time::shift(*at, *nanos)?)
        }
        (Value::List(a), Value::List(b)) => Value::List(lists::concat(a, b, budget)?),
        _ => return no_overload(),
    })
}

pub(super) fn subtract<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [a, b] = args else { return no_overload() };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => {
            Value::Duration(a.checked_sub(*b).ok_or_else(|| Error::new("duration overflow"))?)
        }
        (Value::Timestamp(at), Value::Duration(nanos)) => {
            Value::Timestamp(time::shift(*at, nanos.checked_neg().ok_or_else(|| Error::new("duration overflow"))?)?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Value::Duration(time::between(*a, *b)?),
        _ => return no_overload(),
    })
}

pub(super) fn multiply<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_mul(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_mul(*b).ok_or_else(unsigned_overflow)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return no_overload(),
    })
}

pub(super) fn divide<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let zero = || Error::new("division by zero");
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(zero()),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_div(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_div(*b).ok_or_else(zero)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return no_overload(),
    })
}

pub(super) fn modulo<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let zero = || Error::new("modulus by zero");
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(zero()),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_rem(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_rem(*b).ok_or_else(zero)?),
        _ => return no_overload(),
    })
}

pub(super) fn negate<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(match args {
        [Value::Int(value)] => Value::Int(value.checked_neg().ok_or_else(overflow)?),
        [Value::Double(value)] => Value::Double(-value),
        _ => return no_overload(),
    })
}
