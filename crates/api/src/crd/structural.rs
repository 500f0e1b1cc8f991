//! What makes a schema structural: types are given outside of logical junctors, which only restrict them further. Messages
//! and order are upstream's (`ValidateStructural`), which sorts them.

use serde_json::{Value, json};

use super::node::entries;
use crate::go_regex;
use crate::validation::{Errors, View};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The rules that the schema at `view` breaks.
pub(super) fn check(view: View) -> Errors {
    let mut errors = Errors::new();
    invariants(view, Level::Root, &mut errors);
    completeness(view, view.value, &view.path(), &mut errors);
    errors.sort_by_key(|error| format!("{}: {}", error.field, error.message));
    errors
}

fn flag(schema: &Value, key: &str) -> bool {
    schema[key].as_bool().unwrap_or(false)
}

fn invariants(view: View, level: Level, errors: &mut Errors) {
    let schema = view.value;
    let ty = view.get("type");
    let items = view.get("items");
    if ty.str() == "array" && !items.is_set() {
        errors.push(items.required("must be specified"));
    }
    if items.value.is_object() {
        invariants(items, Level::Item, errors);
    }
    let properties = view.get("properties");
    for (_, property) in properties.entries() {
        invariants(property, Level::Field, errors);
    }
    let additional = view.get("additionalProperties");
    if additional.is_set() {
        if level == Level::Root {
            errors.push(additional.forbidden("must not be used at the root"));
        }
        if additional.value.is_object() {
            invariants(additional, Level::Field, errors);
        }
    }
    let (int_or_string, preserve, embedded) = (
        flag(schema, "x-kubernetes-int-or-string"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
        flag(schema, "x-kubernetes-embedded-resource"),
    );
    for (key, set) in [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && set {
            errors.push(view.get(key).invalid("must be false if x-kubernetes-int-or-string is true"));
        }
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let skip_any_of = schema["anyOf"] == either;
    let skip_first_all_of = schema["allOf"][0]["anyOf"] == either;
    value_validation(view, skip_any_of, skip_first_all_of, errors);

    if embedded && ty.str() != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if ty.is_empty() { ty.required(why) } else { ty.invalid(why) });
    } else if ty.is_empty() && !int_or_string && !preserve {
        errors.push(ty.required(match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        }));
    }
    if embedded && additional.is_set() {
        errors.push(additional.forbidden("must not be used if x-kubernetes-embedded-resource is set"));
    }
    if level == Level::Root && !ty.is_empty() && ty.str() != "object" {
        errors.push(ty.invalid("must be object at the root"));
    }
    let is_object = level == Level::Root || embedded;
    for (key, property) in properties.entries() {
        let ty = property.get("type");
        match key {
            "kind" | "apiVersion" if is_object && ty.str() != "string" => errors.push(ty.invalid_str("must be string")),
            "metadata" => {
                if is_object && ty.str() != "object" {
                    errors.push(ty.invalid_str("must be object"));
                }
                if level == Level::Root && restricts_metadata(property.value) {
                    errors.push(property.forbidden(
                        "must not specify anything other than name and generateName, but metadata is implicitly specified",
                    ));
                }
            }
            _ => {}
        }
    }
    if embedded && !preserve && properties.is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(properties.required(why));
    }
}

/// Whether a schema of top-level metadata says more than it may.
fn restricts_metadata(schema: &Value) -> bool {
    entries(schema).any(|(key, value)| match key.as_str() {
        "type" | "default" => false,
        "properties" => entries(value).any(|(name, _)| !matches!(name.as_str(), "name" | "generateName")),
        _ => true,
    })
}

fn value_validation(view: View, skip_any_of: bool, skip_first_all_of: bool, errors: &mut Errors) {
    if !skip_any_of {
        view.get("anyOf").items().for_each(|nested_view| nested(nested_view, false, errors));
    }
    for (i, nested_view) in view.get("allOf").items().enumerate() {
        nested(nested_view, skip_first_all_of && i == 0, errors);
    }
    view.get("oneOf").items().for_each(|nested_view| nested(nested_view, false, errors));
    let not = view.get("not");
    if not.is_set() {
        nested(not, false, errors);
    }
    let pattern = view.get("pattern");
    if let (false, Err(why)) = (pattern.is_empty(), go_regex::compile(pattern.str())) {
        errors.push(pattern.invalid(&format!("must be a valid regular expression, but isn't: {why}")));
    }
}

/// A schema inside a logical junctor.
fn nested(view: View, skip_any_of: bool, errors: &mut Errors) {
    value_validation(view, skip_any_of, false, errors);
    let items = view.get("items");
    if items.value.is_object() {
        nested(items, false, errors);
    }
    for (name, property) in view.get("properties").entries() {
        nested(property, false, errors);
        if name == "metadata" {
            errors.push(property.forbidden("must not be specified in a nested context"));
        }
    }
    const FORBIDDEN: [(&str, &str); 13] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (key, why) in FORBIDDEN {
        let field = view.get(key);
        if field.is_set() && *field.value != Value::Bool(false) && (!field.is_empty() || field.value.is_object()) {
            errors.push(field.forbidden(why));
        }
    }
}

/// Every field that a junctor mentions is also specified outside. `outside` is the schema there, at `path`.
fn completeness(view: View, outside: &Value, path: &str, errors: &mut Errors) {
    let not = view.get("not");
    if not.is_set() {
        nested_completeness(not, outside, path, errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        view.get(key).items().for_each(|nested| nested_completeness(nested, outside, path, errors));
    }
}

fn nested_completeness(view: View, outside: &Value, path: &str, errors: &mut Errors) {
    completeness(view, outside, path, errors);
    let required = |path: String, view: View| {
        crate::status::FieldError::required(path, &format!("because it is defined in {}", view.path()))
    };
    let items = view.get("items");
    if items.is_set() {
        let path = format!("{path}.items");
        match &outside["items"] {
            Value::Null => errors.push(required(path, items)),
            outside => nested_completeness(items, outside, &path, errors),
        }
    }
    for (key, property) in view.get("properties").entries() {
        let path = format!("{path}.properties[{key}]");
        match outside["properties"].get(key) {
            None => errors.push(required(path, property)),
            Some(outside) => nested_completeness(property, outside, &path, errors),
        }
    }
}
