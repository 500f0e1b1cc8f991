//! TokenRequest: the body of `serviceaccounts/token`.

use serde_json::Value;

use crate::kind::{Kind, Strategy, Verb, Write};
use crate::kinds::mutate::{make, set};
use crate::status::FieldError;
use crate::validation::View;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("authentication.k8s.io", "v1", "TokenRequest", "", &TokenRequest).verbs(&[Verb::Create])
}

#[derive(Debug)]
struct TokenRequest;

impl Strategy for TokenRequest {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) {
            set(spec, "expirationSeconds", 3600);
        }
    }

    fn prepare(&self, object: &mut Value, _write: Write<'_>) {
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let root = View::root(object);
        let spec = root.get("spec");
        let seconds = spec.get("expirationSeconds");
        match seconds.int() {
            Some(n) if n < 600 => vec![seconds.invalid("may not specify a duration less than 10 minutes")],
            Some(n) if n > 1 << 32 => vec![seconds.invalid("may not specify a duration larger than 2^32 seconds")],
            _ => Vec::new(),
        }
    }
}
