//! Taints of nodes and tolerations of pods.

use k8s_openapi::api::core::v1 as core;

use super::tolerated;
use crate::cache::Cache;
use crate::framework::{Event, Plugin, Rejection, default_normalize};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `TaintToleration`
#[derive(Debug)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged { taints: true, .. })
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let hard = |taint: &&core::Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        if node.taints.iter().filter(hard).all(|taint| tolerated(&pod.tolerations, taint)) {
            Ok(())
        } else {
            Err(Rejection::new("node(s) had untolerated taint(s)"))
        }
    }

    fn scores(&self, _: &PodInfo) -> bool {
        true
    }

    /// Taints that would rather not have the pod; turned round by `normalize`.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Cache) -> i64 {
        let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let untolerated = soft.filter(|taint| !tolerated(&pod.tolerations, taint)).count();
        i64::try_from(untolerated).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}
