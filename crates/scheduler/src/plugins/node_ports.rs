//! One host port, one pod.

use crate::cache::Cache;
use crate::framework::{Event, Plugin, PreFilter, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `NodePorts`
#[derive(Debug)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        matches!(event, Event::NodeAdded | Event::PodDeleted)
    }

    fn pre_filter(&self, pod: &PodInfo, _: &Cache) -> Result<PreFilter, Rejection> {
        Ok(if pod.host_ports.is_empty() { PreFilter::Skip } else { PreFilter::All })
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = pod.host_ports.iter().any(|port| node.used_ports.iter().any(|used| used.conflicts(port)));
        if taken { Err(Rejection::new("node(s) didn't have free ports for the requested pod ports")) } else { Ok(()) }
    }
}
