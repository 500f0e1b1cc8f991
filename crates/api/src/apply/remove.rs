//! Taking fields out of an object, and what a set of fields implies for that.

use serde_json::Value;

use super::element::field_name;
use super::node::{Node, is_empty};
use super::set::{self, Set};
use crate::schema::Schema;

/// The object without the fields of `gone`. A list or map of which nothing is left is null.
pub(super) fn remove(schema: &Schema, object: Value, gone: &Set) -> Value {
    if gone.is_empty() { object } else { remove_from(Node::Struct(schema), object, gone) }
}

fn remove_from(node: Node<'_>, value: Value, gone: &Set) -> Value {
    let left = match (node.deduced(&value), value) {
        (Node::Scalar, scalar) => return scalar,
        (node @ (Node::Struct(_) | Node::Map(_) | Node::Deduced), Value::Object(mut map)) => {
            for (element, below) in set::children(gone) {
                let Some(name) = field_name(element) else { continue };
                if set::is_member(below) {
                    map.remove(name);
                } else if let Some(value) = map.get_mut(name) {
                    *value = remove_from(node.below(name), value.take(), below);
                }
            }
            Value::Object(map)
        }
        (node @ (Node::Set | Node::Keyed(..)), Value::Array(items)) => {
            let left = items.into_iter().filter_map(|item| {
                let below = node.element(&item).ok().and_then(|key| set::child(gone, &key));
                match below {
                    None => Some(item),
                    Some(below) if set::is_member(below) => None,
                    Some(below) => Some(remove_from(node.item(), item, below)),
                }
            });
            Value::Array(left.collect())
        }
        _ => Value::Null,
    };
    if is_empty(&left) { Value::Null } else { left }
}

/// The set with every named field above its members, too: a struct goes with the last of its fields.
pub(super) fn with_named(schema: &Schema, set: &Set) -> Set {
    let mut named = set.clone();
    name_fields(Node::Struct(schema), &mut named);
    named
}

fn name_fields(node: Node<'_>, set: &mut Set) {
    for (element, below) in set.iter_mut() {
        let Some(below) = below.as_object_mut().filter(|below| !below.is_empty()) else { continue };
        match (node, field_name(element)) {
            (Node::Struct(_) | Node::Map(_) | Node::Deduced, Some(name)) => {
                name_fields(node.below(name), below);
                if node.declares(name) {
                    set::insert_self(below);
                }
            }
            (Node::Keyed(..), None) => name_fields(node.item(), below),
            _ => {}
        }
    }
}

/// Makes a set that was written under another version of the schema fit this one: what is owned as one value now has no
/// parts.
pub(super) fn reconcile(schema: &Schema, set: &mut Set) {
    reconcile_node(Node::Struct(schema), set);
}

fn reconcile_node(node: Node<'_>, set: &mut Set) {
    for (element, below) in set.iter_mut() {
        let Some(below) = below.as_object_mut().filter(|below| !below.is_empty()) else { continue };
        let inner = match (node, field_name(element)) {
            (Node::Struct(_) | Node::Map(_), Some(name)) => node.below(name),
            (Node::Keyed(..), None) => node.item(),
            _ => continue,
        };
        match inner {
            Node::Atomic => below.clear(),
            inner => reconcile_node(inner, below),
        }
    }
}
