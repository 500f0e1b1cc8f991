//! The plugins, one file each, and the profile that upstream has by default (as far as its plugins exist here).

mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

pub use image_locality::ImageLocality;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources::{BalancedAllocation, Fit, ScoringStrategy};
pub use node_unschedulable::NodeUnschedulable;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;

use k8s_openapi::api::core::v1 as core;

use crate::framework::{Plugin, Profile, Weighted};

/// Upstream's default profile, in its order and with its weights.
pub fn default_profile(scheduler_name: &str, scoring: ScoringStrategy) -> Profile {
    fn weighted(weight: i64, plugin: impl Plugin + 'static) -> Weighted {
        Weighted { plugin: Box::new(plugin), weight }
    }
    Profile {
        scheduler_name: scheduler_name.into(),
        plugins: vec![
            weighted(0, SchedulingGates),
            weighted(0, NodeUnschedulable),
            weighted(0, NodeName),
            weighted(3, TaintToleration),
            weighted(2, NodeAffinity),
            weighted(0, NodePorts),
            weighted(1, Fit(scoring)),
            weighted(1, BalancedAllocation),
            weighted(1, ImageLocality),
        ],
    }
}

/// Whether any of `tolerations` covers `taint`.
fn tolerated(tolerations: &[core::Toleration], taint: &core::Taint) -> bool {
    tolerations.iter().any(|toleration| keelson_api::placement::tolerates(toleration, taint))
}
