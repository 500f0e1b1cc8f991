//! JSON to `Value` in one pass that also notices duplicate keys. Nothing is allocated for their paths until there is one.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Decoded, Error, MAX_DEPTH, MAX_STRICT_ERRORS};

#[cfg(test)]
mod tests;
mod write;

pub use write::{write, write_prefixed, write_text};

/// Reads one JSON document. Bytes that are not UTF-8 become U+FFFD, as in upstream.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    decode_at(bytes, 0)
}

/// Reads a document that stands so deep in another.
pub(super) fn decode_at(bytes: &[u8], depth: usize) -> Result<Decoded, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => decode_str(text, depth),
        Err(_) => decode_str(&String::from_utf8_lossy(bytes), depth),
    }
}

fn decode_str(text: &str, depth: usize) -> Result<Decoded, Error> {
    let mut duplicates = Duplicates::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = AnyValue { duplicates: &mut duplicates, depth }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value)).map_err(|e| explain(text, &e))?;
    Ok(Decoded { value, strict: duplicates.finish() })
}

/// Reads a value from any serde format under the same rules; the strict errors are the duplicate keys.
pub(super) fn from_deserializer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decoded, D::Error> {
    let mut duplicates = Duplicates::default();
    let value = AnyValue { duplicates: &mut duplicates, depth: 0 }.deserialize(deserializer)?;
    Ok(Decoded { value, strict: duplicates.finish() })
}

/// Paths of duplicate keys, innermost segment first while the document is being read.
#[derive(Default)]
struct Duplicates {
    paths: Vec<Vec<Segment>>,
}

enum Segment {
    Key(String),
    Index(usize),
}

impl Duplicates {
    fn found(&mut self, key: &str) {
        if self.paths.len() < MAX_STRICT_ERRORS {
            self.paths.push(vec![Segment::Key(key.to_owned())]);
        }
    }

    /// Says in what the paths found since `from` lie.
    fn inside(&mut self, from: usize, segment: impl Fn() -> Segment) {
        for path in self.paths.iter_mut().skip(from) {
            path.push(segment());
        }
    }

    fn finish(self) -> Vec<String> {
        let mut messages: Vec<String> = Vec::new();
        for path in self.paths {
            let mut text = String::new();
            for segment in path.iter().rev() {
                match segment {
                    Segment::Key(key) if text.is_empty() => text.push_str(key),
                    Segment::Key(key) => {
                        text.push('.');
                        text.push_str(key);
                    }
                    Segment::Index(i) => text.push_str(&format!("[{i}]")),
                }
            }
            let message = format!("duplicate field {text:?}");
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        messages
    }
}

struct AnyValue<'a> {
    duplicates: &'a mut Duplicates,
    depth: usize,
}

impl AnyValue<'_> {
    fn inner(&mut self) -> AnyValue<'_> {
        AnyValue { duplicates: self.duplicates, depth: self.depth + 1 }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth >= MAX_DEPTH { Err(E::custom("exceeded max depth")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut items = Vec::new();
        let mut known = self.duplicates.paths.len();
        while let Some(item) = seq.next_element_seed(self.inner())? {
            if self.duplicates.paths.len() > known {
                self.duplicates.inside(known, || Segment::Index(items.len()));
                known = self.duplicates.paths.len();
            }
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut fields = Map::new();
        let mut known = self.duplicates.paths.len();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.inner())?;
            if self.duplicates.paths.len() > known {
                self.duplicates.inside(known, || Segment::Key(key.clone()));
            }
            match fields.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(mut entry) => {
                    self.duplicates.found(entry.key());
                    entry.insert(value);
                }
            }
            known = self.duplicates.paths.len();
        }
        Ok(Value::Object(fields))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary data has no JSON form"))
    }
}

/// serde_json's complaint in the words of Go's decoder, which clients know.
fn explain(text: &str, error: &serde_json::Error) -> Error {
    if error.is_eof() {
        return Error("unexpected end of JSON input".into());
    }
    let reason = error.to_string();
    if reason.contains("exceeded max depth") || reason.contains("recursion limit") {
        return Error("exceeded max depth".into());
    }
    if error.is_data() {
        return Error(reason);
    }
    let place = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of value"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
        ("expected ident", "in literal"),
        ("invalid number", "in numeric literal"),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
    ];
    let found = text.lines().nth(error.line().saturating_sub(1)).and_then(|line| {
        let at = error.column().saturating_sub(1);
        line.get(at..).and_then(|rest| rest.chars().next())
    });
    match (place.iter().find(|(ours, _)| reason.starts_with(ours)), found) {
        (Some((_, place)), Some(found)) => {
            let found = match found {
                '\'' => r"'\''".to_owned(),
                '"' => "'\"'".to_owned(),
                other => format!("'{}'", other.escape_debug()),
            };
            Error(format!("invalid character {found} {place}"))
        }
        (Some((_, place)), None) => Error(format!("invalid character '\\n' {place}")),
        (None, _) => Error(reason),
    }
}
