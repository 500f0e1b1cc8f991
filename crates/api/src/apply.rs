//! Server-side apply: who owns which field, kept in `metadata.managedFields`, and configurations merged by that. The rules
//! are those of upstream's structured-merge-diff. [`update`] follows every other write; [`apply`] carries one out.

mod diff;
mod element;
mod fields;
mod first;
mod managed;
mod merge;
mod node;
mod prune;
mod remove;
mod scale;
mod set;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

pub use first::{first, is_first};
pub use scale::{from_scale, to_scale};
pub use set::Set;

use crate::schema::Schema;
use crate::status::{Cause, Details, FieldError, Status};
use diff::{Diff, diff};
use managed::{Entry, Operation};

/// Who is said to own the fields of an object that nobody tracked before it was applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager for whom the annotation of client-side apply is kept up.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A write, as far as ownership goes.
pub struct Writer<'a> {
    /// `fieldManager`, or what [`manager_name`] makes of the client's program.
    pub manager: &'a str,
    /// Of the endpoint.
    pub api_version: &'a str,
    pub kind: &'a str,
    pub schema: &'a Schema,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
    pub reset: Reset,
    pub versions: &'a dyn Versions,
}

/// Fields that writes to an endpoint do not change, and so do not own. Paths are lists of path elements: `f:spec`; `*` stands
/// for any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// These, with all below them.
    Fields(&'static [&'static [&'static str]]),
    /// All but what is below these.
    AllBut(&'static [&'static [&'static str]]),
}

impl Reset {
    fn filter(self, set: &mut Set) {
        match self {
            Self::Fields(paths) => {
                for path in paths {
                    set::remove(set, path);
                }
            }
            Self::AllBut(paths) => *set = set::only(set, paths),
        }
    }
}

/// Objects in the other versions that entries were written in.
pub trait Versions {
    /// The object, which is in the writer's version, in another; `None` when there is no such version (any more).
    fn convert<'s>(&'s self, object: &Value, api_version: &str) -> Option<(Value, &'s Schema)>;

    /// The way back, from another version to the writer's.
    fn convert_back(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// A kind with one version.
#[derive(Debug)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert<'s>(&'s self, _object: &Value, _api_version: &str) -> Option<(Value, &'s Schema)> {
        None
    }

    fn convert_back(&self, _object: &Value, _api_version: &str) -> Option<Value> {
        None
    }
}

/// The manager of a write that names none, from the client's `User-Agent`.
pub fn manager_name(user_agent: &str) -> String {
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| managed::is_print(*c)) {
        if name.len() + c.len_utf8() > managed::MAX_MANAGER_BYTES {
            break;
        }
        name.push(c);
    }
    name
}

/// The live object with a configuration's fields, of which nobody becomes the owner (mutating admission policies). The error
/// says which parts of the configuration are only ever changed as a whole, or which list's items cannot be told apart.
pub fn merge_config(schema: &Schema, live: Value, config: &Value) -> Result<Value, String> {
    let atomics = merge::atomics(schema, config);
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"));
    }
    merge::merge(schema, live, config).map_err(|why| format!("failed to merge patch: {why}"))
}

/// Why the managed fields of an object that somebody else has changed cannot be read.
pub fn check_managed(object: &Value) -> Result<(), String> {
    let Some(list) = managed::of(object) else { return Ok(()) };
    managed::decode(list)?;
    let errors = managed::validate(object);
    errors.first().map_or(Ok(()), |error| Err(format!("{}: {}", error.field, error.message)))
}

/// Complaints about the parameter `fieldManager`.
pub fn validate_field_manager(manager: &str) -> Vec<FieldError> {
    managed::validate_manager("fieldManager", manager)
}

/// Brings `new`'s managed fields up to what this write makes of `old` (`None` when the object is new). An error is about
/// entries that the client itself wrote.
pub fn update(writer: &Writer<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Vec<FieldError>> {
    let sent = managed::take(new);
    let live = old.and_then(managed::of);
    let mut by_client = false;
    let mut entries = match sent {
        Some(sent) if Some(&sent) == live => managed::trusted(sent),
        // A subresource has no say in its object's managed fields.
        Some(sent) if writer.subresource.is_empty() => {
            if managed::is_reset(&sent) {
                Vec::new()
            } else {
                match managed::decode(&sent) {
                    Ok(entries) if !entries.is_empty() => {
                        by_client = true;
                        entries
                    }
                    _ => live.cloned().map(managed::trusted).unwrap_or_default(),
                }
            }
        }
        _ => live.cloned().map(managed::trusted).unwrap_or_default(),
    };
    if entries.is_empty() && old.is_some() {
        return Ok(());
    }
    let found = writer.diff(old, new);
    if found.is_empty() && !by_client {
        managed::put(new, entries);
        return Ok(());
    }
    give_up(writer, &mut entries, &found, old, new);
    if !found.changed.is_empty() {
        own(writer, &mut entries, found.changed);
    }
    managed::cap(&mut entries);
    managed::put(new, entries);
    let errors = if by_client { managed::validate(new) } else { Vec::new() };
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Others lose what was changed and removed.
fn give_up(writer: &Writer<'_>, entries: &mut Vec<Entry>, found: &Diff, old: Option<&Value>, new: &Value) {
    let mut versions = OtherVersions::default();
    entries.retain_mut(|entry| {
        let Some(found) = versions.diff(writer, entry.api_version(), found, old, new) else { return false };
        let Some(fields) = entry.fields_mut() else { return false };
        set::difference(fields, &found.changed);
        set::difference(fields, &found.removed);
        !fields.is_empty()
    });
}

/// The writer owns what it changed, beside what it owned before.
fn own(writer: &Writer<'_>, entries: &mut Vec<Entry>, changed: Set) {
    let Writer { api_version, subresource, .. } = *writer;
    let manager = writer.manager();
    let mine = entries.iter_mut().find(|e| e.is(manager, Operation::Update, api_version, subresource));
    match mine {
        Some(entry) => {
            if let Some(fields) = entry.fields_mut() {
                set::union(fields, &changed);
            }
            entry.set_time(writer.now);
        }
        None => {
            let mut entry = Entry::new(manager, Operation::Update, api_version, subresource, changed);
            entry.set_time(writer.now);
            entries.push(entry);
        }
    }
}

/// Differences in other versions, each found once.
#[derive(Default)]
struct OtherVersions(HashMap<String, Option<Diff>>);

impl OtherVersions {
    fn diff<'d>(
        &'d mut self,
        writer: &Writer<'_>,
        api_version: &str,
        found: &'d Diff,
        old: Option<&Value>,
        new: &Value,
    ) -> Option<&'d Diff> {
        if api_version == writer.api_version {
            return Some(found);
        }
        if !self.0.contains_key(api_version) {
            self.0.insert(api_version.to_owned(), writer.diff_in(api_version, old, new));
        }
        self.0.get(api_version)?.as_ref()
    }
}

impl Writer<'_> {
    fn manager(&self) -> &str {
        if self.manager.is_empty() { "unknown" } else { self.manager }
    }

    fn diff(&self, old: Option<&Value>, new: &Value) -> Diff {
        self.filtered(diff(self.schema, old, new))
    }

    /// The same in another version; `None` when there is none.
    fn diff_in(&self, api_version: &str, old: Option<&Value>, new: &Value) -> Option<Diff> {
        let (new, schema) = self.versions.convert(new, api_version)?;
        let old = match old {
            Some(old) => Some(self.versions.convert(old, api_version)?.0),
            None => None,
        };
        Some(self.filtered(diff(schema, old.as_ref(), &new)))
    }

    fn filtered(&self, mut found: Diff) -> Diff {
        self.reset.filter(&mut found.changed);
        self.reset.filter(&mut found.removed);
        found
    }
}

