//! Pods that use more local storage than they may: of a volume, a container or the pod. Pure; messages are upstream's.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::view;
use crate::quantity;
use crate::stats::disk::PodDisk;

const STORAGE: &str = "ephemeral-storage";

fn limit(container: &Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE).filter(|limit| quantity::value(limit) > 0)
}

fn size_limits(pod: &Pod) -> impl Iterator<Item = (&str, &Quantity)> {
    let volumes = view::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        (quantity::value(limit) > 0).then_some((volume.name.as_str(), limit))
    })
}

/// Whether the pod can exceed anything.
pub(crate) fn has_any(pod: &Pod) -> bool {
    size_limits(pod).next().is_some() || counts_layers(pod)
}

/// Whether some container has a limit: then its writable layer counts, too.
pub(crate) fn counts_layers(pod: &Pod) -> bool {
    view::containers(pod).iter().chain(view::init_containers(pod)).any(|container| limit(container).is_some())
}

/// The first limit that is exceeded: upstream's signal for its metric, and the message.
pub(crate) fn exceeded(pod: &Pod, disk: &PodDisk, dedicated_image_fs: bool) -> Option<(&'static str, String)> {
    for (name, limit) in size_limits(pod) {
        let volume = disk.volumes.iter().find(|volume| volume.name == name);
        if volume.is_some_and(|volume| volume.usage.bytes > quantity::value(limit).max(0) as u64) {
            let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.0);
            return Some(("emptydirfs.limit", message));
        }
    }
    if let Some(total) = pod_limit(pod)
        && disk.ephemeral().bytes > total
    {
        let total = quantity::from_bytes(i64::try_from(total).unwrap_or(i64::MAX)).0;
        let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. ");
        return Some(("ephemeralpodfs.limit", message));
    }
    for container in view::containers(pod).iter().chain(view::init_containers(pod)) {
        let Some(limit) = limit(container) else { continue };
        let of = |usages: &std::collections::BTreeMap<String, crate::stats::disk::Usage>| {
            usages.get(&container.name).map_or(0, |usage| usage.bytes)
        };
        let layer = if dedicated_image_fs { 0 } else { of(&disk.layers) };
        if of(&disk.logs) + layer > quantity::value(limit).max(0) as u64 {
            let message =
                format!("Container {} exceeded its local ephemeral storage limit {:?}. ", container.name, limit.0);
            return Some(("ephemeralcontainerfs.limit", message));
        }
    }
    None
}

/// What the pod may use, when every app container says how much it may: one that does not may use all.
fn pod_limit(pod: &Pod) -> Option<u64> {
    let own = view::containers(pod).iter().map(|container| limit(container).map(quantity::value));
    let total = own.sum::<Option<i64>>()?;
    let init = view::init_containers(pod).iter().filter_map(limit).map(quantity::value).max().unwrap_or(0);
    u64::try_from(total.max(init)).ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::machine::Space;
    use crate::stats::disk::{Usage, VolumeUsage};
    use serde_json::json;

    #[test]
    fn limits() {
        let mib = |count: u64| Usage { bytes: count << 20, inodes: 1 };
        let disk = |volume: u64, log: u64, layer: u64| PodDisk {
            volumes: vec![VolumeUsage {
                name: "work".into(),
                claim: None,
                ephemeral: true,
                usage: mib(volume),
                space: Space::default(),
            }],
            logs: [("c".to_string(), mib(log))].into(),
            layers: [("c".to_string(), mib(layer))].into(),
            ..Default::default()
        };
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}],
            "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "5Mi"}}]}}))
        .unwrap();
        let free: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}, {"name": "d"}]}}))
        .unwrap();
        assert!(has_any(&pod) && has_any(&free));
        for (pod, disk, dedicated, message) in [
            (&pod, disk(5, 1, 1), false, None),
            (&pod, disk(6, 1, 1), false, Some("Usage of EmptyDir volume \"work\" exceeds the limit \"5Mi\". ")),
            (
                &pod,
                disk(5, 3, 3),
                false,
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
            ),
            (&free, disk(500, 3, 3), false, None),
            (&free, disk(0, 6, 6), false, Some("Container c exceeded its local ephemeral storage limit \"10Mi\". ")),
            (&free, disk(0, 6, 6), true, None),
        ] {
            assert_eq!(exceeded(pod, &disk, dedicated).map(|(_, message)| message).as_deref(), message);
        }
    }
}
