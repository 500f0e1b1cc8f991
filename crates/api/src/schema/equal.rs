//! Equality of built-in objects as upstream has it for its Go structs: an absent field is its zero value, and lists and maps
//! that are empty are those that are not there, but a pointer to an empty struct is not `nil`.

use serde_json::{Map, Value};

use super::{Field, Schema, Type};

static NULL: Value = Value::Null;

impl Schema {
    /// Whether two objects of this built-in type are the same; `null` is an object with nothing in it.
    pub fn same(&self, a: &Value, b: &Value) -> bool {
        a == b || on_both(a, b, |a, b| self.same_fields(a, b))
    }

    /// Whether two values of a field are the same; `null` stands for an absent one.
    pub fn same_field(&self, name: &str, a: &Value, b: &Value) -> bool {
        a == b || self.field(name).is_some_and(|field| field.same(a, b))
    }

    fn same_fields(&self, a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
        a.iter().all(|(name, value)| self.same_field(name, value, b.get(name).unwrap_or(&NULL)))
            && b.iter().all(|(name, value)| a.contains_key(name) || self.same_field(name, &NULL, value))
    }
}

impl Field {
    fn same(&self, a: &Value, b: &Value) -> bool {
        let pointer = match self.ty {
            // Those that Go always has are marked.
            Type::Struct(_) | Type::Or(..) | Type::IntOrString => !self.drop_empty,
            Type::Quantity => true,
            _ => self.pointer,
        };
        if pointer && (a.is_null() || b.is_null()) { a == b } else { self.ty.same(a, b) }
    }
}

impl Type {
    fn same(&self, a: &Value, b: &Value) -> bool {
        a == b
            || match self {
                Self::Struct(link) => on_both(a, b, |a, b| link.same_fields(a, b)),
                Self::Or(item, _) => a.is_object() && b.is_object() && item.same(a, b),
                Self::Wrapped(inner) => inner.same(a, b),
                Self::List(item) => match (a, b) {
                    (Value::Array(a), Value::Array(b)) => {
                        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| item.same(a, b))
                    }
                    (Value::Array(some), Value::Null) | (Value::Null, Value::Array(some)) => some.is_empty(),
                    _ => false,
                },
                Self::Map(item) => on_both(a, b, |a, b| {
                    let same = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| item.same(a, b));
                    a.len() == b.len() && a.iter().all(same)
                }),
                Self::Any | Self::Fields => false,
                _ => is_zero(a) && is_zero(b),
            }
    }
}

/// Compares two objects; `null` is an empty one.
fn on_both(a: &Value, b: &Value, same: impl Fn(&Map<String, Value>, &Map<String, Value>) -> bool) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same(a, b),
        (Value::Object(some), Value::Null) | (Value::Null, Value::Object(some)) => same(some, &Map::new()),
        _ => false,
    }
}

/// Go's zero value of something that has no parts.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::builtin;

    #[test]
    fn absent_is_zero_but_for_pointers() {
        for (ty, a, b, same) in [
            // A pointer to a struct.
            ("networking.v1.NetworkPolicyPeer", json!({"podSelector": {}}), json!({}), false),
            ("networking.v1.NetworkPolicySpec", json!({"ingress": [{}]}), json!({"ingress": []}), false),
            ("networking.v1.NetworkPolicySpec", json!({"ingress": []}), json!({}), true),
            ("policy.v1.PodDisruptionBudgetSpec", json!({"selector": {}}), json!({}), false),
            ("policy.v1.PodDisruptionBudgetSpec", json!({"minAvailable": 0}), json!({}), false),
            ("core.v1.PodSpec", json!({"securityContext": {}}), json!(null), false),
            // A struct.
            ("core.v1.Container", json!({"name": "a", "resources": {}}), json!({"name": "a"}), true),
            ("core.v1.Container", json!({"resources": {"limits": {}}}), json!({"resources": null}), true),
            ("core.v1.Container", json!({"resources": {"limits": {"cpu": "1"}}}), json!({}), false),
            ("core.v1.ServicePort", json!({"port": 1, "targetPort": 0}), json!({"port": 1}), true),
            // Primitives.
            ("core.v1.Container", json!({"stdin": false, "image": ""}), json!({}), true),
            ("core.v1.Container", json!({"stdin": true}), json!({}), false),
            ("core.v1.PodSpec", json!({"enableServiceLinks": false}), json!({}), false),
            ("apps.v1.DeploymentSpec", json!({"replicas": 0}), json!({}), false),
            // A key with nothing under it is a key.
            ("core.v1.PodSpec", json!({"nodeSelector": {"a": ""}}), json!({"nodeSelector": {}}), false),
            ("core.v1.PodSpec", json!({"nodeSelector": {}}), json!({"nodeSelector": null}), true),
            ("core.v1.PodSpec", json!({"containers": [{"name": "a"}]}), json!({"containers": []}), false),
        ] {
            let schema = builtin(&format!("io.k8s.api.{ty}")).unwrap();
            assert_eq!(schema.same(&a, &b), same, "{ty}: {a} {b}");
            assert_eq!(schema.same(&b, &a), same, "{ty}: {b} {a}");
        }
    }
}
