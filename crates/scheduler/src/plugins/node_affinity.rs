//! `nodeSelector` and node affinity.

use k8s_openapi::api::core::v1 as core;

use crate::cache::Cache;
use crate::framework::{Event, Plugin, PreFilter, Rejection, default_normalize};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `NodeAffinity`
#[derive(Debug)]
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged { labels: true, .. })
    }

    fn pre_filter(&self, pod: &PodInfo, _: &Cache) -> Result<PreFilter, Rejection> {
        let Some(required) = required(pod) else {
            return Ok(if pod.node_selector.is_empty() { PreFilter::Skip } else { PreFilter::All });
        };
        // DaemonSet pods name their node in every term: no need to look at the others.
        let mut names: Vec<String> = Vec::new();
        for term in &required.node_selector_terms {
            let one = term.match_fields.iter().flatten().find(|r| r.key == "metadata.name" && r.operator == "In");
            match one.and_then(|r| r.values.as_ref()) {
                Some(values) => names.extend(values.iter().cloned()),
                None => return Ok(PreFilter::All),
            }
        }
        if names.is_empty() { Ok(PreFilter::All) } else { Ok(PreFilter::Only(names)) }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
        if selected && required(pod).is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, node))) {
            Ok(())
        } else {
            Err(Rejection::new("node(s) didn't match Pod's node affinity/selector"))
        }
    }

    fn scores(&self, pod: &PodInfo) -> bool {
        preferred(pod).next().is_some()
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Cache) -> i64 {
        preferred(pod).filter(|term| matches(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}

fn required(pod: &PodInfo) -> Option<&core::NodeSelector> {
    pod.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
}

fn preferred(pod: &PodInfo) -> impl Iterator<Item = &core::PreferredSchedulingTerm> {
    let terms =
        pod.node_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().filter(|term| term.weight != 0)
}

/// Whether a term matches; one without any requirement matches nothing.
fn matches(term: &core::NodeSelectorTerm, node: &NodeInfo) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    if labels.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    labels
        .map(|r| (r, node.labels.get(&r.key).map(String::as_str)))
        .chain(fields.map(|r| (r, (r.key == "metadata.name").then_some(node.name.as_str()))))
        .all(|(requirement, value)| holds(requirement, value))
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
