//! The fields that an applied configuration speaks of, and the check that its type has them.

use std::collections::HashMap;

use serde_json::Value;

use super::element;
use super::node::{Node, is_empty};
use super::set::{Draft, Set};
use crate::schema::{Merge, Schema, Type};

/// Every leaf, map key and list item of an object.
pub(super) fn field_set(schema: &Schema, object: &Value) -> Set {
    let mut draft = Draft::default();
    collect(Node::Struct(schema), object, &mut draft);
    draft.children
}

fn collect(node: Node<'_>, value: &Value, draft: &mut Draft) {
    match node.deduced(value) {
        Node::Scalar | Node::Atomic => draft.member = true,
        node @ (Node::Struct(_) | Node::Map(_) | Node::Deduced) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let mut inner = Draft::default();
                collect(node.below(name), value, &mut inner);
                let bare = value.is_null() || (value.is_object() && is_empty(value));
                inner.member |= bare || !node.declares(name);
                inner.put(&mut draft.children, || element::field(name));
            }
        }
        node @ (Node::Set | Node::Keyed(..)) => {
            let items: Vec<_> = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| Some((node.element(item).ok()?, item)))
                .collect();
            let mut counts: HashMap<&str, usize> = HashMap::with_capacity(items.len());
            for (key, _) in &items {
                *counts.entry(key).or_default() += 1;
            }
            for (key, item) in &items {
                let mut inner = Draft::default();
                // What is there twice has no parts.
                if counts.get(key.as_str()) == Some(&1) {
                    collect(node.item(), item, &mut inner);
                }
                inner.member = true;
                inner.put(&mut draft.children, || key.clone());
            }
        }
    }
}

/// Complaints about a configuration that does not fit the type, in upstream's words; empty when it fits.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<String> {
    let mut check = Check { errors: Vec::new(), path: String::new() };
    check.object(schema, object);
    check.errors
}

/// One text of all complaints.
pub(super) fn join(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("errors:\n{}", many.iter().map(|e| format!("  {e}")).collect::<Vec<_>>().join("\n")),
    }
}

struct Check {
    errors: Vec<String>,
    path: String,
}

impl Check {
    fn error(&mut self, why: impl AsRef<str>) {
        let (path, why) = (&self.path, why.as_ref());
        self.errors.push(if path.is_empty() { why.to_owned() } else { format!("{path}: {why}") });
    }

    fn at(&mut self, element: &str, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&element::show(element));
        check(self);
        self.path.truncate(length);
    }

    fn object(&mut self, schema: &Schema, value: &Value) {
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (name, value) in map {
                    let field = schema.field(name);
                    self.at(&element::field(name), |check| match field {
                        Some(field) => check.value(&field.ty, field.merge.as_deref(), value),
                        None if schema.preserve_unknown => {}
                        None => check.error("field not declared in schema"),
                    });
                }
            }
            other => self.error(format!("expected map, got {}", go_value(other))),
        }
    }

    fn value(&mut self, ty: &Type, merge: Option<&Merge>, value: &Value) {
        match ty {
            _ if value.is_null() => {}
            Type::Any | Type::Fields | Type::Or(..) => {}
            Type::Wrapped(inner) => self.value(inner, merge, value),
            Type::Struct(link) => self.object(link, value),
            Type::Map(item) => match value {
                Value::Object(map) => {
                    for (name, value) in map {
                        self.at(&element::field(name), |check| check.value(item, None, value));
                    }
                }
                other => self.error(format!("expected map, got {}", go_value(other))),
            },
            Type::List(item) => match value {
                Value::Array(items) => self.list(Node::of_list(ty, merge), item, items),
                other => self.error(format!("expected list, got {}", go_value(other))),
            },
            Type::Int32 | Type::Int64 | Type::Double => {
                if !value.is_number() {
                    self.error(format!("expected numeric (int or float), got {}", go_type(value)));
                }
            }
            Type::String | Type::Bytes => {
                if !value.is_string() {
                    self.error(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
                }
            }
            Type::Bool => {
                if !value.is_boolean() {
                    self.error(format!("expected boolean, got {}", go_value(value)));
                }
            }
            Type::Quantity | Type::Time | Type::MicroTime | Type::Duration | Type::IntOrString => {
                if value.is_object() || value.is_array() {
                    self.error(format!("expected any scalar, got {}", go_value(value)));
                }
            }
        }
    }

    fn list(&mut self, node: Node<'_>, item: &Type, items: &[Value]) {
        let mut seen = std::collections::HashSet::new();
        for (i, value) in items.iter().enumerate() {
            let key = match node {
                Node::Set | Node::Keyed(..) => match node.element(value) {
                    Ok(key) => key,
                    Err(why) => return self.error(format!("element {i}: {why}")),
                },
                _ => format!("i:{i}"),
            };
            if seen.contains(&key) {
                self.error(format!("duplicate entries for key {}", element::show(&key)));
            }
            self.at(&key, |check| check.value(item, None, value));
            seen.insert(key);
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As Go's `%v` prints it.
fn go_value(value: &Value) -> String {
    format!("&{{{}}}", crate::patch::show_value(value))
}

/// As Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
