//! What an applier no longer speaks of goes from the object, unless somebody else owns it or nobody ever did.

use serde_json::{Value, json};

use super::diff::diff;
use super::managed::Entry;
use super::set::{self, Set};
use super::{Writer, fields, remove};
use crate::schema::Schema;

/// `merged` without the fields that the applier owned by its `last` entry, does not own by `mine`, and that no other entry
/// has.
pub(super) fn prune(writer: &Writer<'_>, merged: Value, others: &[Entry], mine: &Entry, last: Option<&Entry>) -> Value {
    let Some(last) = last.filter(|last| !last.fields().is_empty()) else { return merged };
    let version = last.api_version();
    if version == writer.api_version {
        return run(writer, writer.schema, version, merged, others, mine, last);
    }
    // The fields it owned are named in another version.
    let Some((converted, schema)) = writer.convert(&merged, writer.api_version, version) else { return merged };
    let pruned = run(writer, schema, version, converted, others, mine, last);
    writer.convert(&pruned, version, writer.api_version).map_or(merged, |(pruned, _)| pruned)
}

/// `merged` is in `version`.
fn run(
    writer: &Writer<'_>,
    schema: &Schema,
    version: &str,
    merged: Value,
    others: &[Entry],
    mine: &Entry,
    last: &Entry,
) -> Value {
    let gone = remove::with_named(schema, last.fields());
    let in_merged = remove::with_named(schema, &fields::field_set(schema, &merged));
    let pruned = remove::remove(schema, merged.clone(), &gone);
    let mut kept = remove::with_named(schema, &fields::field_set(schema, &pruned));
    for entry in others.iter().chain([mine]) {
        if entry.api_version() == version {
            set::union(&mut kept, &remove::with_named(schema, entry.fields()));
        } else {
            set::union(&mut kept, &seen_from(writer, schema, version, &merged, entry).unwrap_or_default());
        }
    }
    let mut lost = in_merged.clone();
    set::difference(&mut lost, &kept);
    let pruned = remove::remove(schema, merged.clone(), &lost);
    // Only what this applier had may go.
    let mut lost = in_merged;
    set::difference(&mut lost, &remove::with_named(schema, &fields::field_set(schema, &pruned)));
    drop_nulls(remove::remove(schema, merged, &set::intersection(&lost, &gone)))
}

/// What an entry of another version owns, as fields of `version`: what those fields alone make there. Fields that conversion
/// makes from nothing do not count.
fn seen_from(writer: &Writer<'_>, schema: &Schema, version: &str, merged: &Value, entry: &Entry) -> Option<Set> {
    let theirs = entry.api_version();
    let (object, their_schema) = writer.convert(merged, version, theirs)?;
    let mut rest = remove::with_named(their_schema, &fields::field_set(their_schema, &object));
    set::difference(&mut rest, &remove::with_named(their_schema, entry.fields()));
    // Whoever converts these wants to know what they are.
    let mut bare = json!({"apiVersion": theirs, "kind": writer.kind, "metadata": {}});
    for key in ["name", "namespace", "uid"] {
        if let Some(value) = object.get("metadata").and_then(|metadata| metadata.get(key)) {
            bare["metadata"][key] = value.clone();
        }
    }
    let mut only = remove::remove(their_schema, object, &rest);
    identify(&mut only, &bare);
    let (here, _) = writer.convert(&only, theirs, version)?;
    let (nothing, _) = writer.convert(&bare, theirs, version)?;
    Some(remove::with_named(schema, &diff(schema, Some(&nothing), &here).changed))
}

/// Puts back what `bare` says of an object's identity.
fn identify(object: &mut Value, bare: &Value) {
    match (&mut *object, bare) {
        (Value::Object(map), Value::Object(bare)) => {
            for (key, value) in bare {
                identify(map.entry(key).or_insert(Value::Null), value);
            }
        }
        _ => *object = bare.clone(),
    }
}

impl<'w> Writer<'w> {
    /// An object of one version in another, by way of the writer's.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<(Value, &'w Schema)> {
        let home = if from == self.api_version { object.clone() } else { self.versions.convert_back(object, from)? };
        if to == self.api_version { Some((home, self.schema)) } else { self.versions.convert(&home, to) }
    }
}

/// Lists and maps that were emptied are absent.
fn drop_nulls(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}
