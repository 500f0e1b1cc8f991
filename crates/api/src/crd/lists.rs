//! Lists that are sets or maps: no two items are the same.

use std::collections::HashSet;

use serde_json::Value;

use super::node::Node;
use crate::schema::ListType;
use crate::status::FieldError;
use crate::validation::{Errors, View};

impl Node {
    /// The items that are in their list twice, for all lists below.
    pub fn check_lists(&self, view: View, errors: &mut Errors) {
        match view.value {
            Value::Object(_) => {
                for (key, _) in view.entries() {
                    if let Some(node) = self.child(key) {
                        // A named field; entries of maps are shown in brackets.
                        if self.properties.contains_key(key) {
                            node.check_lists(view.get(key), errors);
                        } else {
                            for (_, entry) in view.entries().filter(|(other, _)| *other == key) {
                                node.check_lists(entry, errors);
                            }
                        }
                    }
                }
            }
            Value::Array(_) => {
                match self.list_type {
                    ListType::Set => duplicates(view, |item| (Some(item.value.clone()), item.value.clone()), errors),
                    ListType::Map => duplicates(view, |item| self.key_of(item.value), errors),
                    _ => {}
                }
                if let Some(node) = &self.items {
                    view.items().for_each(|item| node.check_lists(item, errors));
                }
            }
            _ => {}
        }
    }

    /// What identifies an item, and how an error shows it.
    fn key_of(&self, item: &Value) -> (Option<Value>, Value) {
        let Value::Object(map) = item else { return (None, Value::Null) };
        let mut key = serde_json::Map::new();
        for name in &self.list_map_keys {
            if let Some(value) = map.get(name) {
                key.insert(name.clone(), value.clone());
            }
        }
        let key = Value::Object(key);
        (Some(key.clone()), key)
    }

    /// The item of `old` that a list map's `item` replaces.
    pub(super) fn counterpart<'v>(&self, item: &Value, old: &'v [Value]) -> Option<&'v Value> {
        if self.list_type != ListType::Map {
            return None;
        }
        let same = |other: &&Value| self.list_map_keys.iter().all(|key| item.get(key) == other.get(key));
        old.iter().find(same)
    }
}

fn duplicates(list: View, key: impl Fn(View) -> (Option<Value>, Value), errors: &mut Errors) {
    let mut seen = HashSet::new();
    for item in list.items() {
        let (key, shown) = key(item);
        // Objects compare by their text: their keys are sorted.
        if let Some(key) = key
            && !seen.insert(key.to_string())
        {
            errors.push(FieldError::duplicate(item.path(), shown));
        }
    }
}
