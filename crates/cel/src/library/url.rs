//! URLs as Go's `url.ParseRequestURI` reads them: absolute, or a path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::opaque::Opaque;
use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::value::{Key, Text, Value};

/// The parts of a URL that expressions ask for.
#[derive(Clone, Debug)]
pub struct Url {
    pub(crate) source: String,
    pub(crate) scheme: String,
    /// With its port.
    pub(crate) host: String,
    pub(crate) path: String,
    query: String,
}

impl Url {
    /// Without port and brackets.
    pub(super) fn hostname(&self) -> String {
        let host = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        host.into()
    }

    pub(super) fn port(&self) -> String {
        let rest = self.host.rfind(']').map_or(self.host.as_str(), |at| &self.host[at..]);
        rest.split_once(':').map_or(String::new(), |(_, port)| port.into())
    }
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    (*byte? as char).to_digit(16).map(|digit| digit as u8)
}

/// Undoes percent-encoding; `None` for a bad one.
fn unescape(text: &str, plus: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                out.push(hex(bytes.get(at + 1))? * 16 + hex(bytes.get(at + 2))?);
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Percent-encodes what a path may not hold plain.
fn escaped_path(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%[]".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn parse(source: &str) -> Result<Url, String> {
    let fail = |why: &str| Err(format!("URL parse error during conversion from string: parse {source:?}: {why}"));
    if source.is_empty() {
        return fail("empty url");
    }
    if source.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return fail("net/url: invalid control character in URL");
    }
    let (before, query) = source.split_once('?').unwrap_or((source, ""));
    let scheme_end = before.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    let (scheme, rest) = match scheme_end {
        Some(0) if before.starts_with(':') => return fail("missing protocol scheme"),
        Some(at) if before[at..].starts_with(':') && before.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            (before[..at].to_ascii_lowercase(), &before[at + 1..])
        }
        _ => (String::new(), before),
    };
    if !rest.starts_with('/') {
        if scheme.is_empty() {
            return fail("invalid URI for request");
        }
        // `mailto:x`: neither host nor path.
        return Ok(Url {
            source: source.into(),
            scheme,
            host: String::new(),
            path: String::new(),
            query: query.into(),
        });
    }
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
        }
        None => ("", rest),
    };
    let port = match host.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((_, port)) => port,
            None => return fail("missing ']' in host"),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())) {
        return fail(&format!("invalid port {port:?} after host"));
    }
    if let Some(bad) = host.chars().find(|c| " \"<>^`{}|\\".contains(*c)) {
        return fail(&format!("invalid character {:?} in host name", bad.to_string()));
    }
    let (Some(host), Some(_)) = (unescape(host, false), unescape(path, false)) else {
        return fail("invalid URL escape");
    };
    Ok(Url { source: source.into(), scheme, host, path: escaped_path(path), query: query.into() })
}

pub(super) fn to_url<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Opaque(Opaque::Url(Arc::new(parse(string_arg(text)?).map_err(Error::new)?))))
}

pub(super) fn is_url<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Bool(parse(string_arg(text)?).is_ok()))
}

pub(super) fn part<'a>(args: Args<'_, 'a>, get: fn(&Url) -> String) -> Result<Value<'a>, Error> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => Ok(Value::text(get(url))),
        _ => no_overload(),
    }
}

/// A list of values for each name; pairs with bad escapes are left out.
pub(super) fn query<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::Opaque(Opaque::Url(url))] = args else { return no_overload() };
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (unescape(name, true), unescape(value, true)) {
            found.entry(name).or_default().push(Value::text(value));
        }
    }
    let entries = found.into_iter().map(|(name, values)| (Key::String(Text::Shared(name.into())), Value::list(values)));
    Ok(Value::map(entries.collect()))
}
