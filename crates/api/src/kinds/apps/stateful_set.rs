//! StatefulSet

use serde_json::{Value, json};

use crate::kind::{Column, Kind, NameRule, Strategy, Write};
use crate::kinds::core::{persistent_volume_claim as claim, workload_warnings};
use crate::kinds::int_or_percent;
use crate::kinds::mutate::{Rules, each, make, prepare, set, set_status, set_str};
use crate::kinds::pod_spec::{defaults, validate};
use crate::kinds::print::{age, count, items, selector_text, workload_columns};
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, non_negative, one_of, required, same_as};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    let [containers, images, _] = workload_columns();
    let columns = vec![
        Column::string("Ready", "Pods that are ready, of those wanted.", |object, _| {
            let (ready, wanted) = (count(&object["status"]["readyReplicas"]), count(&object["spec"]["replicas"]));
            format!("{ready}/{wanted}").into()
        }),
        age(),
        containers,
        images,
    ];
    Kind::namespaced("apps", "v1", "StatefulSet", "statefulsets", &StatefulSet)
        .short("sts")
        .category_all()
        .with_scale(|object| selector_text(&object["spec"]["selector"]))
        .with_status()
        .columns(columns)
}

#[derive(Debug)]
struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set_str(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = make(spec, "updateStrategy") {
            set_str(strategy, "type", "RollingUpdate");
            if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate")
                && let Some(rolling) = make(strategy, "rollingUpdate")
            {
                set(rolling, "partition", 0);
                set(rolling, "maxUnavailable", 1);
            }
        }
        if let Some(policy) = make(spec, "persistentVolumeClaimRetentionPolicy") {
            set_str(policy, "whenDeleted", "Retain");
            set_str(policy, "whenScaled", "Retain");
        }
        set(spec, "replicas", 1);
        set(spec, "revisionHistoryLimit", 10);
        if let Some(template) = spec.get_mut("template") {
            defaults::template(template);
        }
        for template in each(spec, "volumeClaimTemplates") {
            // Upstream names their type for the sake of clients that compare.
            set_str(template, "apiVersion", "v1");
            set_str(template, "kind", "PersistentVolumeClaim");
            set(template, "metadata", json!({}));
            claim::defaults(template);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write, Rules { generation: true, create_with_status: false });
        if write == Write::Create {
            set_status(object, json!({"replicas": 0}));
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
        let old = match write {
            Write::Update(old) | Write::Subresource(_, old) => Some(&old["spec"]),
            Write::Create => None,
        };
        validate_spec(spec, old, &mut errors);
        if let Some(old) = old
            && !same_as("api.apps.v1.StatefulSetSpec", &frozen(spec.value), &frozen(old))
        {
            errors.push(spec.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        let mut warnings = workload_warnings(object, write, "spec.template");
        if matches!(write, Write::Subresource(..)) {
            return warnings;
        }
        let spec = View::at("spec", &object["spec"]);
        for template in spec.get("volumeClaimTemplates").items() {
            warnings.extend(claim::spec_warnings(template.get("spec")));
        }
        warnings
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }
}

/// The spec without what an update may change.
fn frozen(spec: &Value) -> Value {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let kept = spec.as_object().into_iter().flatten().filter(|(key, _)| !MUTABLE.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn validate_spec(spec: View, old: Option<&Value>, errors: &mut Errors) {
    let policy = spec.get("podManagementPolicy");
    match policy.str() {
        "" => errors.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(spec.get("updateStrategy"), errors);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        one_of(retention.get("whenDeleted"), &["Retain", "Delete"], errors);
        one_of(retention.get("whenScaled"), &["Retain", "Delete"], errors);
    }
    if old.is_none() {
        for template in spec.get("volumeClaimTemplates").items() {
            claim::validate_spec(template.get("spec"), errors);
        }
    }
    non_negative(spec.get("replicas"), errors);
    non_negative(spec.get("minReadySeconds"), errors);
    non_negative(spec.get("ordinals").get("start"), errors);
    let service = spec.get("serviceName");
    if old.is_none() && !service.is_empty() {
        checked(service, names::label, errors);
    }
    let selector = spec.get("selector");
    if required_selector(selector, errors) {
        template(spec, selector, old, errors);
    }
}

/// Whether the selector can be compared with labels.
fn required_selector(selector: View, errors: &mut Errors) -> bool {
    if !selector.is_set() {
        required(selector, errors);
        return true;
    }
    labels::validate_selector(selector, errors);
    if labels::is_empty(selector.value) {
        errors.push(selector.invalid("empty selector is invalid for statefulset"));
    }
    let parses = LabelSelector::from_json(Some(selector.value)).is_ok();
    if !parses {
        errors.push(selector.invalid(""));
    }
    parses
}

fn template(spec: View, selector: View, old: Option<&Value>, errors: &mut Errors) {
    let template = spec.get("template");
    let metadata = template.get("metadata");
    let own = metadata.get("labels");
    if selector.is_set()
        && LabelSelector::from_json(Some(selector.value)).is_ok_and(|parsed| !parsed.matches(own.value))
    {
        errors.push(own.invalid("`selector` does not match template `labels`"));
    }
    // A template that was let in when less was checked stays.
    let mut before = Vec::new();
    if let Some(old) = old {
        pod_template(old, &mut before);
    }
    if before.is_empty() {
        pod_template(spec.value, errors);
    }
    validate::always_restarts(template.get("spec"), "StatefulSet", errors);
}

/// The pod template, to which each claim template brings a volume.
fn pod_template(spec: &Value, errors: &mut Errors) {
    let mut template = spec["template"].clone();
    let claims = items(&spec["volumeClaimTemplates"]).map(|claim| claim["metadata"]["name"].clone());
    if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
        set(pod, "volumes", json!([]));
        if let Some(volumes) = pod.get_mut("volumes").and_then(Value::as_array_mut) {
            for name in claims {
                volumes.retain(|volume| volume["name"] != name);
                volumes.push(json!({"name": name, "emptyDir": {}}));
            }
        }
    }
    validate::template(View::at("spec.template", &template), errors);
}

fn update_strategy(strategy: View, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "" => errors.push(strategy.required("")),
        "OnDelete" if rolling.is_set() => {
            let shown = super::shown_strategy(strategy, &["partition", "maxUnavailable"]);
            let shown = shown.split_once(r#""RollingUpdate":"#).map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::of_struct("FieldValueInvalid", rolling.path(), &format!("{shown}}}"), detail));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            non_negative(rolling.get("partition"), errors);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_set() {
                int_or_percent::validate(unavailable, errors);
                if int_or_percent::amount(unavailable) == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                int_or_percent::at_most_all(unavailable, errors);
            }
        }
        _ => {
            let shown = super::shown_strategy(strategy, &["partition", "maxUnavailable"]);
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::of_struct("FieldValueInvalid", strategy.path(), &shown, detail));
        }
    }
}

fn validate_status(status: View, old: &Value, errors: &mut Errors) {
    let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for field in ["replicas"].iter().chain(&counts).chain(&["observedGeneration"]) {
        non_negative(status.get(field), errors);
    }
    super::collisions(status, old, errors);
    let replicas = status.get("replicas").int().unwrap_or(0);
    for field in counts {
        if status.get(field).int().unwrap_or(0) > replicas {
            errors.push(status.get(field).invalid("cannot be greater than status.replicas"));
        }
    }
    let (available, ready) = (status.get("availableReplicas"), status.get("readyReplicas"));
    if available.int().unwrap_or(0) > ready.int().unwrap_or(0) {
        errors.push(available.invalid("cannot be greater than status.readyReplicas"));
    }
}
