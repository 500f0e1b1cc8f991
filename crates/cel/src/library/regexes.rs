//! Regular expressions, in Go's (RE2's) syntax.

use keelson_api::go_regex;
use regex::Regex;

use super::{Args, no_overload, string_arg};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::Value;

pub(crate) fn compile(pattern: &str) -> Result<Regex, Error> {
    go_regex::compile(pattern).map_err(Error::new)
}

/// Runs `matches`, `find` or `findAll` with a compiled pattern; `args` are those without it.
pub(crate) fn run<'a>(function: &str, regex: &Regex, args: Args<'_, 'a>, budget: &Budget) -> Result<Value<'a>, Error> {
    let (text, limit) = match args {
        [text] => (string_arg(text)?, -1),
        [text, Value::Int(limit)] => (string_arg(text)?, *limit),
        _ => return no_overload(),
    };
    match function {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        _ => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut items = Vec::new();
            for found in regex.find_iter(text).take(limit) {
                budget.fits((items.len() * size_of::<Value<'_>>()) as u64)?;
                items.push(Value::text(found.as_str()));
            }
            Ok(Value::list(items))
        }
    }
}
