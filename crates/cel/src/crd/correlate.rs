//! What a value was before: by name in objects and maps, by keys in lists with keys.

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

/// Any total order of scalars will do.
fn order(a: &[&Json], b: &[&Json]) -> std::cmp::Ordering {
    let text = |value: &Json| match value {
        Json::String(text) => (0, text.clone()),
        other => (1, other.to_string()),
    };
    a.iter().map(|value| text(value)).cmp(b.iter().map(|value| text(value)))
}
