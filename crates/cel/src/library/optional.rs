//! Optional values.

use super::{Args, no_overload};
use crate::error::Error;
use crate::value::Value;

pub(super) fn of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [value] = args else { return no_overload() };
    Ok(value.clone().some())
}

pub(super) fn of_non_zero<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [value] = args else { return no_overload() };
    Ok(if value.is_zero() { Value::Optional(None) } else { value.clone().some() })
}

pub(super) fn none<'a>(_: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Optional(None))
}

pub(super) fn value<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Error::new("optional.none() dereference")),
        _ => no_overload(),
    }
}

pub(super) fn has_value<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => no_overload(),
    }
}
