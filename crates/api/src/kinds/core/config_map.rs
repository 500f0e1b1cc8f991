//! ConfigMap

use serde_json::Value;

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::print::{age, size};
use crate::kinds::{drop_nulls, prepare_plain};
use crate::status::FieldError;
use crate::validation::{Errors, View, names, same};

/// Most bytes that a ConfigMap or Secret may hold.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ConfigMap", "configmaps", &ConfigMap).short("cm").columns(vec![
        Column::string("Data", "How many keys it has.", |object, _| {
            (size(&object["data"]) + size(&object["binaryData"])).into()
        }),
        age(),
    ])
}

#[derive(Debug)]
struct ConfigMap;

impl Strategy for ConfigMap {
    fn default(&self, object: &mut Value) {
        drop_nulls(object, &["data", "binaryData"]);
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (data, binary) = (root.get("data"), root.get("binaryData"));
        for (bag, other, name) in [(data, binary, "binaryData"), (binary, data, "data")] {
            for (key, value) in bag.entries() {
                let complaints = names::config_key(key);
                errors.extend(complaints.iter().map(|complaint| FieldError::invalid(value.path(), key, complaint)));
                if other.value.get(key).is_some() {
                    let detail = format!("duplicate of key present in {name}");
                    errors.push(FieldError::invalid(value.path(), key, &detail));
                }
            }
        }
        let text: usize = data.entries().map(|(_, value)| value.len()).sum();
        let bytes: usize = binary.entries().map(|(_, value)| decoded_len(value.str())).sum();
        if text + bytes > MAX_BYTES {
            errors.push(FieldError::too_long("[]", MAX_BYTES));
        }
        if let Write::Update(old) = write {
            validate_immutable(root, old, &["data", "binaryData"], &mut errors);
        }
        errors
    }
}

/// Bytes behind base64 text.
pub(crate) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// An object marked immutable keeps its mark and these fields.
pub(super) fn validate_immutable(root: View, old: &Value, fields: &[&'static str], errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return;
    }
    if !root.get("immutable").bool() {
        errors.push(root.get("immutable").forbidden(DETAIL));
    }
    for field in fields {
        if !same(root.get(field).value, &old[*field]) {
            errors.push(root.get(field).forbidden(DETAIL));
        }
    }
}
