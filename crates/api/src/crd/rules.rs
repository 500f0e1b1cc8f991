//! What a CustomResourceDefinition's schema may say, beyond being structural: supported keywords, extensions that fit
//! together, defaults that are valid themselves. `x-kubernetes-validations` is checked here as far as no expression has to
//! be compiled.

use serde_json::Value;

use super::node::{Additional, Node, entries};
use super::structural;
use crate::status::FieldError;
use crate::validation::{Errors, View};

/// Deepest schema. Objects can be no deeper than their parser lets them be; schemas nest twice as fast.
const MAX_DEPTH: usize = 100;

/// Fields that may stand at the root of a schema with the status subresource, with upstream's names for its message.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// The rules that `openAPIV3Schema` at `view` breaks.
pub(crate) fn check_schema(view: View, has_status: bool) -> Errors {
    let mut errors = Errors::new();
    if depth_exceeds(view.value, MAX_DEPTH) {
        errors.push(view.forbidden(&format!("schemas may be nested {MAX_DEPTH} deep at most")));
        return errors;
    }
    if has_status {
        let odd = entries(view.value).find(|(key, value)| {
            !AT_ROOT.iter().any(|(allowed, _)| allowed == key) && **value != Value::Bool(false) && !value.is_null()
        });
        let ty = view.get("type");
        if !ty.is_empty() && ty.str() != "object" {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.push(ty.invalid(why));
        } else if odd.is_some() {
            let allowed: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                allowed.join(" ")
            );
            errors.push(view.invalid(&why));
        }
    }
    if view.get("nullable").bool() {
        errors.push(view.get("nullable").forbidden("nullable cannot be true at the root"));
    }
    let broken = structural::check(view);
    if broken.is_empty() {
        let mut root = Node::parse(view.value);
        root.embedded = true;
        check_defaults(view, &root, &mut errors);
    }
    errors.extend(broken);
    check_keywords(view, Place { is_root: true, ..Place::default() }, &mut errors);
    errors
}

/// All schemas directly inside a schema.
fn children(schema: &Value) -> impl Iterator<Item = &Value> {
    let one = ["items", "additionalProperties", "not", "additionalItems"];
    let list = ["allOf", "anyOf", "oneOf"];
    let map = ["properties", "patternProperties", "definitions", "dependencies"];
    let one = one.into_iter().filter_map(|key| schema.get(key));
    let list = list.into_iter().filter_map(|key| schema[key].as_array()).flatten();
    let map = map.into_iter().flat_map(|key| entries(&schema[key]).map(|(_, child)| child));
    one.chain(list).chain(map).filter(|child| child.is_object())
}

fn depth_exceeds(schema: &Value, limit: usize) -> bool {
    limit == 0 || children(schema).any(|child| depth_exceeds(child, limit - 1))
}

/// Where in the tree of schemas a schema is.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    is_root: bool,
    /// Inside `metadata`, `kind` or `apiVersion` of an object.
    inside_meta: bool,
    /// Why there may be no default here.
    no_default: Option<&'a str>,
}

fn check_keywords(view: View, place: Place<'_>, errors: &mut Errors) {
    let below = Place { is_root: false, ..place };
    own_keywords(view, place, errors);
    let unique = view.get("uniqueItems");
    if unique.bool() {
        errors
            .push(unique.forbidden("uniqueItems cannot be set to true since the runtime complexity becomes quadratic"));
    }
    let (additional, properties) = (view.get("additionalProperties"), view.get("properties"));
    if additional.is_set() {
        if !properties.is_empty() && *additional.value != Value::Bool(true) {
            errors.push(additional.forbidden("additionalProperties and properties are mutual exclusive"));
        }
        if additional.value.is_object() {
            let why = "inside additionalProperties applying to object metadata";
            let place = if place.inside_meta { Place { no_default: Some(why), ..below } } else { below };
            check_keywords(additional, place, errors);
        }
    }
    for (name, property) in properties.entries() {
        let is_meta = matches!(name, "metadata" | "kind" | "apiVersion");
        let is_object = place.is_root || view.get("x-kubernetes-embedded-resource").bool();
        let reason = format!("in top-level {name}");
        let mut inner = Place { inside_meta: below.inside_meta || (is_object && is_meta), ..below };
        if place.is_root && is_meta {
            inner.no_default = Some(&reason);
        }
        check_keywords(property, inner, errors);
    }
    for key in ["not", "items"] {
        let schema = view.get(key);
        if schema.value.is_object() {
            check_keywords(schema, below, errors);
        }
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        view.get(key).items().for_each(|schema| check_keywords(schema, below, errors));
    }
    check_extensions(view, errors);
    check_list_items(view, errors);
    for rule in view.get("x-kubernetes-validations").items() {
        check_rule(rule, errors);
    }
}

