//! `matchLabelKeys` and `mismatchLabelKeys`: label keys whose values come from the pod itself. A new pod's selectors get
//! them here, once; from then on only the selectors count.

use serde_json::{Value, json};

use crate::kinds::mutate::{Object, child, each, make, set};

/// Puts the pod's own values into the selectors of its affinity terms and spread constraints.
pub(super) fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.as_object_mut().and_then(|pod| child(pod, "spec")) else { return };
    each(spec, "topologySpreadConstraints").for_each(|constraint| merge(constraint, &labels));
    let Some(affinity) = child(spec, "affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = child(affinity, kind) else { continue };
        each(terms, "requiredDuringSchedulingIgnoredDuringExecution").for_each(|term| merge(term, &labels));
        for preferred in each(terms, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = child(preferred, "podAffinityTerm") {
                merge(term, &labels);
            }
        }
    }
}

fn merge(term: &mut Object, labels: &Value) {
    if !term.get("labelSelector").is_some_and(Value::is_object) {
        return;
    }
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let known = keys.iter().filter_map(|key| Some((key, labels.get(key.as_str()?)?)));
        let requirements: Vec<_> =
            known.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect();
        if requirements.is_empty() {
            continue;
        }
        if let Some(selector) = make(term, "labelSelector") {
            set(selector, "matchExpressions", json!([]));
            if let Some(expressions) = selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
                expressions.extend(requirements);
            }
        }
    }
}
