//! Namespace

use serde_json::{Value, json};

use crate::kind::{Column, Kind, NameRule, Strategy, Verb, Write};
use crate::kinds::mutate::{make, set, set_str};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items, or};
use crate::status::FieldError;
use crate::validation::{View, checked, meta, names};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "Namespace", "namespaces", &Namespace)
        .short("ns")
        .verbs(&[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch])
        .sub("finalize", &[Verb::Update])
        .with_status()
        .columns(vec![
            Column::string("Status", "Active, or Terminating.", |object, _| or(&object["status"]["phase"], "")),
            age(),
        ])
        .select("status.phase", |object| object["status"]["phase"].as_str().unwrap_or_default().into())
        .select("name", |object| object["metadata"]["name"].as_str().unwrap_or_default().into())
}

#[derive(Debug)]
struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        if let Some(meta) = make(object, "metadata") {
            let name = meta.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
            if let (false, Some(labels)) = (name.is_empty(), make(meta, "labels")) {
                labels.insert(NAME_LABEL.into(), name.into());
            }
        }
        set(object, "spec", json!({}));
        if let Some(status) = make(object, "status") {
            set_str(status, "phase", "Active");
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        // The name may just have been generated.
        self.default(object);
        let Some(map) = object.as_object_mut() else { return };
        match write {
            Write::Create => {
                map.insert("status".into(), json!({"phase": "Active"}));
                let Some(spec) = make(map, "spec") else { return };
                set(spec, "finalizers", json!([]));
                if let Some(finalizers) = spec.get_mut("finalizers").and_then(Value::as_array_mut)
                    && !finalizers.iter().any(|f| f == "kubernetes")
                {
                    finalizers.push("kubernetes".into());
                }
            }
            // Finalizers go through their own subresource only.
            Write::Update(old) => drop(map.insert("spec".into(), old.get("spec").cloned().unwrap_or_default())),
            Write::Subresource("finalize", old) => {
                map.insert("status".into(), old.get("status").cloned().unwrap_or_default());
            }
            Write::Subresource(..) => {}
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource("status", _) = write {
            let phase = &object["status"]["phase"];
            let deleted = object["metadata"]["deletionTimestamp"].is_string();
            let fault = |detail: &str| FieldError::invalid("status.Phase", phase.clone(), detail);
            match (deleted, phase.as_str()) {
                (false, Some("Active")) | (true, Some("Terminating")) => {}
                (false, _) => errors.push(fault("may only be 'Active' if `deletionTimestamp` is empty")),
                (true, _) => errors.push(fault("may only be 'Terminating' if `deletionTimestamp` is not empty")),
            }
            return errors;
        }
        let spec = root.get("spec");
        for finalizer in spec.get("finalizers").items() {
            checked(finalizer, names::qualified, &mut errors);
            meta::validate_kubernetes_finalizer(finalizer, &mut errors);
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn mark_deleted(&self, object: &mut Value) {
        if let Some(status) = object.as_object_mut().and_then(|object| make(object, "status")) {
            status.insert("phase".into(), "Terminating".into());
        }
    }

    fn held(&self, object: &Value) -> bool {
        items(&object["spec"]["finalizers"]).len() > 0
    }
}
