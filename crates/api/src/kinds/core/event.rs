//! Event of the core group, which is also the stored form of `events.k8s.io` events.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{UNKNOWN, or, since};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, required};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Event", "events", &Event)
        .short("ev")
        .columns(columns())
        .select("involvedObject.kind", |e| text(&e["involvedObject"]["kind"]))
        .select("involvedObject.namespace", |e| text(&e["involvedObject"]["namespace"]))
        .select("involvedObject.name", |e| text(&e["involvedObject"]["name"]))
        .select("involvedObject.uid", |e| text(&e["involvedObject"]["uid"]))
        .select("involvedObject.apiVersion", |e| text(&e["involvedObject"]["apiVersion"]))
        .select("involvedObject.resourceVersion", |e| text(&e["involvedObject"]["resourceVersion"]))
        .select("involvedObject.fieldPath", |e| text(&e["involvedObject"]["fieldPath"]))
        .select("reason", |e| text(&e["reason"]))
        .select("reportingComponent", |e| text(&e["reportingComponent"]))
        .select("type", |e| text(&e["type"]))
        .select("source", |e| {
            let component = text(&e["source"]["component"]);
            if component.is_empty() { text(&e["reportingComponent"]) } else { component }
        })
}

fn text(value: &Value) -> Cow<'_, str> {
    value.as_str().unwrap_or_default().into()
}

/// Columns of both kinds of event, over either form.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::string("Last Seen", "Time since it happened last.", |e, now| last_seen(e, now).into()),
        Column::string("Type", "Normal or Warning.", |e, _| or(&e["type"], "")),
        Column::string("Reason", "Why, in a word.", |e, _| or(&e["reason"], "")),
        Column::string("Object", "What it is about.", |e, _| object(e).into()),
        Column::string("Subobject", "The part of the object.", |e, _| or(&about(e)["fieldPath"], "")).wide(),
        Column::string("Source", "Who reports it.", |e, _| source(e).into()).wide(),
        Column::string("Message", "What happened.", |e, _| text(either(e, "message", "note")).trim().into()),
        Column::string("First Seen", "Time since it happened first.", |e, now| first_seen(e, now).into()).wide(),
        Column::string("Count", "How often it happened.", |e, _| count(e).into()).wide(),
        Column::string("Name", "Its name.", |e, _| or(&e["metadata"]["name"], "")).format("name").wide(),
    ]
}

/// A field by its name in the core form, or in that of `events.k8s.io`.
fn either<'a>(event: &'a Value, core: &str, new: &str) -> &'a Value {
    if event[core].is_null() { &event[new] } else { &event[core] }
}

fn about(event: &Value) -> &Value {
    either(event, "involvedObject", "regarding")
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    let first = either(event, "firstTimestamp", "deprecatedFirstTimestamp");
    since(if first.is_string() { first } else { &event["eventTime"] }, now)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    let series = &event["series"]["lastObservedTime"];
    if event["series"].is_object() {
        return if series.is_string() { since(series, now) } else { UNKNOWN.into() };
    }
    let last = either(event, "lastTimestamp", "deprecatedLastTimestamp");
    if last.is_string() { since(last, now) } else { first_seen(event, now) }
}

fn count(event: &Value) -> i64 {
    if event["series"].is_object() {
        return event["series"]["count"].as_i64().unwrap_or(0);
    }
    match either(event, "count", "deprecatedCount").as_i64().unwrap_or(0) {
        0 => 1,
        n => n,
    }
}

fn object(event: &Value) -> String {
    let about = about(event);
    let kind = text(&about["kind"]).to_ascii_lowercase();
    match text(&about["name"]).as_ref() {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let pick = |old: &Value, new: &Value| match old.as_str() {
        Some(text) if !text.is_empty() => text.to_string(),
        _ => text(new).into_owned(),
    };
    let source = either(event, "source", "deprecatedSource");
    let component = pick(&source["component"], either(event, "reportingComponent", "reportingController"));
    let host = pick(&source["host"], &event["reportingInstance"]);
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

#[derive(Debug)]
struct Event;

impl Strategy for Event {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let involved = root.get("involvedObject");
        let metadata = root.get("metadata");
        let (own, theirs) = (metadata.get("namespace").str(), involved.get("namespace"));
        let agrees = match theirs.str() {
            // An object of the cluster: its events are in default (or kube-system, for those with an eventTime).
            "" => matches!(own, "" | "default") || (own == "kube-system" && root.get("eventTime").is_set()),
            namespace => own == namespace,
        };
        if !agrees {
            errors.push(theirs.invalid_str("does not match event.namespace"));
        }
        if root.get("eventTime").is_set() {
            validate_new(root, "reportingComponent", "message", &mut errors);
        }
        errors
    }
}

/// Rules of events that have an `eventTime`, in either form.
pub(crate) fn validate_new<'v>(root: View<'_, 'v>, controller: &'v str, note: &'v str, errors: &mut Errors) {
    let controller = root.get(controller);
    if required(controller, errors) {
        checked(controller, names::qualified, errors);
    }
    for field in ["reportingInstance", "action", "reason"] {
        let view = root.get(field);
        if required(view, errors) && view.len() > 128 {
            errors.push(FieldError::invalid(view.path(), "", "can have at most 128 characters"));
        }
    }
    if root.get(note).len() > 1024 {
        errors.push(FieldError::invalid(root.get(note).path(), "", "can have at most 1024 characters"));
    }
}
