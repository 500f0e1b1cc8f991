//! Small ways to fill in an object. Missing and `null` are one; a value of the wrong type is left alone, since the schema
//! has refused it before anybody gets here.

use serde_json::{Map, Value, json};

use crate::codec::protobuf;
use crate::kind::Write;
use crate::validation::NULL;

pub(super) type Object = Map<String, Value>;

/// `map[key] = value` unless something is there.
pub(super) fn set(map: &mut Object, key: &str, value: impl Into<Value>) {
    match map.get_mut(key) {
        Some(Value::Null) => drop(map.insert(key.into(), value.into())),
        Some(_) => {}
        None => drop(map.insert(key.into(), value.into())),
    }
}

/// As [`set`], also where the empty string stands.
pub(super) fn set_str(map: &mut Object, key: &str, value: &str) {
    if map.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
        map.insert(key.into(), value.into());
    }
}

/// The map under `key`, if there is one.
pub(super) fn child<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// The map under `key`, made if it is missing.
pub(super) fn make<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    set(map, key, json!({}));
    child(map, key)
}

/// The list of maps under `key`.
pub(super) fn each<'a>(map: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    let items = map.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// How a kind differs in what [`prepare`] does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether `metadata.generation` counts changes of the object outside metadata and status.
    pub(crate) generation: bool,
    /// Whether a create may bring a status (nodes).
    pub(crate) create_with_status: bool,
}

/// The common part of [`crate::kind::Strategy::prepare`]: a create drops `status`; an update keeps the stored one and
/// counts the generation; a status update keeps everything but metadata and status.
pub(crate) fn prepare(object: &mut Value, write: Write<'_>, rules: Rules) {
    let Some(map) = object.as_object_mut() else { return };
    match write {
        Write::Create => {
            if !rules.create_with_status {
                map.remove("status");
            }
            if let Some(meta) = make(map, "metadata") {
                meta.remove("generation");
                if rules.generation {
                    meta.insert("generation".into(), 1.into());
                }
            }
        }
        Write::Update(old) => {
            keep(map, old, "status");
            count_change(map, old, rules);
        }
        Write::Subresource("status", old) => {
            let own = |key: &String| matches!(key.as_str(), "metadata" | "status");
            map.retain(|key, _| own(key) || old.get(key).is_some());
            for key in old.as_object().into_iter().flat_map(Object::keys).filter(|key| !own(key)) {
                keep(map, old, key);
            }
        }
        // `scale`, `binding`, …: whoever serves them has made the change and nothing else.
        Write::Subresource(_, old) => count_change(map, old, rules),
    }
}

/// Puts back what `old` has under `key`. Most writes leave it alone, and to see that is cheaper than a copy.
fn keep(map: &mut Object, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) if map.get(key) == Some(value) => {}
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// The status that a new object starts with: the counts that upstream's types always write.
pub(super) fn set_status(object: &mut Value, status: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("status".into(), status);
    }
}

/// The main object's map under `metadata.annotations` or `metadata.labels`, made if it is missing.
pub(super) fn metadata_map<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Object> {
    make(make(object.as_object_mut()?, "metadata")?, key)
}

/// A status update that leaves the object's labels, annotations, owners and finalizers as they are.
pub(super) fn keep_metadata(object: &mut Value, old: &Value) {
    let Some(meta) = object.as_object_mut().and_then(|object| make(object, "metadata")) else { return };
    for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
        keep(meta, &old["metadata"], field);
    }
}

fn count_change(map: &mut Object, old: &Value, rules: Rules) {
    if rules.generation && changed(map, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        if let Some(meta) = make(map, "metadata") {
            meta.insert("generation".into(), generation.saturating_add(1).into());
        }
    }
}

/// Whether anything but type, metadata and status differs.
fn changed(new: &Object, old: &Value) -> bool {
    let Some(old) = old.as_object() else { return true };
    let keys = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)));
    let mut differing = keys
        .filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
        .filter(|key| new.get(*key) != old.get(*key))
        .peekable();
    if differing.peek().is_none() {
        return false;
    }
    let text = |key: &str| new.get(key).and_then(Value::as_str).unwrap_or_default();
    // What a custom resource does not have is not what it has as nothing.
    let Some(schema) = protobuf::schema_for(text("apiVersion"), text("kind")) else { return true };
    differing.any(|key| !schema.same_field(key, new.get(key).unwrap_or(&NULL), old.get(key).unwrap_or(&NULL)))
}
