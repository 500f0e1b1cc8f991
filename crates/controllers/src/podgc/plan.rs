//! Which pods to remove, and why.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;

use crate::common::objects::{created, is_deleting};
use crate::common::pods;

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// There are too many finished pods, and this is one of the oldest.
    Terminated,
    /// Its node is gone.
    Orphaned,
    /// It was deleted before it had a node, so no kubelet will confirm.
    Unscheduled,
}

/// What to do about pods.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// By position in the list given.
    pub remove: Vec<(usize, Why)>,
    /// Nodes that pods name and that are not there; to be asked for before their pods go.
    pub missing_nodes: HashSet<String>,
}

/// Decides. `nodes` are the names of those there are; `gone` of those confirmed not to be. A `threshold` of 0 keeps all
/// finished pods.
pub fn plan(pods: &[&Pod], nodes: &HashSet<String>, gone: &HashSet<String>, threshold: usize) -> Plan {
    let mut plan = Plan::default();
    let mut finished: Vec<usize> = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        match pods::node(pod) {
            Some(node) if gone.contains(node) => {
                plan.remove.push((index, Why::Orphaned));
                continue;
            }
            Some(node) if !nodes.contains(node) => {
                plan.missing_nodes.insert(node.to_owned());
            }
            None if is_deleting(&pod.metadata) => {
                plan.remove.push((index, Why::Unscheduled));
                continue;
            }
            _ => {}
        }
        if pods::is_finished(pod) && !is_deleting(&pod.metadata) {
            finished.push(index);
        }
    }
    if threshold > 0 && finished.len() > threshold {
        finished.sort_by_key(|index| pods.get(*index).and_then(|pod| created(&pod.metadata)));
        let surplus = finished.len() - threshold;
        plan.remove.extend(finished.into_iter().take(surplus).map(|index| (index, Why::Terminated)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `phase node created`, `-` for none; `!` after the phase: being deleted.
    fn check(pods: &[&str], threshold: usize, expected: &[(usize, Why)], missing: &[&str]) {
        let pods: Vec<Pod> = pods
            .iter()
            .map(|text| {
                let words: Vec<_> = text.split(' ').collect();
                let (phase, node, second) = (words[0], words[1], words[2]);
                serde_json::from_value(json!({
                    "metadata": {"creationTimestamp": format!("2020-01-01T00:00:{second}Z"),
                        "deletionTimestamp": phase.ends_with('!').then_some("2021-01-01T00:00:00Z")},
                    "spec": {"nodeName": (node != "-").then_some(node), "containers": []},
                    "status": {"phase": phase.trim_end_matches('!')}
                }))
                .unwrap()
            })
            .collect();
        let pods: Vec<_> = pods.iter().collect();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        let plan = plan(&pods, &set(&["here"]), &set(&["gone"]), threshold);
        assert_eq!((plan.remove.as_slice(), plan.missing_nodes), (expected, set(missing)));
    }

    #[test]
    fn what_goes() {
        check(&["Running here 00", "Running gone 00", "Running lost 00"], 0, &[(1, Why::Orphaned)], &["lost"]);
        check(&["Pending! - 00", "Pending - 00", "Running! here 00"], 0, &[(0, Why::Unscheduled)], &[]);
        let finished = ["Failed here 05", "Succeeded here 01", "Running here 00", "Failed here 03"];
        check(&finished, 0, &[], &[]);
        check(&finished, 3, &[], &[]);
        check(&finished, 1, &[(1, Why::Terminated), (3, Why::Terminated)], &[]);
    }
}