/// Applies `config` to the live object (`None` when there is none yet): the object as it is then, before defaults. 400 for
/// what is no configuration of the kind, 409 with a cause for each field that belongs to another manager and differs,
/// unless `force` takes it over.
pub fn apply(writer: &Writer<'_>, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
    check_type(writer, config)?;
    if managed::of(config).is_some() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let errors = fields::check(writer.schema, config);
    if !errors.is_empty() {
        return Err(failed(&format!("failed to create typed patch object ({})", name(config)), &fields::join(&errors)));
    }
    let mut object = match attempt(writer, live, config, force)? {
        Ok(object) => object,
        Err(conflicts) => {
            // kubectl takes over from its own client-side apply what nobody changed since.
            let allowed = match live {
                Some(live) if writer.manager == KUBECTL => last_applied(writer, live),
                _ => None,
            };
            let left: Vec<Conflict> = conflicts.into_iter().filter_map(|c| c.without(allowed.as_ref())).collect();
            match allowed {
                Some(_) if left.is_empty() => match attempt(writer, live, config, true)? {
                    Ok(object) => object,
                    Err(conflicts) => return Err(conflict_status(&conflicts)),
                },
                _ => return Err(conflict_status(&left)),
            }
        }
    };
    if writer.manager == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    Ok(object)
}

