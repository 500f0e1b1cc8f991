//! An applied configuration merged into the live object. Nothing is taken away here: that is [`super::remove`]'s.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::node::{Node, is_empty};
use crate::schema::Schema;

/// The live object with the configuration's fields. An error names a list whose items cannot be told apart.
pub(super) fn merge(schema: &Schema, live: Value, config: &Value) -> Result<Value, String> {
    merge_value(Node::Struct(schema), live, config)
}

/// Paths of the configuration's lists, maps and structs that are owned as one.
pub(super) fn atomics(schema: &Schema, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    find_atomics(Node::Struct(schema), config, &mut String::new(), &mut found);
    found
}

fn find_atomics(node: Node<'_>, config: &Value, path: &mut String, found: &mut Vec<String>) {
    let node = node.deduced(config);
    if matches!(node, Node::Atomic) && (config.is_array() || config.is_object()) {
        found.push(path.clone());
        return;
    }
    let end = path.len();
    match config {
        Value::Object(map) if matches!(node, Node::Struct(_) | Node::Map(_)) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                find_atomics(node.below(name), value, path, found);
                path.truncate(end);
            }
        }
        Value::Array(items) if matches!(node, Node::Keyed(..)) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_atomics(node.item(), item, path, found);
                path.truncate(end);
            }
        }
        _ => {}
    }
}

fn merge_value(node: Node<'_>, live: Value, config: &Value) -> Result<Value, String> {
    if is_empty(&live) {
        return Ok(config.clone());
    }
    match (node.deduced(config), live) {
        (node @ (Node::Struct(_) | Node::Map(_) | Node::Deduced), Value::Object(mut live)) => {
            for (name, value) in config.as_object().into_iter().flatten() {
                let merged = match live.remove(name) {
                    Some(old) => merge_value(node.below(name), old, value)?,
                    None => value.clone(),
                };
                live.insert(name.clone(), merged);
            }
            Ok(Value::Object(live))
        }
        (node @ (Node::Set | Node::Keyed(..)), Value::Array(live)) => {
            let config = config.as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(Value::Array(merge_lists(node, live, config)?))
        }
        _ => Ok(config.clone()),
    }
}

/// Items of the configuration come in its order; the others stay where they stood between them.
fn merge_lists(node: Node<'_>, live: Vec<Value>, config: &[Value]) -> Result<Vec<Value>, String> {
    let keys_of = |items: &[Value]| -> Result<Vec<String>, String> {
        items.iter().enumerate().map(|(i, item)| node.element(item).map_err(|e| format!("element {i}: {e}"))).collect()
    };
    let (wanted, stood) = (keys_of(config)?, keys_of(&live)?);
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(wanted.len());
    for (i, key) in wanted.iter().enumerate() {
        if places.insert(key, i).is_some() {
            return Err(format!("duplicate entries for key {}", super::element::show(key)));
        }
    }
    // What the configuration shares with the live list; an item that is there twice gives way to the configuration's.
    let mut shared: HashMap<&str, Option<Value>> = HashMap::new();
    let mut rows: Vec<(&str, Option<Value>)> = Vec::with_capacity(live.len());
    for (key, item) in stood.iter().zip(live) {
        if places.contains_key(key.as_str()) {
            shared.entry(key).and_modify(|item| *item = None).or_insert(Some(item));
            rows.push((key, None));
        } else {
            rows.push((key, Some(item)));
        }
    }
    let mut waited: Vec<&str> = wanted.iter().map(String::as_str).filter(|key| shared.contains_key(key)).collect();
    waited.reverse();
    let mut merged = Vec::with_capacity(rows.len() + config.len());
    let mut rest = wanted.iter().zip(config).peekable();
    let mut done: HashSet<&str> = HashSet::new();
    let mut take = |merged: &mut Vec<Value>, key: &'_ str, item: &Value| -> Result<(), String> {
        merged.push(match shared.get_mut(key).and_then(Option::take) {
            Some(old) => merge_value(node.item(), old, item)?,
            None => item.clone(),
        });
        Ok(())
    };
    for (key, own) in rows {
        match own {
            Some(item) => merged.push(item),
            // The next one that both have: everything that the configuration has up to it.
            None if waited.last() == Some(&key) => {
                waited.pop();
                for (next, item) in rest.by_ref() {
                    take(&mut merged, next, item)?;
                    done.insert(next);
                    if next == key {
                        break;
                    }
                }
            }
            None if done.contains(key) => {
                if let Some((next, item)) = rest.next() {
                    take(&mut merged, next, item)?;
                    done.insert(next);
                }
            }
            None => {}
        }
    }
    for (next, item) in rest {
        take(&mut merged, next, item)?;
    }
    Ok(merged)
}
