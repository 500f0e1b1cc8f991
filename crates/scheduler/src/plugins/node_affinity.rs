//! `nodeSelector` and node affinity.

use k8s_openapi::api::core::v1 as core;
use keelson_api::placement;

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

fn matches(term: &core::NodeSelectorTerm, node: &NodeInfo) -> bool {
    placement::matches(term, &node.name, |key| node.labels.get(key).map(String::as_str))
}
