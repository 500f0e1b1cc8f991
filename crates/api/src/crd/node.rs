//! A structural schema, compiled: numbers parsed, expressions built, extensions looked up. The definition has been
//! validated; what is still odd in it counts as absent.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::format::Format;
use crate::go_regex;
use crate::schema::ListType;

/// A JSON schema of a custom resource, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub ty: Option<JsonType>,
    pub nullable: bool,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    /// For lists.
    pub list_type: ListType,
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// Absent when nothing is demanded of the value but its type.
    pub checks: Option<Box<Checks>>,
    /// Whether this or anything below has a default.
    pub has_defaults: bool,
}

/// What a map may hold beside its named properties.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Not said: unknown fields are pruned.
    #[default]
    Unset,
    /// `true` or `false`
    Allowed(bool),
    Node(Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// Value validation.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    pub(super) format: Option<Format>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<usize>,
    pub min_length: Option<usize>,
    /// As written, and compiled.
    pub pattern: Option<(String, Regex)>,
    pub max_items: Option<usize>,
    pub min_items: Option<usize>,
    pub max_properties: Option<usize>,
    pub min_properties: Option<usize>,
    pub required: Vec<String>,
    pub allowed: Vec<Value>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Node>,
}

impl JsonType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl Node {
    /// Compiles `openAPIV3Schema`. Its depth is bounded by that of JSON documents.
    pub fn parse(schema: &Value) -> Self {
        let text = |key: &str| schema[key].as_str().unwrap_or_default();
        let flag = |key: &str| schema[key].as_bool().unwrap_or(false);
        let strings = |key: &str| {
            let items = schema[key].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let properties: BTreeMap<String, Self> =
            entries(&schema["properties"]).map(|(key, schema)| (key.clone(), Self::parse(schema))).collect();
        let additional = match &schema["additionalProperties"] {
            Value::Bool(allowed) => Additional::Allowed(*allowed),
            Value::Null => Additional::Unset,
            schema => Additional::Node(Box::new(Self::parse(schema))),
        };
        let items = schema["items"].is_object().then(|| Box::new(Self::parse(&schema["items"])));
        let default = schema.get("default").filter(|default| !default.is_null()).cloned();
        let below = |node: &Self| node.has_defaults;
        let has_defaults = default.is_some()
            || properties.values().any(below)
            || items.as_deref().is_some_and(below)
            || matches!(&additional, Additional::Node(node) if node.has_defaults);
        Self {
            ty: JsonType::parse(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default,
            properties,
            additional,
            items,
            list_type: match text("x-kubernetes-list-type") {
                "map" => ListType::Map,
                "set" => ListType::Set,
                "atomic" => ListType::Atomic,
                _ => ListType::Unset,
            },
            list_map_keys: strings("x-kubernetes-list-map-keys"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            checks: Checks::parse(schema, strings("required")).map(Box::new),
            has_defaults,
        }
    }

    /// The schema of the value under `key`, if there is one.
    pub fn child(&self, key: &str) -> Option<&Self> {
        self.properties.get(key).or(match &self.additional {
            Additional::Node(node) => Some(node),
            _ => None,
        })
    }
}

impl Checks {
    fn parse(schema: &Value, required: Vec<String>) -> Option<Self> {
        let Value::Object(map) = schema else { return None };
        const KEYS: [&str; 18] = [
            "format",
            "maximum",
            "minimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "maxProperties",
            "minProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "uniqueItems",
        ];
        if !KEYS.iter().any(|key| map.contains_key(*key)) {
            return None;
        }
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let size = |key: &str| {
            let n = map.get(key).and_then(Value::as_i64)?;
            Some(usize::try_from(n).unwrap_or(0))
        };
        let nodes = |key: &str| {
            map.get(key).and_then(Value::as_array).into_iter().flatten().map(Node::parse).collect::<Vec<_>>()
        };
        let pattern = map.get("pattern").and_then(Value::as_str).filter(|pattern| !pattern.is_empty());
        Some(Self {
            format: map.get("format").and_then(Value::as_str).and_then(Format::parse),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: size("maxLength"),
            min_length: size("minLength"),
            pattern: pattern.and_then(|text| Some((text.to_owned(), go_regex::compile(text).ok()?))),
            max_items: size("maxItems"),
            min_items: size("minItems"),
            max_properties: size("maxProperties"),
            min_properties: size("minProperties"),
            required,
            allowed: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: map.get("not").filter(|not| not.is_object()).map(Node::parse),
        })
    }
}

pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let map: Option<&Map<String, Value>> = value.as_object();
    map.into_iter().flatten()
}
