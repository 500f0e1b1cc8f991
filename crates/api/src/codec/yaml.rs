//! YAML to `Value`, under the same limits as JSON plus limits on aliases, so that a small body cannot grow large.

use super::{Decoded, Error};

/// Reads one YAML document.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let wrap = |e: &dyn std::fmt::Display| Error(format!("error converting YAML to JSON: yaml: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| wrap(&e))?;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |d| super::json::from_deserializer(d))
        .map_err(|e| wrap(&e))
}
