//! Regular expressions in Go's (RE2's) syntax, run by the `regex` crate, which has the same guarantees.

use regex::{Regex, RegexBuilder};

use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::limits;
use crate::value::Value;

/// Compiles a pattern of Go's syntax.
///
/// # Errors
/// A pattern that is none, or too large when compiled.
pub fn compile(pattern: &str) -> Result<Regex, Error> {
    let bad = |why: &dyn std::fmt::Display| Error::new(format!("error parsing regexp: {why}"));
    let translated = translate(pattern).ok_or_else(|| bad(&format!("invalid pattern: `{pattern}`")))?;
    RegexBuilder::new(&translated)
        .size_limit(limits::REGEX_BYTES)
        .dfa_size_limit(limits::REGEX_BYTES)
        .nest_limit(200)
        .build()
        .map_err(|error| bad(&error.to_string().lines().last().unwrap_or_default()))
}

/// The same pattern for the `regex` crate: there `\d`, `\w`, `\s` and `\b` mean Unicode, classes nest and combine, and some
/// of Go's escapes are unknown.
fn translate(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    let mut class = false;
    // Just behind `[` or `[^`, where `]` is itself.
    let mut first = false;
    while let Some(c) = rest.next() {
        let was_first = std::mem::take(&mut first);
        match c {
            '\\' => match rest.next()? {
                'd' => out.push_str(if class { "0-9" } else { "[0-9]" }),
                'D' => out.push_str("[^0-9]"),
                'w' => out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                's' => out.push_str(if class { "\\t\\n\\f\\r\\x20" } else { "[\\t\\n\\f\\r\\x20]" }),
                'S' => out.push_str("[^\\t\\n\\f\\r\\x20]"),
                'b' if !class => out.push_str("(?-u:\\b)"),
                'B' if !class => out.push_str("(?-u:\\B)"),
                'Q' if !class => quoted(&mut out, &mut rest),
                'E' if !class => {}
                'C' => return None,
                digit @ '0'..='7' => octal(&mut out, digit, &mut rest)?,
                other if other.is_ascii_alphanumeric() => out.extend(['\\', other]),
                other if other.is_ascii() => out.extend(['\\', other]),
                _ => return None,
            },
            '[' if !class => {
                class = true;
                first = true;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            '[' => {
                if rest.peek() == Some(&':') {
                    out.push('[');
                    for c in rest.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            ']' if class && was_first => out.push_str("\\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            '-' if class && rest.peek() == Some(&'-') => out.push_str("\\-"),
            // Names of groups may be written either way; the crate knows both.
            _ => out.push(c),
        }
    }
    Some(out)
}

fn quoted(out: &mut String, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

fn octal(out: &mut String, first: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    let mut value = first.to_digit(8)?;
    // `\1` alone would be a back-reference, which Go refuses.
    if first != '0' && !rest.peek().is_some_and(|c| c.is_digit(8)) {
        return None;
    }
    for _ in 0..2 {
        let Some(digit) = rest.next_if(|c| c.is_digit(8)) else { break };
        value = value * 8 + digit.to_digit(8)?;
    }
    out.push_str(&format!("\\x{{{value:x}}}"));
    Some(())
}

pub(super) fn matches<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text, pattern] = args else { return no_overload() };
    Ok(Value::Bool(compile(string_arg(pattern)?)?.is_match(string_arg(text)?)))
}

pub(super) fn find<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text, pattern] = args else { return no_overload() };
    run("find", &compile(string_arg(pattern)?)?, &[text.clone()])
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
