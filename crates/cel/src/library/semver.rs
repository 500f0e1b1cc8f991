//! Semantic versions (semver.org 2.0).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::opaque::Opaque;
use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::value::Value;

/// A version. Its build part takes no part in order and equality.
#[derive(Clone, Debug)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pre: Vec<Identifier>,
    build: String,
}

/// A part of a pre-release: numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        for (index, part) in self.pre.iter().enumerate() {
            f.write_str(if index == 0 { "-" } else { "." })?;
            match part {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Word(word) => f.write_str(word)?,
            }
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{} number must not contain leading zeroes {text:?}", capital(what)));
    }
    text.parse().map_err(|_| format!("{} number out of range {text:?}", capital(what)))
}

fn capital(what: &str) -> String {
    let mut chars = what.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let parts: Vec<&str> = core.splitn(3, '.').collect();
    let [major, minor, patch] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
    let mut identifiers = Vec::new();
    for part in pre.map(|pre| pre.split('.')).into_iter().flatten() {
        if !word(part) {
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
        identifiers.push(if part.bytes().all(|b| b.is_ascii_digit()) {
            Identifier::Number(number(part, "prerelease")?)
        } else {
            Identifier::Word(part.into())
        });
    }
    if let Some(bad) = build.and_then(|build| build.split('.').find(|part| !word(part))) {
        return Err(format!("Invalid character(s) found in build meta data {bad:?}"));
    }
    Ok(Version {
        major: number(major, "major")?,
        minor: number(minor, "minor")?,
        patch: number(patch, "patch")?,
        pre: identifiers,
        build: build.unwrap_or_default().into(),
    })
}

/// Drops a leading `v` and leading zeros, and adds missing parts.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut parts: Vec<String> = core
        .splitn(3, '.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0".into(),
            trimmed => trimmed.into(),
        })
        .collect();
    if rest.is_empty() || parts.len() == 3 {
        parts.resize(3.max(parts.len()), "0".into());
    }
    parts.join(".") + rest
}

fn from_args(args: Args<'_, '_>) -> Result<Result<Version, String>, Error> {
    Ok(match args {
        [text] | [text, Value::Bool(false)] => parse(string_arg(text)?),
        [text, Value::Bool(true)] => parse(&normalized(string_arg(text)?)),
        _ => return no_overload(),
    })
}

pub(super) fn to_semver<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Opaque(Opaque::Semver(Arc::new(from_args(args)?.map_err(Error::new)?))))
}

pub(super) fn is_semver<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(from_args(args)?.is_ok()))
}

pub(super) fn part<'a>(args: Args<'_, 'a>, get: fn(&Version) -> u64) -> Result<Value<'a>, Error> {
    match args {
        [Value::Opaque(Opaque::Semver(version))] => {
            Ok(Value::Int(i64::try_from(get(version)).map_err(|_| Error::new("integer overflow"))?))
        }
        _ => no_overload(),
    }
}