fn own_keywords(view: View, place: Place<'_>, errors: &mut Errors) {
    let ty = view.get("type");
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    if ty.str() == "null" {
        errors.push(ty.forbidden("type cannot be set to null, use nullable as an alternative"));
    } else if !ty.is_empty() && !TYPES.contains(&ty.str()) {
        errors.push(ty.not_supported(&TYPES));
    }
    let default = view.get("default");
    if let (true, Some(reason)) = (default.is_set(), place.no_default) {
        errors.push(default.forbidden(&format!("must not be set {reason}")));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let keyword = view.get(key);
        if keyword.is_set() && !(keyword.value.is_string() && keyword.is_empty()) {
            errors.push(keyword.forbidden(&format!("{key} is not supported")));
        }
    }
    let items = view.get("items");
    if items.value.is_array() {
        errors.push(items.forbidden("items must be a schema object and not an array"));
    }
    let embedded = view.get("x-kubernetes-embedded-resource");
    if place.inside_meta && embedded.bool() {
        errors.push(embedded.forbidden("must not be used inside of resource meta"));
    }
}

fn check_extensions(view: View, errors: &mut Errors) {
    let preserve = view.get("x-kubernetes-preserve-unknown-fields");
    if *preserve.value == Value::Bool(false) {
        errors.push(preserve.invalid("must be true or undefined"));
    }
    let ty = view.get("type");
    let needs = |wanted: &str, extension: &str, errors: &mut Errors| {
        let why = format!("must be {wanted} if {extension} is specified");
        errors.push(if ty.is_empty() { ty.required(&why) } else { ty.invalid(&why) });
    };
    let map_type = view.get("x-kubernetes-map-type");
    if map_type.is_set() {
        if ty.str() != "object" {
            needs("object", "x-kubernetes-map-type", errors);
        }
        if !matches!(map_type.str(), "atomic" | "granular") {
            errors.push(map_type.not_supported(&["atomic", "granular"]));
        }
    }
    let list_type = view.get("x-kubernetes-list-type");
    let (items, keys) = (view.get("items"), view.get("x-kubernetes-list-map-keys"));
    if list_type.is_set() {
        if ty.str() != "array" {
            needs("array", "x-kubernetes-list-type", errors);
        } else if list_type.str() == "set" && items.value.is_object() {
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let (list, map) = (items.get("x-kubernetes-list-type"), items.get("x-kubernetes-map-type"));
            match items.get("type").str() {
                "array" if list.is_set() && list.str() != "atomic" => errors.push(list.invalid(why)),
                "object" if map.str() != "atomic" => errors.push(map.invalid(why)),
                _ => {}
            }
        }
        if !matches!(list_type.str(), "atomic" | "set" | "map") {
            errors.push(list_type.not_supported(&["atomic", "set", "map"]));
        }
    }
    if !keys.is_empty() && list_type.str() != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list_type.is_set() { list_type.invalid(why) } else { list_type.required(why) });
    }
    if list_type.str() == "map" {
        check_list_map(items, keys, errors);
    }
}

fn check_list_map(items: View, keys: View, errors: &mut Errors) {
    if keys.is_empty() {
        errors.push(keys.required("must not be empty if x-kubernetes-list-type is map"));
    }
    if !items.is_set() {
        errors.push(items.required("must have a schema if x-kubernetes-list-type is map"));
        return;
    }
    if !items.value.is_object() {
        errors.push(items.invalid("must only have a single schema if x-kubernetes-list-type is map"));
        return;
    }
    let ty = items.get("type");
    if ty.str() != "object" {
        errors.push(ty.invalid_str("must be object if parent array's x-kubernetes-list-type is map"));
        return;
    }
    let properties = items.get("properties");
    let mut seen = Vec::new();
    for key in keys.items() {
        match properties.entries().find(|(name, _)| *name == key.str()) {
            Some((_, property)) if matches!(property.get("type").str(), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(property.get("type").invalid(why));
            }
            Some(_) => {}
            None => errors.push(keys.invalid("entries must all be names of item properties")),
        }
        if seen.contains(&key.str()) {
            errors.push(keys.invalid("must not contain duplicate entries"));
        }
        seen.push(key.str());
    }
}

