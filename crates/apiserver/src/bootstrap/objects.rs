//! Namespaces, priority classes, and the Service through which pods reach the API server.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use super::{Reconcile, Wanted};
use crate::Config;

/// The namespaces of every cluster.
pub(super) fn namespaces() -> Vec<Wanted> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| {
            let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
            Wanted { group: "", resource: "namespaces", object, reconcile: Reconcile::Keep }
        })
        .collect()
}

/// Everything else.
pub(super) fn others() -> Vec<Wanted> {
    [
        ("system-node-critical", 2_000_001_000_i64, "Used for system critical pods that must not be moved from their current node."),
        ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    ]
    .into_iter()
    .map(|(name, value, description)| {
        let object = json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": value, "description": description,
        });
        Wanted { group: "scheduling.k8s.io", resource: "priorityclasses", object, reconcile: Reconcile::Keep }
    })
    .collect()
}

/// The first address of the range.
fn first_address(cidr: &IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).wrapping_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).wrapping_add(1).into()),
    }
}

/// The Service through which pods reach the API server.
pub(super) fn kubernetes_service(config: &Config) -> Wanted {
    let service = json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": first_address(&config.service_cidr).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.advertise_port}],
            "sessionAffinity": "None",
        },
    });
    Wanted { group: "", resource: "services", object: service, reconcile: Reconcile::Keep }
}