fn failed(what: &str, why: &str) -> Status {
    Status::new(500, "", format!("{what}: {why}"))
}

/// An object as upstream's errors name it.
fn name(object: &Value) -> String {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}", full_kind(text("/apiVersion"), text("/kind")))
}

fn full_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn check_type(writer: &Writer<'_>, config: &Value) -> Result<(), Status> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != writer.api_version || text("kind") != writer.kind {
        let found = full_kind(text("apiVersion"), text("kind"));
        return Err(Status::bad_request(format!("invalid object type: {found}")));
    }
    Ok(())
}

/// Fields that an applier wants and another manager has.
#[derive(Clone, Debug)]
struct Conflict {
    /// `"kubectl" using apps/v1`
    manager: String,
    fields: Set,
}

impl Conflict {
    fn without(mut self, allowed: Option<&Set>) -> Option<Self> {
        if let Some(allowed) = allowed {
            set::difference(&mut self.fields, allowed);
        }
        (!self.fields.is_empty()).then_some(self)
    }
}

/// One try; the inner error is the conflicts.
fn attempt(
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Result<Value, Vec<Conflict>>, Status> {
    let Writer { manager, api_version, subresource, schema, .. } = *writer;
    let mut entries = live.and_then(managed::of).cloned().map(managed::trusted).unwrap_or_default();
    if let (true, Some(live)) = (entries.is_empty(), live) {
        let first = Writer { manager: BEFORE_FIRST_APPLY, subresource: writer.subresource, ..*writer };
        let owned = first.diff(None, live).changed;
        if !owned.is_empty() {
            own(&first, &mut entries, owned);
        }
    }
    for entry in entries.iter_mut().filter(|entry| entry.api_version() == api_version) {
        if let Some(fields) = entry.fields_mut() {
            remove::reconcile(schema, fields);
        }
    }
    let mut base = live.cloned().unwrap_or(Value::Null);
    managed::take(&mut base);
    let merged = merge::merge(schema, base.clone(), config).map_err(|e| failed("failed to merge config", &e))?;
    let mut wanted = fields::field_set(schema, config);
    writer.reset.filter(&mut wanted);
    let at = entries.iter().position(|e| e.is(manager, Operation::Apply, api_version, subresource));
    let last = at.map(|at| entries.remove(at));
    let mut mine = Entry::new(manager, Operation::Apply, api_version, subresource, wanted);
    let mut object = prune::prune(writer, merged, &entries, &mine, last.as_ref());
    let changed = live.is_none() || object != base;

    let found = writer.diff(live, &object);
    let mut versions = OtherVersions::default();
    let mut conflicts = Vec::new();
    entries.retain_mut(|entry| {
        let Some(found) = versions.diff(writer, entry.api_version(), &found, live, &object) else { return false };
        let both = set::intersection(entry.fields(), &found.changed);
        if !both.is_empty() && !force {
            conflicts.push(Conflict { manager: show_manager(entry), fields: both });
        }
        let Some(fields) = entry.fields_mut() else { return false };
        set::difference(fields, &found.changed);
        set::difference(fields, &found.removed);
        !fields.is_empty()
    });
    if !conflicts.is_empty() {
        return Ok(Err(conflicts));
    }
    if let Some(fields) = mine.fields_mut() {
        strip(fields);
    }
    match &last {
        Some(last) if !changed && last.fields() == mine.fields() => mine.copy_time(last),
        _ => mine.set_time(writer.now),
    }
    if !mine.fields().is_empty() {
        entries.push(mine);
    }
    let bare = object.get("metadata").is_none_or(Value::is_null);
    if let (true, Some(map)) = (bare, object.as_object_mut()) {
        map.insert("metadata".into(), Value::Object(serde_json::Map::new()));
    }
    managed::put(&mut object, entries);
    Ok(Ok(object))
}

/// Takes out what nobody owns.
fn strip(fields: &mut Set) {
    for key in ["f:apiVersion", "f:kind"] {
        fields.remove(key);
    }
    if let Some(mut metadata) = fields.remove("f:metadata") {
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove(".");
            for name in diff::UNOWNED {
                metadata.remove(&element::field(name));
            }
        }
        if metadata.as_object().is_some_and(|m| !m.is_empty()) {
            fields.insert("f:metadata".into(), metadata);
        }
    }
}

