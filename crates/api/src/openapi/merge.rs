//! OpenAPI v2 documents of other servers, which are joined with our own: of each only the paths below one prefix and what
//! they refer to. Definitions of one name that are not the same get another name.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

pub(super) const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const KINDS: &str = "x-kubernetes-group-version-kind";
/// Bytes that parameters may grow by when they are written where they are used.
const MAX_INLINED_BYTES: usize = 8 << 20;

/// A part of another server's document.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub(super) paths: Map<String, Value>,
    pub(super) definitions: Map<String, Value>,
}

impl Part {
    /// The paths at and below `prefix` (`/apis/GROUP/VERSION`) of a document; `None` when it is none, or blows up.
    pub fn of(mut document: Value, prefix: &str) -> Option<Self> {
        let mut take = |key: &str| match document.get_mut(key).map(Value::take) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let (mut all, parameters, mut definitions) = (take("paths"), take("parameters"), take("definitions"));
        if document.get("swagger")? != "2.0" {
            return None;
        }
        all.retain(|path, _| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let mut budget = MAX_INLINED_BYTES;
        for path in all.values_mut() {
            inline(path, &parameters, &mut budget)?;
        }
        let mut used = BTreeSet::new();
        let mut open: Vec<String> = Vec::new();
        all.values().for_each(|path| references(path, &mut |name| open.push(name.to_owned())));
        while let Some(name) = open.pop() {
            if let Some(definition) = definitions.get(&name)
                && used.insert(name)
            {
                references(definition, &mut |name| open.push(name.to_owned()));
            }
        }
        definitions.retain(|name, _| used.contains(name));
        Some(Self { paths: all, definitions })
    }

    /// The same for the same part in every process of this program.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, value) in self.paths.iter().chain(&self.definitions) {
            (name, value).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

/// Adds a part to a document.
pub(super) fn add(document: &mut Value, part: &Part) {
    let Some(ours) = document.get("definitions").and_then(Value::as_object) else { return };
    let renamed = renamed(ours, &part.definitions);
    let rename = |value: &Value| {
        let mut value = value.clone();
        rewrite(&mut value, &renamed);
        value
    };
    let added: Vec<(String, Value)> = part
        .definitions
        .iter()
        .map(|(name, definition)| (renamed.get(name).unwrap_or(name).clone(), definition))
        .filter(|(name, _)| !ours.contains_key(name))
        .map(|(name, definition)| (name, rename(definition)))
        .collect();
    if let Some(definitions) = document["definitions"].as_object_mut() {
        definitions.extend(added);
    }
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in &part.paths {
            paths.entry(path.clone()).or_insert_with(|| rename(item));
        }
    }
}

/// New names for definitions that are not what ours of the same name are, in themselves or in what they refer to.
fn renamed(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut other: BTreeSet<&String> = theirs
        .iter()
        .filter(|(name, theirs)| ours.get(*name).is_some_and(|ours| !same(ours, theirs)))
        .map(|(name, _)| name)
        .collect();
    // Who refers to another one is another one.
    let mut users: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (name, definition) in theirs.iter().filter(|(name, _)| ours.contains_key(*name)) {
        references(definition, &mut |used| {
            if let Some((used, _)) = theirs.get_key_value(used) {
                users.entry(used.as_str()).or_default().push(name);
            }
        });
    }
    let mut open: Vec<&String> = other.iter().copied().collect();
    while let Some(name) = open.pop() {
        for user in users.get(name.as_str()).into_iter().flatten() {
            if other.insert(user) {
                open.push(user);
            }
        }
    }
    let mut names = BTreeMap::new();
    for name in other {
        let free = |name: &String| !ours.contains_key(name) && !theirs.contains_key(name);
        let new = (2..).map(|n: u64| format!("{name}_v{n}")).find(free);
        names.extend(new.map(|new| (name.clone(), new)));
    }
    names
}

/// Whether two definitions say the same, whatever kinds they are used for.
fn same(ours: &Value, theirs: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove(KINDS);
        }
        value
    };
    strip(ours) == strip(theirs)
}

