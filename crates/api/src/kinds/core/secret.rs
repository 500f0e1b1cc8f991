//! Secret

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config_map::{MAX_BYTES, decoded_len, validate_immutable};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{make, set_str};
use crate::kinds::print::{age, or, size};
use crate::kinds::{drop_nulls, prepare_plain};
use crate::status::FieldError;
use crate::validation::{Errors, View, immutable, names};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Secret", "secrets", &Secret)
        .columns(vec![
            Column::string("Type", "What kind of secret it is.", |object, _| or(&object["type"], "")),
            Column::string("Data", "How many keys it has.", |object, _| size(&object["data"]).into()),
            age(),
        ])
        .select("type", |object| object["type"].as_str().unwrap_or_default().into())
}

#[derive(Debug)]
struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        // Text is write-only: it becomes data, and wins over it.
        if let Some(Value::Object(text)) = map.remove("stringData")
            && let Some(data) = make(map, "data")
        {
            data.extend(
                text.into_iter().map(|(key, value)| (key, json!(STANDARD.encode(value.as_str().unwrap_or_default())))),
            );
        }
        set_str(map, "type", "Opaque");
        drop_nulls(object, &["data"]);
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let data = root.get("data");
        let mut total = 0;
        for (key, value) in data.entries() {
            let complaints = names::config_key(key);
            errors.extend(complaints.iter().map(|complaint| FieldError::invalid(value.path(), key, complaint)));
            total += decoded_len(value.str());
        }
        if total > MAX_BYTES {
            errors.push(data.too_long(MAX_BYTES));
        }
        typed(root, data, &mut errors);
        if let Write::Update(old) = write {
            immutable(root.get("type"), &old["type"], &mut errors);
            validate_immutable(root, old, &["data"], &mut errors);
        }
        errors
    }
}

/// What the well-known types must hold.
fn typed(root: View, data: View, errors: &mut Errors) {
    let missing = |key: &str| data.value.get(key).is_none();
    let need = |key: &str| FieldError::required(format!("data[{key}]"), "");
    match root.get("type").str() {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if root.value["metadata"]["annotations"][NAME].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("metadata.annotations[{NAME}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_key(data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => json_key(data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            errors.extend([need("username"), need("password")]);
        }
        "kubernetes.io/ssh-auth" if missing("ssh-privatekey") => errors.push(need("ssh-privatekey")),
        "kubernetes.io/tls" => errors.extend(["tls.crt", "tls.key"].into_iter().filter(|key| missing(key)).map(need)),
        _ => {}
    }
}

fn json_key(data: View, key: &str, errors: &mut Errors) {
    let path = format!("data[{key}]");
    let Some(text) = data.value.get(key).and_then(Value::as_str) else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    let parsed = STANDARD.decode(text).map(|bytes| serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes));
    if let Ok(Err(error)) = parsed {
        errors.push(FieldError::invalid(path, "<secret contents redacted>", &error.to_string()));
    }
}
