//! Affinity, tolerations, spread constraints and scheduling gates.

use std::collections::HashSet;

use serde_json::Value;

use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of, required};

/// `affinity`
pub(super) fn affinity(affinity: View, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let selector = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if selector.is_set() {
        node_selector(selector, errors);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(term.get("weight"), errors);
        node_selector_term(term.get("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(term, errors);
        }
        for preferred in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(preferred.get("weight"), errors);
            pod_term(preferred.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: View, errors: &mut Errors) {
    let n = weight.int().unwrap_or(0);
    if !(1..=100).contains(&n) {
        errors.push(FieldError::invalid(weight.path(), n, "must be in the range 1-100"));
    }
}

/// A `NodeSelector`.
pub(in crate::kinds) fn node_selector(selector: View, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        node_selector_term(term, errors);
        for requirement in term.get("matchExpressions").items() {
            for value in requirement.get("values").items() {
                checked(value, names::label_value, errors);
            }
        }
    }
}

fn node_selector_term(term: View, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        node_requirement(requirement, errors);
        checked(requirement.get("key"), names::qualified, errors);
    }
    for requirement in term.get("matchFields").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        if !matches!(operator.str(), "In" | "NotIn") {
            errors.push(operator.invalid_str("not a valid selector operator"));
        } else if values.len() != 1 {
            errors.push(
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            );
        }
        if key.str() != "metadata.name" {
            errors.push(key.invalid_str("not a valid field selector key"));
        } else {
            for value in values.items() {
                checked(value, names::subdomain, errors);
            }
        }
    }
}

/// What to say about a node label that has a new name.
pub(in crate::kinds) fn renamed_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        _ => return None,
    })
}

/// Warnings about labels in a node selector term that have new names.
pub(in crate::kinds) fn selector_label_warnings(term: View) -> Vec<String> {
    let mut warnings = Vec::new();
    for requirement in term.get("matchExpressions").items() {
        let key = requirement.get("key");
        if let Some(message) = renamed_label(key.str()) {
            warnings.push(format!("{}: {} is {message}", key.path(), key.str()));
        }
    }
    warnings
}

fn node_requirement(requirement: View, errors: &mut Errors) {
    let (operator, values) = (requirement.get("operator"), requirement.get("values"));
    match operator.str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.push(operator.invalid_str("not a valid selector operator")),
    }
}

fn pod_term(term: View, errors: &mut Errors) {
    labels::validate_selector(term.get("labelSelector"), errors);
    labels::validate_selector(term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        // Upstream reports these at a field of its own.
        checked(term.get("namespace").with(namespace.value), names::label, errors);
    }
    for (own, other) in [("matchLabelKeys", "mismatchLabelKeys"), ("mismatchLabelKeys", "matchLabelKeys")] {
        label_keys(term, own, Some(other).filter(|_| own == "matchLabelKeys"), errors);
    }
    let key = term.get("topologyKey");
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    checked(key, names::qualified, errors);
}

/// Labels whose values the API server takes from the pod itself (see [`crate::kinds::core`]).
fn label_keys(term: View, field: &'static str, other: Option<&'static str>, errors: &mut Errors) {
    let keys = term.get(field);
    if keys.is_empty() {
        return;
    }
    if !term.get("labelSelector").is_set() {
        errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
    }
    let others = other.map(|other| term.get(other).items().map(|key| key.str()).collect::<HashSet<_>>());
    for key in keys.items() {
        checked(key, names::qualified, errors);
        if others.as_ref().is_some_and(|others| others.contains(key.str())) {
            errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

/// `tolerations`
pub(crate) fn tolerations(tolerations: View, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, value) = (toleration.get("key"), toleration.get("operator"), toleration.get("value"));
        if key.is_empty() {
            if operator.str() != "Exists" {
                let detail =
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                errors.push(operator.invalid_str(detail));
            }
        } else {
            checked(key, names::qualified, errors);
        }
        let effect = toleration.get("effect");
        if toleration.get("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            errors.push(effect.invalid_str("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator.str() {
            "" | "Equal" => {
                let complaints = names::label_value(value.str());
                errors.extend(complaints.iter().map(|c| FieldError::invalid(operator.path(), value.str(), c)));
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(operator.path(), value.str(), detail));
            }
            "Exists" => {}
            _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
    }
}

/// `topologySpreadConstraints`
pub(super) fn spread_constraints(constraints: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            errors.push(FieldError::invalid(skew.path(), skew.int().unwrap_or(0), "must be greater than zero"));
        }
        let key = constraint.get("topologyKey");
        if key.is_empty() {
            errors.push(key.required("can not be empty"));
        } else {
            checked(key, names::qualified, errors);
        }
        let action = constraint.get("whenUnsatisfiable");
        one_of(action, &["DoNotSchedule", "ScheduleAnyway"], errors);
        if !seen.insert((key.str(), action.str())) {
            let pair = format!("{{{}, {}}}", key.str(), action.str());
            errors
                .push(FieldError::duplicate(format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path()), pair));
        }
        let domains = constraint.get("minDomains");
        if domains.int().is_some_and(|n| n <= 0) {
            errors.push(domains.invalid("must be greater than zero"));
        }
        if domains.is_set() && action.str() != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
            errors.push(domains.invalid(&detail));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.get(policy).is_set() {
                one_of(constraint.get(policy), &["Honor", "Ignore"], errors);
            }
        }
        label_keys(constraint, "matchLabelKeys", None, errors);
        labels::validate_selector(constraint.get("labelSelector"), errors);
    }
}

/// `schedulingGates`
pub(super) fn gates(gates: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for gate in gates.items() {
        let name = gate.get("name");
        let complaints = names::qualified(name.str());
        errors.extend(complaints.iter().map(|complaint| FieldError::invalid(gate.path(), name.str(), complaint)));
        if !seen.insert(name.str()) {
            errors.push(FieldError::duplicate(gate.path(), name.str()));
        }
    }
}

/// `resourceClaims`
pub(super) fn resource_claims(claims: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if required(name, errors) {
            if seen.insert(name.str()) {
                checked(name, names::label, errors);
            } else {
                errors.push(name.duplicate());
            }
        }
        let sources = [claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")];
        let [one, template] = sources;
        let shown = || {
            format!(
                r#"{{"Name":{},"ResourceClaimName":{},"ResourceClaimTemplateName":{}}}"#,
                Value::from(name.str()),
                one.value,
                template.value
            )
        };
        let mut wrong = |detail: &str| {
            errors.push(FieldError::of_struct("FieldValueInvalid", claim.path(), &shown(), detail));
        };
        match (one.is_set(), template.is_set()) {
            (true, true) => {
                wrong("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
            }
            (false, false) => wrong("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        for source in sources.iter().filter(|source| source.is_set()) {
            checked(*source, names::subdomain, errors);
        }
    }
}
