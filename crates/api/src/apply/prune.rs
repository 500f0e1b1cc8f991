//! What an applier no longer speaks of goes from the object, unless somebody else owns it or nobody ever did.

use serde_json::Value;

use super::managed::Entry;
use super::set::{self, Set};
use super::{Writer, fields, remove};
use crate::schema::Schema;

/// `merged` without the fields that the applier owned by its `last` entry, does not own by `mine`, and that no other entry
/// has.
pub(super) fn prune(writer: &Writer<'_>, merged: Value, others: &[Entry], mine: &Entry, last: Option<&Entry>) -> Value {
    let Some(last) = last.filter(|last| !last.fields().is_empty()) else { return merged };
    if last.api_version() == writer.api_version {
        return run(writer, writer.schema, writer.api_version, merged, others, mine, last);
    }
    // The fields it owned are named in another version.
    let Some((converted, schema)) = writer.versions.convert(&merged, last.api_version()) else { return merged };
    let pruned = run(writer, schema, last.api_version(), converted, others, mine, last);
    writer.versions.convert_back(&pruned, last.api_version()).unwrap_or(merged)
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
            set::union(&mut kept, &seen_from(writer, schema, version, &merged, entry));
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

/// What an entry of another version owns, as fields of `version`: what changes here when those fields are all there is of
/// the object.
fn seen_from(writer: &Writer<'_>, schema: &Schema, version: &str, merged: &Value, entry: &Entry) -> Set {
    let there = if entry.api_version() == writer.api_version {
        // `merged` is not in the writer's version here.
        writer.versions.convert_back(merged, version).map(|object| (object, writer.schema))
    } else if version == writer.api_version {
        writer.versions.convert(merged, entry.api_version())
    } else {
        let home = writer.versions.convert_back(merged, version);
        home.and_then(|object| writer.versions.convert(&object, entry.api_version()))
    };
    let Some((object, theirs)) = there else { return Set::new() };
    let owned = remove::with_named(theirs, entry.fields());
    let mut rest = remove::with_named(theirs, &fields::field_set(theirs, &object));
    set::difference(&mut rest, &owned);
    let only = remove::remove(theirs, object, &rest);
    let back = if entry.api_version() == writer.api_version {
        Some(only)
    } else {
        writer.versions.convert_back(&only, entry.api_version())
    };
    let here = match back {
        Some(home) if version == writer.api_version => Some(home),
        Some(home) => writer.versions.convert(&home, version).map(|(object, _)| object),
        None => None,
    };
    here.map(|object| remove::with_named(schema, &fields::field_set(schema, &object))).unwrap_or_default()
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