/// Calls `found` with each definition that a value refers to.
fn references<'a>(value: &'a Value, found: &mut impl FnMut(&'a str)) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(DEFINITIONS)) {
                found(name);
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn rewrite(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let new =
                    value.as_str().filter(|_| key == "$ref").and_then(|r| names.get(r.strip_prefix(DEFINITIONS)?));
                match new {
                    Some(new) => *value = format!("{DEFINITIONS}{new}").into(),
                    None => rewrite(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rewrite(value, names)),
        _ => {}
    }
}

/// Writes shared parameters where they are used, as our own document has them; `None` past the budget.
fn inline(value: &mut Value, parameters: &Map<String, Value>, budget: &mut usize) -> Option<()> {
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(PARAMETERS));
            if let Some(name) = name {
                let parameter = parameters.get(name).cloned().unwrap_or_else(|| json!({}));
                *budget = budget.checked_sub(parameter.to_string().len())?;
                *value = parameter;
                return Some(());
            }
            map.values_mut().try_for_each(|value| inline(value, parameters, budget))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|value| inline(value, parameters, budget)),
        _ => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("{DEFINITIONS}{name}")})
    }

    fn theirs() -> Value {
        json!({
            "swagger": "2.0",
            "paths": {
                "/apis/g/v1/things": {"parameters": [{"$ref": "#/parameters/pretty"}], "get": {"schema": reference("Thing")}},
                "/apis/g/v10/things": {"get": {"schema": reference("Unused")}},
                "/apis/apps/v1/pods": {},
            },
            "parameters": {"pretty": {"in": "query", "name": "pretty"}},
            "definitions": {
                "Thing": {"properties": {"meta": reference("Meta"), "same": reference("Same"), "user": reference("User")}},
                "Meta": {"type": "object", "description": "theirs"},
                "Same": {"type": "string", KINDS: [{"kind": "Same"}]},
                "User": {"properties": {"meta": reference("Meta")}},
                "Unused": {},
            },
        })
    }

    #[test]
    fn definitions_of_one_name() {
        let part = Part::of(theirs(), "/apis/g/v1").unwrap();
        let mut ours = json!({
            "paths": {"/api/v1/pods": {}},
            "definitions": {
                "Meta": {"type": "object", "description": "ours"}, "Same": {"type": "string"},
                "User": {"properties": {"meta": reference("Meta")}},
            },
        });
        add(&mut ours, &part);
        let expected = json!({
            "paths": {
                "/api/v1/pods": {},
                "/apis/g/v1/things": {"parameters": [{"in": "query", "name": "pretty"}], "get": {"schema": reference("Thing")}},
            },
            "definitions": {
                "Meta": {"type": "object", "description": "ours"}, "Same": {"type": "string"},
                "User": {"properties": {"meta": reference("Meta")}},
                "Meta_v2": {"type": "object", "description": "theirs"},
                "User_v2": {"properties": {"meta": reference("Meta_v2")}},
                "Thing": {"properties": {
                    "meta": reference("Meta_v2"), "same": reference("Same"), "user": reference("User_v2"),
                }},
            },
        });
        assert_eq!(ours, expected);
    }

    #[test]
    fn bombs_and_nonsense() {
        assert_eq!(Part::of(json!({"swagger": "3.0"}), "/apis/g/v1"), None);
        assert_eq!(Part::of(json!([1]), "/apis/g/v1"), None);
        assert!(Part::of(json!({"swagger": "2.0", "paths": 7}), "/apis/g/v1").unwrap().is_empty());
        let uses: Vec<Value> = (0..10_000).map(|_| json!({"$ref": "#/parameters/big"})).collect();
        let bomb = json!({
            "swagger": "2.0", "paths": {"/apis/g/v1": {"parameters": uses}},
            "parameters": {"big": {"description": "x".repeat(10_000)}},
        });
        assert_eq!(Part::of(bomb, "/apis/g/v1"), None);
    }
}
