//! What events about pods are about.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use super::view;

/// The pod, pointing at one of its containers.
pub(crate) fn about_container(pod: &Pod, name: &str) -> ObjectReference {
    let list = if view::containers(pod).iter().any(|container| container.name == name) {
        "containers"
    } else if view::init_containers(pod).iter().any(|container| container.name == name) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    let mut reference = keelson_client::reference(pod);
    reference.field_path = Some(format!("spec.{list}{{{name}}}"));
    reference
}
