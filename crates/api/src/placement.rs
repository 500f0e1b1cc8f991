//! Which nodes a pod may be on: node selectors, required node affinity, taints and tolerations. Asked by the scheduler, by
//! whoever evicts from tainted nodes, and by kubelets of pods that come to them.

use k8s_openapi::api::core::v1 as core;

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &core::Toleration, taint: &core::Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

/// Whether a term of a node selector matches the node of this name, whose labels `label` gives by their keys. A term
/// without any requirement matches nothing.
pub fn matches<'a>(term: &core::NodeSelectorTerm, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    if labels.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    labels
        .map(|requirement| (requirement, label(&requirement.key)))
        .chain(fields.map(|requirement| (requirement, (requirement.key == "metadata.name").then_some(name))))
        .all(|(requirement, value)| holds(requirement, value))
}

/// Whether a pod's `nodeSelector` and required node affinity allow the node of this name.
pub fn selects<'a>(spec: &core::PodSpec, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, name, &label)))
}

fn holds(requirement: &core::NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let compare = |wanted: std::cmp::Ordering| {
        let (Some(have), Some(than)) = (value.and_then(number), values.first().and_then(|v| number(v))) else {
            return false;
        };
        have.cmp(&than) == wanted
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        for (operator, values, value, expected) in [
            ("In", vec!["a", "b"], Some("b"), true),
            ("In", vec!["a"], None, false),
            ("NotIn", vec!["a"], Some("a"), false),
            ("NotIn", vec!["a"], None, true),
            ("Exists", vec![], Some(""), true),
            ("DoesNotExist", vec![], None, true),
            ("DoesNotExist", vec![], Some("x"), false),
            ("Gt", vec!["5"], Some("6"), true),
            ("Gt", vec!["5"], Some("5"), false),
            ("Gt", vec!["5"], Some("x"), false),
            ("Lt", vec!["5"], Some("-6"), true),
            ("Lt", vec!["5"], None, false),
            ("Bad", vec!["5"], Some("5"), false),
        ] {
            let requirement = core::NodeSelectorRequirement {
                key: "k".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_string()).collect()),
            };
            assert_eq!(holds(&requirement, value), expected, "{operator} {values:?} {value:?}");
        }
    }
}
