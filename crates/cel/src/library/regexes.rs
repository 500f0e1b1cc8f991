//! Regular expressions, in Go's (RE2's) syntax.

use keelson_api::go_regex;
use regex::Regex;

use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::limits;
use crate::value::Value;

pub(crate) fn compile(pattern: &str) -> Result<Regex, Error> {
    go_regex::compile(pattern).map_err(Error::new)
}

pub(super) fn matches<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text, pattern] = args else { return no_overload() };
    Ok(Value::Bool(compile(string_arg(pattern)?)?.is_match(string_arg(text)?)))
}

pub(super) fn find<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text, pattern] = args else { return no_overload() };
    run("find", &compile(string_arg(pattern)?)?, std::slice::from_ref(text))
}

pub(super) fn find_all<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (text, pattern, limit) = match args {
        [text, pattern] => (text, pattern, None),
        [text, pattern, limit] => (text, pattern, Some(limit)),
        _ => return no_overload(),
    };
    let rest: Vec<Value<'a>> = [Some(text), limit].into_iter().flatten().cloned().collect();
    run("findAll", &compile(string_arg(pattern)?)?, &rest)
}

/// Runs `matches`, `find` or `findAll` with a compiled pattern; `args` are those without it.
pub(crate) fn run<'a>(function: &str, regex: &Regex, args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (text, limit) = match args {
        [text] => (string_arg(text)?, -1),
        [text, Value::Int(limit)] => (string_arg(text)?, *limit),
        _ => return no_overload(),
    };
    match function {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        _ => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(limits::MEMORY as usize / 48);
            Ok(Value::list(regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect()))
        }
    }
}
