//! Reading what the store holds of custom resources: objects that an older schema let through are pruned and defaulted, and
//! where versions are converted by name only, all are brought to the storage version.

use keelson_api::crd::Definition;
use keelson_api::kind::Kind;
use keelson_store::KeyValue;
use serde_json::Value;

use crate::cache::Entry;
use crate::cache::entry::encode;

/// A stored version as the cache holds it. `trusted` objects were written under the schema of now.
pub(crate) fn entry(definition: &Definition, storage: &Kind, mut kv: KeyValue, trusted: bool) -> Result<Entry, String> {
    let defaults = storage.custom.as_ref().is_some_and(|custom| custom.node.has_defaults);
    if trusted && !defaults && starts_with(&kv.value, storage) {
        return Entry::new(storage, kv);
    }
    let wrong = |e: String| format!("{}: {e}", kv.key);
    let mut object: Value = serde_json::from_slice(&kv.value).map_err(|e| wrong(e.to_string()))?;
    if definition.webhook.is_none() {
        storage.retype(&mut object);
    }
    definition.normalize(&mut object);
    let value = encode(&object, None).map_err(|status| wrong(status.message))?;
    let stale = value != kv.value;
    if stale {
        kv.value = value;
    }
    let mut entry = Entry::new(storage, kv)?;
    entry.stale = stale;
    Ok(entry)
}

/// Whether the entry is in this version.
pub(crate) fn is_of(entry: &Entry, kind: &Kind) -> bool {
    starts_with(&entry.value, kind)
}

/// Stored objects begin with their type.
fn starts_with(value: &[u8], kind: &Kind) -> bool {
    let parts: [&[u8]; 7] = [
        b"{\"kind\":\"",
        kind.kind.as_bytes(),
        b"\",\"apiVersion\":\"",
        kind.group.as_bytes(),
        b"/",
        kind.version.as_bytes(),
        b"\",",
    ];
    let mut rest = value;
    parts.iter().all(|part| {
        let stripped = rest.strip_prefix(*part);
        rest = stripped.unwrap_or_default();
        stripped.is_some()
    })
}
