//! Deployment

use serde_json::{Value, json};

use crate::apply::Reset;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::core::workload_warnings;
use crate::kinds::int_or_percent;
use crate::kinds::mutate::{Rules, make, prepare, set, set_str};
use crate::kinds::pod_spec::{defaults, validate::controller_template};
use crate::kinds::print::{age, count, selector_text, workload_columns};
use crate::status::FieldError;
use crate::validation::{Errors, View, immutable, labels, non_negative, same};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    let mut columns = vec![
        Column::string("Ready", "Pods that are ready, of those wanted.", |object, _| {
            let (ready, wanted) = (count(&object["status"]["readyReplicas"]), count(&object["spec"]["replicas"]));
            format!("{ready}/{wanted}").into()
        }),
        Column::string("Up-to-date", "Pods made from the present template.", |object, _| {
            count(&object["status"]["updatedReplicas"])
        }),
        Column::string("Available", "Pods ready for at least minReadySeconds.", |object, _| {
            count(&object["status"]["availableReplicas"])
        }),
        age(),
    ];
    columns.extend(workload_columns());
    Kind::namespaced("apps", "v1", "Deployment", "deployments", &Deployment)
        .short("deploy")
        .category_all()
        .with_scale(|object| selector_text(&object["spec"]["selector"]))
        .with_status()
        .columns(columns)
}

#[derive(Debug)]
struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "replicas", 1);
        set(spec, "revisionHistoryLimit", 10);
        set(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = make(spec, "strategy") {
            set_str(strategy, "type", "RollingUpdate");
            if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate")
                && let Some(rolling) = make(strategy, "rollingUpdate")
            {
                set(rolling, "maxUnavailable", "25%");
                set(rolling, "maxSurge", "25%");
            }
        }
        if let Some(template) = spec.get_mut("template") {
            defaults::template(template);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write, Rules { generation: true, create_with_status: false });
        let Some(meta) = object.as_object_mut().and_then(|object| make(object, "metadata")) else { return };
        match write {
            Write::Update(old) => {
                // Annotations count too: they reach the replica sets.
                let annotations = meta.get("annotations").cloned().unwrap_or_default();
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
                if !same(&annotations, &old["metadata"]["annotations"]) {
                    meta.insert("generation".into(), json!(generation.saturating_add(1)));
                }
            }
            Write::Subresource("status", old) => match old["metadata"].get("labels") {
                Some(labels) => drop(meta.insert("labels".into(), labels.clone())),
                None => drop(meta.remove("labels")),
            },
            _ => {}
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource("status", old) = write {
            validate_status(root.get("status"), &old["status"], &mut errors);
            return errors;
        }
        let spec = root.get("spec");
        non_negative(spec.get("replicas"), &mut errors);
        let selector = spec.get("selector");
        labels::validate_required_selector(selector, "deployment", &mut errors);
        controller_template(spec.get("template"), selector, &mut errors);
        strategy(spec.get("strategy"), &mut errors);
        for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            non_negative(spec.get(field), &mut errors);
        }
        let deadline = spec.get("progressDeadlineSeconds");
        if deadline.int().is_some_and(|n| n <= spec.get("minReadySeconds").int().unwrap_or(0)) {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
        if let Write::Update(old) = write {
            immutable(selector, &old["spec"]["selector"], &mut errors);
        }
        errors
    }

    fn reset_fields(&self, subresource: &str) -> Option<Reset> {
        (subresource == "status").then_some(Reset::Fields(&[&["f:spec"], &["f:metadata", "f:labels"]]))
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        workload_warnings(object, write, "spec.template")
    }
}

fn strategy(strategy: View, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "Recreate" if rolling.is_set() => {
            errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            errors.push(rolling.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => rolling_update(rolling, errors),
        _ => errors.push(super::unknown_strategy(strategy, &["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(rolling: View, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    int_or_percent::validate(unavailable, errors);
    int_or_percent::validate(surge, errors);
    if int_or_percent::amount(unavailable) == 0 && int_or_percent::amount(surge) == 0 {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    int_or_percent::at_most_all(unavailable, errors);
}

fn validate_status(status: View, old: &Value, errors: &mut Errors) {
    let fields = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ];
    for field in fields {
        non_negative(status.get(field), errors);
    }
    super::within_replicas(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
    super::collisions(status, old, errors);
}
