//! String functions. Positions count characters.

pub(super) mod format;

use super::{Args, no_overload, string_arg};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Text, Value};

pub(super) fn test<'a>(args: Args<'_, 'a>, holds: fn(&str, &str) -> bool) -> Result<Value<'a>, Error> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(holds(text.as_str(), part.as_str()))),
        _ => no_overload(),
    }
}

/// A part of a text, borrowed where the text is.
fn slice<'a>(text: &Text<'a>, from: usize, to: usize) -> Value<'a> {
    match text {
        Text::Borrowed(text) => Value::borrowed(text.get(from..to).unwrap_or_default()),
        Text::Shared(text) => Value::text(text.get(from..to).unwrap_or_default()),
    }
}

/// Where in bytes the character number `index` starts; the end for one past the last.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn out_of_range(index: i64) -> Error {
    Error::new(format!("index out of range: {index}"))
}

pub(super) fn char_at<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::String(text), Value::Int(index)] = args else { return no_overload() };
    let from = offset(text.as_str(), *index).ok_or_else(|| out_of_range(*index))?;
    let length = text.as_str()[from..].chars().next().map_or(0, char::len_utf8);
    Ok(slice(text, from, from + length))
}

pub(super) fn index_of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (text, part, start) = match args {
        [text, part] => (string_arg(text)?, string_arg(part)?, 0),
        [text, part, Value::Int(start)] => (string_arg(text)?, string_arg(part)?, *start),
        _ => return no_overload(),
    };
    if part.is_empty() {
        return Ok(Value::Int(start));
    }
    let Some(from) = start_at(text, start)? else { return Ok(Value::Int(-1)) };
    let found = text[from..].find(part);
    Ok(Value::Int(found.map_or(-1, |at| text[..from + at].chars().count() as i64)))
}

pub(super) fn last_index_of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (text, part, last) = match args {
        [text, part] => {
            let (text, part) = (string_arg(text)?, string_arg(part)?);
            let length = text.chars().count() as i64;
            (text, part, if part.is_empty() { length } else { length - 1 })
        }
        [text, part, Value::Int(last)] => (string_arg(text)?, string_arg(part)?, *last),
        _ => return no_overload(),
    };
    if part.is_empty() {
        return Ok(Value::Int(last));
    }
    let Some(last) = start_at(text, last)? else { return Ok(Value::Int(-1)) };
    // A match may start there, and then goes on behind it.
    let mut end = (last + part.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let found = text[..end].rfind(part);
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

/// Where in bytes a search starts; `None` behind the text, where nothing is found.
fn start_at(text: &str, index: i64) -> Result<Option<usize>, Error> {
    if index < 0 {
        return Err(out_of_range(index));
    }
    Ok(offset(text, index).filter(|at| *at < text.len()))
}

pub(super) fn join<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), separator] => (list, string_arg(separator)?),
        _ => return no_overload(),
    };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(string_arg(&item?)?);
        budget.fits(joined.len() as u64)?;
    }
    Ok(Value::text(joined))
}

pub(super) fn lower_ascii<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::text(string_arg(text)?.to_ascii_lowercase()))
}

pub(super) fn upper_ascii<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::text(string_arg(text)?.to_ascii_uppercase()))
}

pub(super) fn replace<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (text, from, to, count) = match args {
        [text, from, to] => (string_arg(text)?, string_arg(from)?, string_arg(to)?, -1),
        [text, from, to, Value::Int(count)] => (string_arg(text)?, string_arg(from)?, string_arg(to)?, *count),
        _ => return no_overload(),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = text.matches(from).take(count).count() as u64;
    budget.fits((text.len() as u64).saturating_add(found.saturating_mul(to.len() as u64)))?;
    Ok(Value::text(text.replacen(from, to, count)))
}

pub(super) fn split<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (text, separator, limit) = match args {
        [Value::String(text), separator] => (text, string_arg(separator)?, -1),
        [Value::String(text), separator, Value::Int(limit)] => (text, string_arg(separator)?, *limit),
        _ => return no_overload(),
    };
    let limit = match limit {
        0 => return Ok(Value::list(Vec::new())),
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let source = text.as_str();
    let mut items = Vec::new();
    let mut from = 0;
    // Without a separator, into characters.
    let next = |from: usize| match separator {
        "" => source[from..]
            .chars()
            .next()
            .map(|c| from + c.len_utf8())
            .filter(|at| *at < source.len())
            .map(|at| (at, at)),
        _ => source[from..].find(separator).map(|at| (from + at, from + at + separator.len())),
    };
    while items.len() + 1 < limit
        && let Some((end, start)) = next(from)
    {
        items.push(slice(text, from, end));
        from = start;
        budget.fits((items.len() * size_of::<Value<'_>>()) as u64)?;
    }
    if !(separator.is_empty() && source.is_empty()) {
        items.push(slice(text, from, source.len()));
    }
    Ok(Value::list(items))
}

pub(super) fn substring<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (text, from, to) = match args {
        [Value::String(text), Value::Int(from)] => (text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (text, *from, Some(*to)),
        _ => return no_overload(),
    };
    if let Some(to) = to.filter(|to| *to < from) {
        return Err(Error::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    let source = text.as_str();
    let start = offset(source, from).ok_or_else(|| out_of_range(from))?;
    let end = match to {
        Some(to) => offset(source, to).ok_or_else(|| out_of_range(to))?,
        None => source.len(),
    };
    Ok(slice(text, start, end))
}

pub(super) fn trim<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::String(text)] = args else { return no_overload() };
    let source = text.as_str();
    let start = source.len() - source.trim_start().len();
    let end = source.trim_end().len().max(start);
    Ok(slice(text, start, end))
}

pub(super) fn quote<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    let text = string_arg(text)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::text(quoted))
}

/// As a JSON pointer's part.
pub(super) fn escape_key<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::text(string_arg(text)?.replace('~', "~0").replace('/', "~1")))
}
