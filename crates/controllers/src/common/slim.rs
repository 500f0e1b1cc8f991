//! What the shared informers drop: fields that no controller here reads. Objects are written by difference
//! ([`super::patch`]), so what is dropped here is never dropped on the server.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::InformerFactory;

/// Where `kubectl apply` keeps a copy of the object.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Tells the informers what to drop.
pub(crate) fn install(informers: &InformerFactory) {
    informers.transform::<Pod>(pod);
    informers.transform::<Node>(node);
    informers.transform::<Deployment>(|object| forget_last_applied(&mut object.metadata));
    informers.transform::<ReplicaSet>(|object| forget_last_applied(&mut object.metadata));
    informers.transform::<Service>(|object| {
        forget_last_applied(&mut object.metadata);
        object.status = None;
    });
    informers.transform::<Endpoints>(|object| forget_last_applied(&mut object.metadata));
    informers.transform::<EndpointSlice>(|object| forget_last_applied(&mut object.metadata));
    informers.transform::<Namespace>(|object| forget_last_applied(&mut object.metadata));
}

fn forget_last_applied(meta: &mut ObjectMeta) {
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

/// Keeps names and ports of containers, volume claims, tolerations, placement and status.
fn pod(pod: &mut Pod) {
    forget_last_applied(&mut pod.metadata);
    if let Some(spec) = &mut pod.spec {
        let ports = |container: &mut Container| {
            *container = Container {
                name: std::mem::take(&mut container.name),
                ports: container.ports.take(),
                restart_policy: container.restart_policy.take(),
                ..Container::default()
            };
        };
        spec.containers.iter_mut().for_each(ports);
        // Of init containers only sidecars can have ports that services know.
        if let Some(init) = &mut spec.init_containers {
            init.retain(|container| container.restart_policy.is_some());
            init.iter_mut().for_each(ports);
        }
        spec.init_containers = spec.init_containers.take().filter(|init| !init.is_empty());
        spec.ephemeral_containers = None;
        spec.affinity = None;
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
        }
        spec.volumes = spec.volumes.take().filter(|volumes| !volumes.is_empty());
        spec.topology_spread_constraints = None;
        spec.security_context = None;
        spec.node_selector = None;
        spec.dns_config = None;
        spec.host_aliases = None;
        spec.image_pull_secrets = None;
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        status.message = None;
        for container in status.container_statuses.iter_mut().chain(&mut status.init_container_statuses).flatten() {
            container.allocated_resources = None;
            container.container_id = None;
            container.image = String::new();
            container.image_id = String::new();
            container.last_state = None;
            container.resources = None;
            container.state = None;
            container.user = None;
            container.volume_mounts = None;
        }
    }
}

/// Keeps conditions, taints and labels; the list of images is by far the largest part.
fn node(node: &mut Node) {
    forget_last_applied(&mut node.metadata);
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
        status.allocatable = None;
        status.capacity = None;
    }
}
