//! `metadata.managedFields`: entries kept as the JSON objects they are.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use serde_json::{Map, Value};

use super::set::{self, Set};
use crate::status::FieldError;

/// Entries of updates that an object may have; older ones are merged.
const MAX_UPDATE_ENTRIES: usize = 10;
/// Who owns what older updates wrote.
const ANCIENT: &str = "ancient-changes";
/// Longest `manager`, bytes.
pub(super) const MAX_MANAGER_BYTES: usize = 128;
const MAX_SUBRESOURCE_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry(Map<String, Value>);

impl Entry {
    pub(super) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str, fields: Set) -> Self {
        let mut map = Map::new();
        map.insert("manager".into(), manager.into());
        map.insert("operation".into(), operation.as_str().into());
        map.insert("apiVersion".into(), api_version.into());
        map.insert("fieldsType".into(), "FieldsV1".into());
        map.insert("fieldsV1".into(), Value::Object(fields));
        if !subresource.is_empty() {
            map.insert("subresource".into(), subresource.into());
        }
        Self(map)
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn manager(&self) -> &str {
        self.text("manager")
    }

    pub(super) fn operation(&self) -> Operation {
        if self.text("operation") == "Apply" { Operation::Apply } else { Operation::Update }
    }

    pub(super) fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    pub(super) fn subresource(&self) -> &str {
        self.text("subresource")
    }

    /// RFC 3339 in UTC with whole seconds, so that text and time have one order; empty when it is not known.
    fn time(&self) -> &str {
        self.text("time")
    }

    pub(super) fn set_time(&mut self, time: &str) {
        self.0.insert("time".into(), time.into());
    }

    pub(super) fn copy_time(&mut self, other: &Self) {
        match other.0.get("time") {
            Some(time) => drop(self.0.insert("time".into(), time.clone())),
            None => drop(self.0.remove("time")),
        }
    }

    pub(super) fn set_api_version(&mut self, api_version: &str) {
        self.0.insert("apiVersion".into(), api_version.into());
    }

    pub(super) fn set_fields(&mut self, fields: Set) {
        self.0.insert("fieldsV1".into(), Value::Object(fields));
    }

    pub(super) fn fields(&self) -> &Set {
        static NONE: std::sync::LazyLock<Set> = std::sync::LazyLock::new(Set::new);
        self.0.get("fieldsV1").and_then(Value::as_object).unwrap_or(&NONE)
    }

    pub(super) fn fields_mut(&mut self) -> Option<&mut Set> {
        self.0.get_mut("fieldsV1").and_then(Value::as_object_mut)
    }

    /// Whether it is what this manager would write next. An applier has one entry whatever version it speaks.
    pub(super) fn is(&self, manager: &str, operation: Operation, api_version: &str, subresource: &str) -> bool {
        self.operation() == operation
            && self.manager() == manager
            && self.subresource() == subresource
            && (operation == Operation::Apply || self.api_version() == api_version)
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| entry.text("operation") == "Update";
        key(self)
            .cmp(&key(other))
            .then_with(|| self.time().cmp(other.time()))
            .then_with(|| self.manager().cmp(other.manager()))
            .then_with(|| self.api_version().cmp(other.api_version()))
            .then_with(|| self.subresource().cmp(other.subresource()))
    }
}

/// Takes the list out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|value| !value.is_null())
}

/// The list of an object.
pub(super) fn of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|value| !value.is_null())
}

/// Puts entries into an object, sorted; none when there are none.
pub(super) fn put(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(Entry::order);
    if entries.is_empty() {
        return;
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let list = entries.into_iter().map(|entry| Value::Object(entry.0)).collect();
        metadata.insert("managedFields".into(), Value::Array(list));
    }
}

/// Entries that this server wrote.
pub(super) fn trusted(list: Value) -> Vec<Entry> {
    let Value::Array(items) = list else { return Vec::new() };
    items
        .into_iter()
        .filter_map(|item| match item {
            Value::Object(map) => Some(Entry(map)),
            _ => None,
        })
        .collect()
}