fn show_manager(entry: &Entry) -> String {
    let mut shown = format!("{:?}", entry.manager());
    if !entry.subresource().is_empty() {
        shown.push_str(&format!(" with subresource {:?}", entry.subresource()));
    }
    if entry.operation() == Operation::Update {
        shown.push_str(&format!(" using {}", entry.api_version()));
    }
    shown
}

/// 409 in upstream's words, which kubectl reads.
fn conflict_status(conflicts: &[Conflict]) -> Status {
    let shown: Vec<(&str, Vec<String>)> =
        conflicts.iter().map(|conflict| (conflict.manager.as_str(), set::paths(&conflict.fields))).collect();
    let causes: Vec<Cause> = shown
        .iter()
        .flat_map(|(manager, paths)| paths.iter().map(move |path| (manager, path)))
        .map(|(manager, path)| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {manager}"),
            field: path.clone(),
        })
        .collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let mut managers: Vec<&(&str, Vec<String>)> = shown.iter().collect();
            managers.sort_by_key(|(manager, _)| *manager);
            let lines: Vec<String> = managers
                .iter()
                .flat_map(|(manager, paths)| {
                    std::iter::once(format!("conflicts with {manager}:")).chain(paths.iter().map(|p| format!("- {p}")))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let details = Details { causes, ..Details::default() };
    Status { details: Some(Box::new(details)), ..Status::new(409, "Conflict", message) }
}

/// What client-side apply owns: fields of its annotation that are still as it says.
fn last_applied(writer: &Writer<'_>, live: &Value) -> Option<Set> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    let applied = crate::codec::json::decode(text.as_bytes()).ok()?.value;
    if applied.get("apiVersion")?.as_str()? != writer.api_version || !fields::check(writer.schema, &applied).is_empty()
    {
        return None;
    }
    let mut owned = fields::field_set(writer.schema, &applied);
    let found = diff(writer.schema, Some(&applied), live);
    set::difference(&mut owned, &found.changed);
    set::difference(&mut owned, &found.removed);
    Some(owned)
}

/// Writes the annotation of client-side apply anew where there is one, so that going back is possible.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotations = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut);
    let Some(annotations) = annotations else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).unwrap_or_default().is_empty() {
        return;
    }
    let mut applied = config.clone();
    if let Some(own) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > crate::validation::labels::MAX_ANNOTATIONS_BYTES {
        annotations.remove(LAST_APPLIED);
    }
}
