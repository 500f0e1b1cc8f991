//! Lists that are sets or maps: no two items are the same.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::node::{Additional, Node};
use crate::schema::ListType;
use crate::status::FieldError;
use crate::validation::{Errors, View};

impl Node {
    /// The items that are in their list twice, for all lists below.
    pub fn check_lists(&self, view: View, errors: &mut Errors) {
        match view.value {
            Value::Object(_) => {
                for (key, entry) in view.entries() {
                    // A named field; entries of maps are shown in brackets.
                    match (self.properties.get(key), &self.additional) {
                        (Some(node), _) => node.check_lists(view.get(key), errors),
                        (None, Additional::Node(node)) => node.check_lists(entry, errors),
                        _ => {}
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

    /// The items that a list had before, for [`OldItems::of`]; none unless the list is a map.
    pub(super) fn old_items<'v>(&'v self, old: Option<&'v Value>) -> OldItems<'v> {
        let old = old.and_then(Value::as_array).filter(|_| self.list_type == ListType::Map);
        let mut items = OldItems { keys: &self.list_map_keys, by_key: HashMap::new() };
        for item in old.into_iter().flatten() {
            items.by_key.entry(items.key(item)).or_insert(item);
        }
        items
    }
}

/// The items of an old list map.
pub(super) struct OldItems<'v> {
    keys: &'v [String],
    by_key: HashMap<Vec<Option<&'v Value>>, &'v Value>,
}

impl<'v> OldItems<'v> {
    fn key<'i>(&self, item: &'i Value) -> Vec<Option<&'i Value>> {
        self.keys.iter().map(|key| item.get(key)).collect()
    }

    /// The one that `item` replaces.
    pub(super) fn of(&self, item: &Value) -> Option<&'v Value> {
        if self.by_key.is_empty() { None } else { self.by_key.get(&self.key(item)).copied() }
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
