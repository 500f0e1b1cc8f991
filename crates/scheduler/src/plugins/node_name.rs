//! For pods that name their node in `spec.nodeName` and are scheduled all the same (they are not, but a pod may be bound
//! while it waits).

use crate::framework::{Event, Plugin, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `NodeName`
#[derive(Debug)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        event == Event::NodeAdded
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match &pod.node_name {
            Some(name) if *name != node.name => Err(Rejection::new("node(s) didn't match the requested node name")),
            _ => Ok(()),
        }
    }
}
