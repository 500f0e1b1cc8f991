//! Merging lists, and the order of what comes out: items of the patch in the patch's order, the object's other items
//! between them where they stood.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{DIRECTIVE, ELEMENT_ORDER, Level, bad_directive, failed, merge_map, show, without_directives};
use crate::schema::Merge;
use crate::status::Status;

/// Merges the lists that have a `$setElementOrder` directive; returns their keys.
pub(super) fn merge_ordered<'p>(
    original: &mut Map<String, Value>,
    patch: &'p Map<String, Value>,
    level: Level<'_>,
) -> Result<Vec<&'p str>, Status> {
    let mut done = Vec::new();
    for (directive, order) in patch {
        let Some(key) = directive.strip_prefix(ELEMENT_ORDER) else { continue };
        let bad = || Status::bad_request("invalid patch format of setElementOrder list");
        let order = order.as_array().ok_or_else(bad)?;
        let (below, merge_rules) = level.below(key);
        let identity = Identity::new(merge_rules);
        let new = match patch.get(key) {
            None | Some(Value::Null) => None,
            Some(new) => Some(new.as_array().ok_or_else(bad)?),
        };
        if patch.get(key).is_some_and(Value::is_null) {
            continue;
        }
        if let Some(new) = new {
            check_order(new, order, identity)?;
        }
        let old = original.get(key).and_then(Value::as_array).cloned();
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => match without_directives(&Value::Array(new.clone())) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            (Some(old), Some(new)) => merge(old.clone(), new, below, merge_rules, false)?,
        };
        let merged = put_in_order(merged, order, &old.unwrap_or_default(), identity);
        original.insert(key.to_owned(), Value::Array(merged));
        done.push(key);
    }
    Ok(done)
}

/// Merges `patch` into `original` as the field's rules say.
pub(super) fn merge(
    original: Vec<Value>,
    patch: &[Value],
    item: Level<'_>,
    rules: Option<&Merge>,
    is_delete_list: bool,
) -> Result<Vec<Value>, Status> {
    if !is_delete_list && !rules.is_some_and(|r| r.patch_merge) {
        return Ok(match without_directives(&Value::Array(patch.to_vec())) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        });
    }
    let maps = element_kind(original.iter().chain(patch))?;
    let identity = Identity::new(rules);
    let before = original.clone();
    let (merged, order) = match (maps, identity) {
        (false, _) if is_delete_list => {
            let gone: HashSet<&Value> = patch.iter().collect();
            return Ok(original.into_iter().filter(|item| !gone.contains(item)).collect());
        }
        (false, _) => (merge_scalars(original, patch), patch.to_vec()),
        (true, Identity::Value) => {
            let name = match item {
                Level::Struct(schema) => schema.short_name(),
                _ => "",
            };
            return Err(failed(format!("cannot merge lists without merge key for {name}")));
        }
        (true, Identity::Key(key)) => {
            let Some((original, patch)) = special_items(original, patch, key)? else {
                // `$patch: replace`: what the patch has beside directives is the list.
                return Ok(patch
                    .iter()
                    .filter(|i| i.get(DIRECTIVE).is_none())
                    .filter_map(without_directives)
                    .collect());
            };
            (merge_maps(original, &patch, key, item)?, patch.into_iter().cloned().collect())
        }
    };
    Ok(put_in_order(merged, &order, &before, identity))
}

/// What makes two items the same.
#[derive(Clone, Copy)]
enum Identity<'a> {
    /// Scalars: the value.
    Value,
    /// Maps: the value of this key.
    Key(&'a str),
}

impl<'a> Identity<'a> {
    fn new(rules: Option<&'a Merge>) -> Self {
        match rules {
            Some(rules) if !rules.patch_key.is_empty() => Self::Key(&rules.patch_key),
            _ => Self::Value,
        }
    }

    /// What an item is known by; `None` for a map without the key.
    fn of(self, item: &Value) -> Option<&Value> {
        match self {
            Self::Value => Some(item),
            Self::Key(key) => item.get(key),
        }
    }

    /// Where each item of a list first stands.
    fn positions(self, list: &[Value]) -> HashMap<&Value, usize> {
        let mut positions = HashMap::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            if let Some(id) = self.of(item) {
                positions.entry(id).or_insert(i);
            }
        }
        positions
    }
}

