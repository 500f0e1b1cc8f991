//! What a value was before: by name in objects and maps, by keys in lists with keys.

use std::cmp::Ordering;

use serde_json::Value as Json;

/// A value beside what it was, as far as it can be told, and the nearest parent of which it can.
#[derive(Clone, Copy, Default)]
pub(super) struct Correlation<'a> {
    pub current: Option<(&'a Json, &'a Json)>,
    parent: Option<(&'a Json, &'a Json)>,
}

impl<'a> Correlation<'a> {
    pub(super) fn root(new: &'a Json, old: Option<&'a Json>) -> Self {
        Self { current: old.map(|old| (new, old)), parent: None }
    }

    /// Whether the value, or what holds it, is as it was: then its errors are no news.
    pub(super) fn unchanged(&self) -> bool {
        self.current.or(self.parent).is_some_and(|(new, old)| new == old)
    }

    /// Without the value's own past. `allOf` is not ratcheted by it.
    pub(super) fn without_current(self) -> Self {
        Self { current: None, parent: self.parent }
    }

    pub(super) fn key(self, name: &str) -> Self {
        let Some((new, old)) = self.current else { return self };
        if self.parent.is_none() && matches!(name, "apiVersion" | "kind") {
            // Both are converted to the same version.
            return Self::default();
        }
        Self { current: new.get(name).zip(old.get(name)), parent: self.current }
    }

    /// `before` is the counterpart of item `index`.
    pub(super) fn index(self, index: usize, before: Option<&'a Json>) -> Self {
        let Some((new, _)) = self.current else { return self };
        Self { current: new.get(index).zip(before), parent: self.current }
    }
}

/// The items of a keyed list, found by key.
pub(super) struct Keyed<'a> {
    items: Vec<(Vec<&'a Json>, &'a Json)>,
    keys: Vec<&'a str>,
}

impl<'a> Keyed<'a> {
    /// Of a list that is not keyed, nothing is ever found.
    pub(super) fn new(schema: &'a Json, old: Option<&'a Json>) -> Self {
        let keys: Vec<&str> = if super::is_keyed_list(schema) {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            keys.into_iter().flatten().filter_map(Json::as_str).collect()
        } else {
            Vec::new()
        };
        let mut keyed = Self { items: Vec::new(), keys };
        if !keyed.keys.is_empty() {
            let items = old.and_then(Json::as_array).into_iter().flatten();
            keyed.items = items.map(|item| (keyed.key(item), item)).collect();
            keyed.items.sort_by(|a, b| order(&a.0, &b.0));
        }
        keyed
    }

    fn key<'x>(&self, item: &'x Json) -> Vec<&'x Json> {
        self.keys.iter().map(|key| item.get(key).unwrap_or(&Json::Null)).collect()
    }

    pub(super) fn counterpart(&self, item: &Json) -> Option<&'a Json> {
        if self.items.is_empty() {
            return None;
        }
        let key = self.key(item);
        let at = self.items.binary_search_by(|(found, _)| order(found, &key)).ok()?;
        self.items.get(at).map(|(_, item)| *item)
    }
}

/// Any total order of scalars will do. Keys of lists are nothing else.
fn order(a: &[&Json], b: &[&Json]) -> Ordering {
    fn scalars(a: &Json, b: &Json) -> Ordering {
        match (a, b) {
            (Json::String(a), Json::String(b)) => a.cmp(b),
            (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
            (Json::Number(a), Json::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
            },
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
    let by_part = a.iter().zip(b).map(|(a, b)| scalars(a, b));
    by_part.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

fn rank(value: &Json) -> u8 {
    match value {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) | Json::Object(_) => 4,
    }
}