/// Items of sets and maps are never null, and keys always there.
fn check_list_items(view: View, errors: &mut Errors) {
    let (list_type, items) = (view.get("x-kubernetes-list-type"), view.get("items"));
    if !items.value.is_object() || !matches!(list_type.str(), "set" | "map") {
        return;
    }
    let nullable = items.get("nullable");
    if nullable.bool() {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.str());
        errors.push(nullable.forbidden(&why));
    }
    if list_type.str() != "map" {
        return;
    }
    let required = items.get("required");
    for key in view.get("x-kubernetes-list-map-keys").items() {
        let properties = items.get("properties");
        let Some((_, property)) = properties.entries().find(|(name, _)| *name == key.str()) else { continue };
        let (default, nullable) = (property.get("default"), property.get("nullable"));
        if !default.is_set() && !required.items().any(|name| name.str() == key.str()) {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(default.required(why));
        }
        if nullable.bool() {
            errors.push(nullable.forbidden("this property is in x-kubernetes-list-map-keys, so it cannot be nullable"));
        }
    }
}

/// One entry of `x-kubernetes-validations`, without its expression.
fn check_rule(rule: View, errors: &mut Errors) {
    let (text, message, expression) = (rule.get("rule"), rule.get("message"), rule.get("messageExpression"));
    let has_lines = |text: &str| text.contains(['\n', '\r']);
    let (trimmed, trimmed_message) = (text.str().trim(), message.str().trim());
    if trimmed.is_empty() {
        errors.push(text.required("rule is not specified"));
    } else if !message.is_empty() && trimmed_message.is_empty() {
        errors.push(message.invalid("message must be non-empty if specified"));
    } else if has_lines(trimmed_message) {
        errors.push(message.invalid("message must not contain line breaks"));
    } else if has_lines(trimmed) && trimmed_message.is_empty() {
        errors.push(message.required("message must be specified if rule contains line breaks"));
    }
    if !expression.is_empty() && expression.str().trim().is_empty() {
        errors.push(expression.required("messageExpression must be non-empty if specified"));
    }
    let reason = rule.get("reason");
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    if reason.is_set() && !REASONS.contains(&reason.str()) {
        errors.push(reason.not_supported(&REASONS));
    }
    let path = rule.get("fieldPath");
    if !path.is_empty() {
        if path.str().trim().is_empty() {
            errors.push(path.invalid("fieldPath must be non-empty if specified"));
        }
        if has_lines(path.str()) {
            errors.push(path.invalid("fieldPath must not contain line breaks"));
        }
    }
}

/// Defaults have no unknown fields and pass the schema that they stand in.
fn check_defaults(view: View, node: &Node, errors: &mut Errors) {
    if let Some(default) = &node.default {
        let at = view.get("default");
        if has_unknown(node, default) {
            errors.push(at.invalid("must not have unknown fields"));
        }
        let mut found = Errors::new();
        let path = at.path();
        let whole = View::at(&path, default);
        node.check_embedded(whole, &mut found);
        if found.is_empty() {
            node.check_value(whole, None, &mut found);
        }
        errors.extend(found);
    }
    let items = view.get("items");
    if let Some(node) = &node.items {
        check_defaults(items, node, errors);
    }
    let properties = view.get("properties");
    for (name, property) in properties.entries() {
        if let Some(node) = node.properties.get(name) {
            check_defaults(property, node, errors);
        }
    }
    if let Additional::Node(node) = &node.additional {
        check_defaults(view.get("additionalProperties"), node, errors);
    }
}

/// Whether pruning would change the value.
fn has_unknown(node: &Node, value: &Value) -> bool {
    match value {
        Value::Array(values) => node.items.as_ref().is_some_and(|node| values.iter().any(|v| has_unknown(node, v))),
        // The structure of an embedded object knows its type and metadata; other objects have none.
        Value::Object(_) if node.embedded || node.ty.is_some() => {
            node.structure().conform(&mut value.clone()).is_ok_and(|unknown| !unknown.is_empty())
        }
        _ => false,
    }
}

/// A JSON path of fields only: `.spec.replicas`.
pub(crate) fn check_simple_path(view: View, errors: &mut Errors) -> bool {
    if view.str().starts_with('.') {
        return true;
    }
    errors.push(FieldError::invalid(view.path(), view.str(), "must be a simple json path starting with ."));
    false
}
