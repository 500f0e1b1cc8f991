//! DaemonSet

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::core::workload_warnings;
use crate::kinds::mutate::{Rules, make, prepare, set, set_str};
use crate::kinds::pod_spec::{defaults, validate};
use crate::kinds::print::{age, count, label_map, workload_columns};
use crate::kinds::{int_or_percent, mutate};
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::{Errors, View, immutable, labels, non_negative, same_as};

#[cfg(test)]
mod tests;

/// Counts changes of the template. Upstream keeps it for clients of long ago; the API server alone writes it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) fn kind() -> Kind {
    let mut columns = vec![
        Column::integer("Desired", "Nodes that should run a pod.", |object, _| {
            count(&object["status"]["desiredNumberScheduled"])
        }),
        Column::integer("Current", "Nodes that should run a pod and do.", |object, _| {
            count(&object["status"]["currentNumberScheduled"])
        }),
        Column::integer("Ready", "Nodes whose pod is ready.", |object, _| count(&object["status"]["numberReady"])),
        Column::integer("Up-to-date", "Nodes whose pod is of the present template.", |object, _| {
            count(&object["status"]["updatedNumberScheduled"])
        }),
        Column::integer("Available", "Nodes whose pod is ready for at least minReadySeconds.", |object, _| {
            count(&object["status"]["numberAvailable"])
        }),
        Column::string("Node Selector", "The labels of the nodes that run a pod.", |object, _| {
            label_map(&object["spec"]["template"]["spec"]["nodeSelector"])
        }),
        age(),
    ];
    columns.extend(workload_columns());
    Kind::namespaced("apps", "v1", "DaemonSet", "daemonsets", &DaemonSet)
        .short("ds")
        .category_all()
        .with_status()
        .columns(columns)
}

#[derive(Debug)]
struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = make(spec, "updateStrategy") {
            set_str(strategy, "type", "RollingUpdate");
            if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate")
                && let Some(rolling) = make(strategy, "rollingUpdate")
            {
                set(rolling, "maxUnavailable", 1);
                set(rolling, "maxSurge", 0);
            }
        }
        if let Some(template) = spec.get_mut("template") {
            defaults::template(template);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write, Rules { generation: true, create_with_status: false });
        let generation = match write {
            Write::Create => {
                let zero = json!({
                    "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
                });
                mutate::set_status(object, zero);
                template_generation(object).max(1)
            }
            Write::Update(old) => {
                let [new, old_template] = [&*object, old].map(|object| &object["spec"]["template"]);
                let changed = !same_as("api.core.v1.PodTemplateSpec", new, old_template);
                template_generation(old).saturating_add(changed.into())
            }
            Write::Subresource(_, old) => template_generation(old),
        };
        if let Some(annotations) = mutate::metadata_map(object, "annotations") {
            annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
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
        let (selector, template) = (spec.get("selector"), spec.get("template"));
        labels::validate_selector(selector, &mut errors);
        let (metadata, pod) = (template.get("metadata"), template.get("spec"));
        let own = metadata.get("labels");
        if LabelSelector::from_json(Some(selector.value)).is_ok_and(|parsed| !parsed.matches(own.value)) {
            errors.push(own.invalid("`selector` does not match template `labels`"));
        }
        if selector.is_set() && labels::is_empty(selector.value) {
            errors.push(selector.invalid("empty selector is invalid for daemonset"));
        }
        validate::template(template, &mut errors);
        validate::always_restarts(pod, "DaemonSet", &mut errors);
        non_negative(spec.get("minReadySeconds"), &mut errors);
        update_strategy(spec.get("updateStrategy"), &mut errors);
        non_negative(spec.get("revisionHistoryLimit"), &mut errors);
        if let Write::Update(old) = write {
            immutable(selector, &old["spec"]["selector"], &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        workload_warnings(object, write, "spec.template")
    }
}

fn template_generation(object: &Value) -> i64 {
    let text = object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn update_strategy(strategy: View, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => errors.push(rolling.required("")),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent::validate(unavailable, errors);
            int_or_percent::validate(surge, errors);
            int_or_percent::at_most_all(unavailable, errors);
            int_or_percent::at_most_all(surge, errors);
            match (int_or_percent::amount(unavailable), int_or_percent::amount(surge)) {
                (0, 0) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                (0, _) | (_, 0) => {}
                _ => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
            }
        }
        _ => errors.push(super::unknown_strategy(strategy, &["RollingUpdate", "OnDelete"])),
    }
}

fn validate_status(status: View, old: &Value, errors: &mut Errors) {
    let fields = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    for field in fields {
        non_negative(status.get(field), errors);
    }
    super::collisions(status, old, errors);
}
