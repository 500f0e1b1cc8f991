//! ReplicationController

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Propagation, Strategy, Write};
use crate::kinds::apps::within_replicas;
use crate::kinds::core::workload_warnings;
use crate::kinds::mutate::{make, set, set_status};
use crate::kinds::pod_spec::{defaults, validate};
use crate::kinds::print::{age, containers, count, label_map, labels_text, workload_columns};
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::{View, non_negative, required};

pub(crate) fn kind() -> Kind {
    let mut columns = replica_columns();
    columns.pop();
    columns.push(
        Column::string("Selector", "The labels of the pods that belong to it.", |object, _| {
            label_map(&object["spec"]["selector"])
        })
        .wide(),
    );
    Kind::namespaced("", "v1", "ReplicationController", "replicationcontrollers", &ReplicationController)
        .short("rc")
        .category_all()
        .with_scale(|object| labels_text(&object["spec"]["selector"]))
        .with_status()
        .columns(columns)
        .select("status.replicas", |object| object["status"]["replicas"].as_i64().unwrap_or(0).to_string().into())
}

/// Columns of what keeps a number of pods running.
pub(crate) fn replica_columns() -> Vec<Column> {
    let mut columns = vec![
        Column::integer("Desired", "Pods wanted.", |object, _| count(&object["spec"]["replicas"])),
        Column::integer("Current", "Pods there are.", |object, _| count(&object["status"]["replicas"])),
        Column::integer("Ready", "Pods that are ready.", |object, _| count(&object["status"]["readyReplicas"])),
        age(),
    ];
    columns.extend(workload_columns());
    columns
}

#[derive(Debug)]
struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        let template_labels = object.get("spec").map(|spec| spec["template"]["metadata"]["labels"].clone());
        if let Some(own) = template_labels.filter(|l| l.as_object().is_some_and(|map| !map.is_empty())) {
            if let Some(spec) = make(object, "spec")
                && View::root(&spec.get("selector").cloned().unwrap_or_default()).is_empty()
            {
                spec.insert("selector".into(), own.clone());
            }
            if let Some(meta) = make(object, "metadata")
                && View::root(&meta.get("labels").cloned().unwrap_or_default()).is_empty()
            {
                meta.insert("labels".into(), own);
            }
        }
        let Some(spec) = make(object, "spec") else { return };
        set(spec, "replicas", 1);
        if let Some(template) = spec.get_mut("template") {
            defaults::template(template);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(object, write);
        if write == Write::Create {
            set_status(object, json!({"replicas": 0}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status) = (root.get("spec"), root.get("status"));
        if let Write::Subresource("status", _) = write {
            for field in
                ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
            {
                non_negative(status.get(field), &mut errors);
            }
            within_replicas(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], &mut errors);
            return errors;
        }
        non_negative(spec.get("minReadySeconds"), &mut errors);
        let selector = spec.get("selector");
        required(selector, &mut errors);
        non_negative(spec.get("replicas"), &mut errors);
        let template = spec.get("template");
        if !template.is_set() {
            errors.push(template.required(""));
            return errors;
        }
        let own = template.get("metadata");
        let own = own.get("labels");
        if !selector.is_empty()
            && LabelSelector::exact(selector.value).is_ok_and(|selector| !selector.matches(own.value))
        {
            errors.push(own.invalid("`selector` does not match template `labels`"));
        }
        validate::template(template, &mut errors);
        validate::always_restarts(template.get("spec"), "ReplicationController", &mut errors);
        errors
    }

    fn default_propagation(&self) -> Propagation {
        // As upstream, for clients of long ago.
        Propagation::Orphan
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        workload_warnings(object, write, "spec.template")
    }
}

/// `Containers` and `Images` of a bare template, and its labels: the columns of a PodTemplate.
pub(super) fn template_columns() -> Vec<Column> {
    vec![
        Column::string("Containers", "Names of each container in the template.", |object, _| {
            containers(&object["template"]["spec"], "name")
        }),
        Column::string("Images", "Images referenced by each container in the template.", |object, _| {
            containers(&object["template"]["spec"], "image")
        }),
        Column::string("Pod Labels", "Labels of the pods made from it.", |object, _| {
            label_map(&object["template"]["metadata"]["labels"])
        }),
    ]
}
