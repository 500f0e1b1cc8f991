//! YAML to `Value` and back, under the same limits as JSON plus limits on aliases, so that a small body cannot grow large.

use serde_json::Value;

use super::{Decoded, Error};

#[cfg(test)]
mod tests;

/// What aliases may add: events of the YAML parser that are replayed for them.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// Reads one YAML document.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let wrap = |e: &dyn std::fmt::Display| Error(format!("error converting YAML to JSON: yaml: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| wrap(&e))?;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        with_snippet: false,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |d| super::json::from_deserializer(d))
        .map_err(|e| wrap(&e))
}

/// The value as a YAML document.
pub fn encode(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|e| Error(e.to_string()))
}
