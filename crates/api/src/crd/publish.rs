//! Schemas of custom resources as the OpenAPI documents show them. Version 3 has them as they are; version 2, which knows
//! less than JSON schema does, has what its readers understand: what a value's parts are, not how they depend on each other.

use serde_json::{Map, Value, json};

use super::custom::Custom;
use crate::kind::Kind;
use crate::openapi::Format;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "The version of this representation: the group and version of the object's kind. Servers convert \
    what they know to their own, and refuse what they do not.";
const KIND: &str =
    "The kind of the object, which the path that it is sent to usually says already. It cannot be changed.";

impl Custom {
    /// The component schema of the kind.
    pub(crate) fn published(&self, kind: &Kind, format: Format) -> Value {
        let mut schema = if self.schema.is_object() { self.schema.clone() } else { json!({"type": "object"}) };
        if format == Format::V2 {
            simplify(&mut schema);
        }
        complete(&mut schema, true, format);
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        if let Some(map) = schema.as_object_mut() {
            map.insert("x-kubernetes-group-version-kind".into(), json!([gvk]));
        }
        schema
    }
}

/// Whole objects have a type and metadata, whether the schema says so or not.
fn complete(schema: &mut Value, is_object_root: bool, format: Format) {
    let Some(map) = schema.as_object_mut() else { return };
    let embedded = map.get("x-kubernetes-embedded-resource").is_some_and(|flag| *flag == true);
    let preserves = map.get("x-kubernetes-preserve-unknown-fields").is_some_and(|flag| *flag == true);
    // Readers of version 2 take properties to be all there are.
    if (is_object_root || embedded) && !(format == Format::V2 && preserves) {
        let properties = map.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
            properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
            let reference = format.reference(META);
            let metadata = match format {
                Format::V2 => json!({"$ref": reference}),
                Format::V3 => json!({"allOf": [{"$ref": reference}]}),
            };
            properties.insert("metadata".into(), metadata);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| complete(property, false, format));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            complete(inner, false, format);
        }
    }
}

/// Leaves out what version 2 has no words for.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.remove(key);
    }
    let flag = |map: &Map<String, Value>, key: &str| map.get(key).is_some_and(|flag| *flag == true);
    let nullable = flag(map, "nullable");
    if nullable || flag(map, "x-kubernetes-int-or-string") {
        // Anything goes: there is no type for either.
        for key in ["type", "format", "nullable", "items", "properties", "additionalProperties", "required", "enum"] {
            map.remove(key);
        }
    }
    if flag(map, "x-kubernetes-preserve-unknown-fields") {
        for key in ["items", "properties", "additionalProperties", "required"] {
            map.remove(key);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            simplify(inner);
        }
    }
}