/// Entries that a client wrote, in normal form. Of entries for the same manager the last counts.
pub(super) fn decode(list: &Value) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known = HashMap::new();
    for (i, item) in list.as_array().into_iter().flatten().enumerate() {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
        }
        let fields = item.get("fieldsV1").map_or_else(|| Ok(Set::new()), set::parse)?;
        let (manager, api_version, subresource) = (text("manager"), text("apiVersion"), text("subresource"));
        let mut entry = Entry::new(manager, operation, api_version, subresource, fields);
        if !text("time").is_empty() {
            entry.set_time(text("time"));
        }
        // As in [`Entry::is`].
        let version = if operation == Operation::Apply { "" } else { api_version };
        match known.entry((operation, manager, version, subresource)) {
            Slot::Vacant(slot) => {
                slot.insert(entries.len());
                entries.push(entry);
            }
            Slot::Occupied(slot) => {
                if let Some(earlier) = entries.get_mut(*slot.get()) {
                    *earlier = entry;
                }
            }
        }
    }
    Ok(entries)
}

/// Whether a client asks for all ownership to be forgotten: an empty list, or one with an empty entry.
pub(super) fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Merges the oldest updates of one version until there are few enough.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let is_update = |entry: &Entry| entry.operation() == Operation::Update;
    let mut updates = entries.iter().filter(|entry| is_update(entry)).count();
    if updates <= MAX_UPDATE_ENTRIES {
        return;
    }
    entries.sort_by(Entry::order);
    // By version: the entry that older ones have been merged into, and the first update.
    let mut buckets: HashMap<String, usize> = HashMap::new();
    for (i, entry) in entries.iter().enumerate() {
        if entry.is(ANCIENT, Operation::Update, entry.api_version(), "") {
            buckets.insert(entry.api_version().to_owned(), i);
        }
    }
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for i in 0..entries.len() {
        if updates <= MAX_UPDATE_ENTRIES {
            break;
        }
        let Some(entry) = entries.get_mut(i).filter(|entry| is_update(entry)) else { continue };
        let version = entry.api_version().to_owned();
        // The first of a version is what the next ones are merged with.
        let Some(&first) = firsts.get(&version) else {
            firsts.insert(version, i);
            continue;
        };
        let merged = Entry(std::mem::take(&mut entry.0));
        let bucket = buckets.get(&version).copied().filter(|at| *at != i);
        if let Some(entry) = entries.get_mut(bucket.unwrap_or(first)) {
            if bucket.is_none() {
                let fields = entry.fields_mut().map(std::mem::take).unwrap_or_default();
                *entry = Entry::new(ANCIENT, Operation::Update, &version, "", fields);
                buckets.insert(version, first);
            }
            if let Some(fields) = entry.fields_mut() {
                set::union(fields, merged.fields());
            }
            entry.copy_time(&merged);
        }
        updates -= 1;
    }
    entries.retain(|entry| !entry.0.is_empty());
}

/// Complaints about entries that a client wrote.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, entry) in of(object).and_then(Value::as_array).into_iter().flatten().enumerate() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let at = |key: &str| format!("metadata.managedFields[{i}].{key}");
        errors.extend(validate_manager(&at("manager"), text("manager")));
        if text("subresource").len() > MAX_SUBRESOURCE_BYTES {
            errors.push(FieldError::too_long(at("subresource"), MAX_SUBRESOURCE_BYTES));
        }
    }
    errors
}

/// Complaints about a manager's name.
pub(super) fn validate_manager(field: &str, manager: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > MAX_MANAGER_BYTES {
        errors.push(FieldError::too_long(field, MAX_MANAGER_BYTES));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_print(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(field, manager, &why));
    }
    errors
}

/// Whether Go would print it: letters, marks, digits, punctuation, symbols and the plain space.
pub(super) fn is_print(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(u32::from(c), 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe0000..))
}