/// Whether the items are maps; they must all be or none.
fn element_kind<'a>(items: impl Iterator<Item = &'a Value>) -> Result<bool, Status> {
    let mut maps = None;
    for item in items {
        if item.is_array() {
            let details = Some(Box::default());
            let message = "the server rejected our request due to an error in our request";
            return Err(Status { details, ..Status::new(422, "Invalid", message) });
        }
        if *maps.get_or_insert(item.is_object()) != item.is_object() {
            return Err(failed("list element types are not identical".into()));
        }
    }
    Ok(maps.unwrap_or(false))
}

fn merge_scalars(original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let all = original.into_iter().chain(patch.iter().cloned());
    all.filter(|item| seen.insert(item.clone())).collect()
}

/// Carries out `$patch` directives among the items; `None` when one of them says `replace`.
#[allow(clippy::type_complexity)]
fn special_items<'p>(
    mut original: Vec<Value>,
    patch: &'p [Value],
    key: &str,
) -> Result<Option<(Vec<Value>, Vec<&'p Value>)>, Status> {
    let mut plain = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Some(map) = item.as_object() else { continue };
        match map.get(DIRECTIVE) {
            None => plain.push(item),
            Some(Value::String(directive)) if directive == "delete" => {
                deleted.insert(map.get(key).ok_or_else(|| no_merge_key(map, key))?);
            }
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(failed("merging lists cannot yet be specified in the patch".into()));
            }
            Some(other) => return Err(bad_directive(other, map)),
        }
    }
    original.retain(|item| item.get(key).is_none_or(|id| !deleted.contains(id)));
    Ok((!replace).then_some((original, plain)))
}

fn merge_maps(mut original: Vec<Value>, patch: &[&Value], key: &str, item: Level<'_>) -> Result<Vec<Value>, Status> {
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(original.len());
    for (i, old) in original.iter().enumerate() {
        if let Some(id) = old.get(key) {
            places.entry(id.clone()).or_insert(i);
        }
    }
    for new in patch {
        let Some(map) = new.as_object() else { continue };
        let id = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
        match places.get(id).and_then(|place| original.get_mut(*place)) {
            Some(Value::Object(old)) => merge_map(old, map, item)?,
            _ => {
                places.insert(id.clone(), original.len());
                original.extend(without_directives(new));
            }
        }
    }
    Ok(original)
}

fn no_merge_key(map: &Map<String, Value>, key: &str) -> Status {
    failed(format!("map: {} does not contain declared merge key: {key}", show(map)))
}

/// Items that `order` names come in its order; the others keep theirs and go where they stood in `before`, as far as both
/// can be had.
fn put_in_order(merged: Vec<Value>, order: &[Value], before: &[Value], identity: Identity<'_>) -> Vec<Value> {
    let ordered = identity.positions(order);
    let stood = identity.positions(before);
    let place = |list: &HashMap<&Value, usize>, item: &Value| list.get(identity.of(item)?).copied();
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let stood = place(&stood, &item);
        match place(&ordered, &item) {
            Some(rank) => named.push((rank, stood, item)),
            None => others.push((stood, item)),
        }
    }
    named.sort_by_key(|(rank, ..)| *rank);
    let mut all = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    // The others come from the object and still stand in its order.
    for (other_stood, other) in others {
        while let Some((_, next_stood, _)) = named.peek() {
            if let (Some(other), Some(next)) = (other_stood, *next_stood)
                && other < next
            {
                break;
            }
            all.extend(named.next().map(|(.., item)| item));
        }
        all.push(other);
    }
    all.extend(named.map(|(.., item)| item));
    all
}

/// The patch's items must stand in the order that `$setElementOrder` gives.
fn check_order(patch: &[Value], order: &[Value], identity: Identity<'_>) -> Result<(), Status> {
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let id = identity.of(item);
        if id.is_none() || !rest.any(|other| identity.of(other) == id) {
            let show = |list: &[Value]| super::show_value(&Value::Array(list.to_vec()));
            let message = format!(
                "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
                show(patch),
                ELEMENT_ORDER.trim_end_matches('/'),
                show(order)
            );
            return Err(failed(message));
        }
    }
    Ok(())
}
