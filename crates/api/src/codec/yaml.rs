//! YAML to `Value` and back, under the same limits as JSON plus limits on aliases, so that a small body cannot grow large.

use std::collections::HashSet;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::{Spanned, with_deserializer_from_str_with_options as read};

use super::{Decoded, Error};

#[cfg(test)]
mod tests;

/// What aliases may add: events of the YAML parser that are replayed for them.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// Reads one YAML document.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let wrap = |e: &dyn std::fmt::Display| Error(format!("error converting YAML to JSON: yaml: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| wrap(&e))?;
    let mut decoded = read(text, options(), |d| super::json::from_deserializer(d)).map_err(|e| wrap(&e))?;
    if !decoded.strict.is_empty() {
        // Read again for the places, which few documents are asked for.
        let Twice(found) = read(text, options(), |d| Twice::deserialize(d)).map_err(|e| wrap(&e))?;
        let lines = found.iter().map(|(line, key)| format!("{LINE}line {line}: key {key:?} already set in map"));
        decoded.strict = vec![format!("{DUPLICATES}{}", lines.collect::<String>())];
    }
    Ok(decoded)
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        with_snippet: false,
    }
}

/// What Go's decoder begins its list of duplicate keys with, and each of them.
const DUPLICATES: &str = "yaml: unmarshal errors:";
const LINE: &str = "\n  ";

/// A strict error as warnings: each duplicate key is one, since a header has no lines.
pub fn warnings(strict: String) -> Vec<String> {
    match strict.strip_prefix(DUPLICATES) {
        Some(lines) => lines.split(LINE).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        None => vec![strict],
    }
}

/// Keys that are there twice, and the lines of the values that they have again.
struct Twice(Vec<(u64, String)>);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FindTwice)
    }
}

struct FindTwice;

impl<'de> Visitor<'de> for FindTwice {
    type Value = Twice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_none<E>(self) -> Result<Twice, E> {
        Ok(Twice(Vec::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Twice, D::Error> {
        Twice::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Twice, A::Error> {
        let mut found = Vec::new();
        while let Some(Twice(below)) = seq.next_element()? {
            found.extend(below);
        }
        Ok(Twice(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Twice, A::Error> {
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let Spanned { value: Twice(below), referenced, .. } = map.next_value()?;
            found.extend(below);
            if !seen.insert(key.clone()) {
                found.push((referenced.line(), key));
            }
        }
        Ok(Twice(found))
    }
}

/// The value as a YAML document.
pub fn encode(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|e| Error(e.to_string()))
}
