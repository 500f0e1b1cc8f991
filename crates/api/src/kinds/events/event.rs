//! Event of `events.k8s.io`, stored as a core event.

use std::borrow::Cow;

use serde_json::Value;

use crate::kind::{Kind, Storage, Strategy, Write};
use crate::kinds::core::{event_columns, validate_new_event};
use crate::kinds::prepare_plain;
use crate::status::FieldError;
use crate::validation::{View, immutable, required};

/// Field here, field in a core event. Everything else is called the same in both.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub(crate) fn kind() -> Kind {
    Kind::namespaced("events.k8s.io", "v1", "Event", "events", &Event)
        .short("ev")
        .stored_as(Storage { group: "", version: "v1", resource: "events", from_stored, to_stored })
        .columns(event_columns())
        .select("regarding.kind", |e| text(&e["regarding"]["kind"]))
        .select("regarding.namespace", |e| text(&e["regarding"]["namespace"]))
        .select("regarding.name", |e| text(&e["regarding"]["name"]))
        .select("regarding.uid", |e| text(&e["regarding"]["uid"]))
        .select("regarding.apiVersion", |e| text(&e["regarding"]["apiVersion"]))
        .select("regarding.resourceVersion", |e| text(&e["regarding"]["resourceVersion"]))
        .select("regarding.fieldPath", |e| text(&e["regarding"]["fieldPath"]))
        .select("reason", |e| text(&e["reason"]))
        .select("reportingController", |e| text(&e["reportingController"]))
        .select("type", |e| text(&e["type"]))
}

fn text(value: &Value) -> Cow<'_, str> {
    value.as_str().unwrap_or_default().into()
}

fn rename(object: &mut Value, api_version: &str, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    map.insert("apiVersion".into(), api_version.into());
}

fn to_stored(object: &mut Value) {
    rename(object, "v1", NAMES.into_iter());
}

fn from_stored(object: &mut Value) {
    rename(object, "events.k8s.io/v1", NAMES.into_iter().map(|(here, core)| (core, here)));
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

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Update(old) = write {
            let fields = [
                "regarding",
                "reason",
                "reportingController",
                "reportingInstance",
                "action",
                "related",
                "note",
                "type",
                "eventTime",
            ];
            for field in fields {
                immutable(root.get(field), &old[field], &mut errors);
            }
            return errors;
        }
        required(root.get("eventTime"), &mut errors);
        let kind = root.get("type");
        if !matches!(kind.str(), "Normal" | "Warning") {
            errors.push(FieldError::invalid(kind.path(), "", &format!("has invalid value: {}", kind.str())));
        }
        for (field, _) in NAMES.iter().filter(|(field, _)| field.starts_with("deprecated")) {
            let view = root.get(field);
            let unset = view.is_empty() || view.int() == Some(0);
            if !unset {
                errors.push(view.invalid("needs to be unset"));
            }
        }
        let (regarding, metadata) = (root.get("regarding"), root.get("metadata"));
        let (own, theirs) = (metadata.get("namespace").str(), regarding.get("namespace"));
        let agrees = if theirs.is_empty() { matches!(own, "default" | "kube-system") } else { own == theirs.str() };
        if !agrees {
            errors.push(theirs.invalid_str("does not match event.namespace"));
        }
        validate_new_event(root, "reportingController", "note", &mut errors);
        errors
    }
}
