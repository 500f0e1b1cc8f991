//! Whether a claim, volume or attributes class is in use.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::common::objects::{is_deleting, name, uid};
use crate::common::pods;

pub(super) const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
pub(super) const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

/// What to do about an object's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// It was made before there was protection.
    Add,
    /// Nobody uses it, as far as is known.
    Remove,
}

/// `used` is asked only if it matters.
pub(super) fn decide(meta: &ObjectMeta, finalizer: &str, used: impl FnOnce() -> bool) -> Action {
    let has = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (is_deleting(meta), has) {
        (true, true) if !used() => Action::Remove,
        (false, false) => Action::Add,
        _ => Action::Nothing,
    }
}

/// Whether a pod uses a claim. One that is not on a node yet does not: no kubelet starts it with a claim that goes away.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    pods::node(pod).is_some() && claims(pod).any(|used| used.is(pod, claim))
}

/// A claim that a pod names.
pub(super) struct Used {
    pub(super) name: String,
    /// Made for the pod; another of that name is not its.
    ephemeral: bool,
}

impl Used {
    fn is(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
        let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
        let own = || owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == uid(&pod.metadata));
        self.name == name(&claim.metadata) && (!self.ephemeral || own())
    }
}

/// The claims that a pod's volumes are.
pub(super) fn claims(pod: &Pod) -> impl Iterator<Item = Used> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(Used { name: claim.claim_name.clone(), ephemeral: false });
        }
        volume.ephemeral.as_ref()?;
        Some(Used { name: format!("{}-{}", name(&pod.metadata), volume.name), ephemeral: true })
    })
}

pub(super) fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// The attributes classes that a claim has, had or is to have.
pub(super) fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let spec = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let changing = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = changing.and_then(|changing| changing.target_volume_attributes_class_name.as_deref());
    [spec, current, target].into_iter().flatten()
}

pub(super) fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(node: &str, volume: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": node, "containers": [], "volumes": [volume]},
        }))
        .unwrap()
    }

    fn claim(name: &str, owner: &str) -> PersistentVolumeClaim {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true});
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [owner]}})).unwrap()
    }

    #[test]
    fn pods_on_nodes_use_their_claims() {
        let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        assert!(uses(&pod("n", named.clone()), &claim("c", "x")));
        assert!(!uses(&pod("", named.clone()), &claim("c", "x")));
        assert!(!uses(&pod("n", named), &claim("d", "x")));
        let ephemeral = json!({"name": "v", "ephemeral": {}});
        assert!(uses(&pod("n", ephemeral.clone()), &claim("p-v", "u")));
        assert!(!uses(&pod("n", ephemeral), &claim("p-v", "x")));
    }

    #[test]
    fn finalizers_come_and_go() {
        let meta = |deleted: bool, finalizers: &[&str]| ObjectMeta {
            deletion_timestamp: deleted.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()),
            finalizers: Some(finalizers.iter().map(|one| (*one).to_owned()).collect()),
            ..ObjectMeta::default()
        };
        let decide = |meta: &ObjectMeta, used: bool| super::decide(meta, CLAIM_FINALIZER, || used);
        assert_eq!(decide(&meta(false, &[]), false), Action::Add);
        assert_eq!(decide(&meta(false, &[CLAIM_FINALIZER]), false), Action::Nothing);
        assert_eq!(decide(&meta(true, &[CLAIM_FINALIZER]), true), Action::Nothing);
        assert_eq!(decide(&meta(true, &[CLAIM_FINALIZER]), false), Action::Remove);
        assert_eq!(decide(&meta(true, &["x"]), false), Action::Nothing);
    }
}
