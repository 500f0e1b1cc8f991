//! Keeps pods off cordoned nodes.

use k8s_openapi::api::core::v1 as core;

use super::tolerated;
use crate::framework::{Event, Plugin, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `NodeUnschedulable`
#[derive(Debug)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged { taints: true, .. })
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.unschedulable {
            return Ok(());
        }
        let taint = core::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..core::Taint::default()
        };
        if tolerated(&pod.tolerations, &taint) { Ok(()) } else { Err(Rejection::new("node(s) were unschedulable")) }
    }
}
