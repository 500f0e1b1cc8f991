//! The Node authorizer: what a kubelet may do, before any role. It reads its own Node, the pods of its node, and those
//! objects, by name, that such a pod needs: Secrets, ConfigMaps, claims and the volumes bound to them, ResourceClaims. It
//! asks for tokens only of accounts that such a pod runs as, and has one Lease, one CSINode and its own ResourceSlices. What
//! is not divided so follows the rules of the ClusterRole `system:node`. Writes are bounded by the NodeRestriction admission
//! plugin as well. What is not allowed here, a role may still allow.
//!
//! The index follows the watch cache: pods by node, and what each refers to. References are found when they are first asked
//! for, and again only when a pod's spec has changed; most changes of pods are changes of their status. Objects between a
//! pod and what is asked for (claims, volumes, attachments) are looked up in the cache.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::UserInfo;
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};

const NODE_NAME: &str = "spec.nodeName";
/// Where the leases of nodes are.
pub(crate) const LEASES: &str = "kube-node-lease";
/// Of a pod that stands for one of the kubelet's own: it opens the way to nothing.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Judges kubelets.
pub(crate) struct NodeAuthorizer {
    cache: Arc<Cache>,
    /// For resources that are the same for all nodes.
    rules: Vec<Rule>,
    nodes: RwLock<HashMap<Box<str>, Pods>>,
    hasher: RandomState,
}

/// A node's pods, by key.
type Pods = HashMap<Arc<str>, Pod>;

/// A pod on a node.
struct Pod {
    entry: Arc<Entry>,
    references: OnceLock<Arc<References>>,
    /// Of an earlier version.
    earlier: Option<Arc<References>>,
}

/// What a pod's spec refers to.
struct References {
    spec_hash: u64,
    /// Sorted.
    found: Vec<(Reference, Box<str>)>,
}

#[derive(Deserialize)]
struct Specified<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: &'a RawValue,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

/// `Err` says why it is not allowed.
type Opinion = Result<(), String>;

impl NodeAuthorizer {
    /// With the rules that hold for all nodes.
    pub(crate) fn new(cache: Arc<Cache>, rules: Vec<Rule>) -> Self {
        Self { cache, rules, nodes: RwLock::default(), hasher: RandomState::new() }
    }

    /// Whether a kubelet may do this; no opinion about everybody else.
    pub(super) fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        match user.as_node().map(|node| self.judge(node, attributes)) {
            Some(Ok(())) => Decision::allow(String::new()),
            Some(Err(reason)) => Decision { reason, ..Decision::default() },
            None => Decision::default(),
        }
    }

    fn judge(&self, node: &str, attributes: &Attributes) -> Opinion {
        let Attributes { verb, name, namespace, subresource, fields, .. } = attributes;
        let (verb, subresource) = (verb.as_str(), subresource.as_str());
        let refuse = |why: &str| Err(why.to_owned());
        let reads = matches!(verb, "get" | "list" | "watch");
        let one_of_its_own = matches!(verb, "get" | "create" | "update" | "patch" | "delete");
        let selects_own = fields.iter().any(|term| term.equal && term.field == NODE_NAME && term.value == node);
        let related = |found: &dyn Fn() -> bool| match name.as_str() {
            "" => refuse("No Object name found"),
            _ if found() => Ok(()),
            _ => Err(format!("no relationship found between node '{node}' and this object")),
        };
        let referred = |kind| related(&|| self.refers(node, namespace, kind, name));
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "secrets" | "configmaps") if !reads => refuse("can only read resources of this type"),
            ("", "secrets" | "configmaps") if !subresource.is_empty() => refuse("cannot read subresource"),
            ("", "secrets" | "configmaps") if namespace.is_empty() => {
                refuse("can only read namespaced object of this type")
            }
            ("", "configmaps") => referred(Reference::ConfigMap),
            ("", "secrets") => related(&|| {
                self.refers(node, namespace, Reference::Secret, name) || self.mounts_with(node, namespace, name)
            }),
            ("", "persistentvolumeclaims") if subresource == "status" => match verb {
                "update" | "patch" => referred(Reference::Claim),
                _ => refuse("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments")
                if verb != "get" =>
            {
                refuse("can only get individual resources of this type")
            }
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments")
                if !subresource.is_empty() =>
            {
                refuse("cannot get subresource")
            }
            ("", "persistentvolumeclaims") => referred(Reference::Claim),
            ("", "persistentvolumes") => related(&|| self.has_volume(node, name)),
            ("resource.k8s.io", "resourceclaims") => related(&|| {
                self.refers(node, namespace, Reference::ResourceClaim, name)
                    || self.was_given_claim(node, namespace, name)
            }),
            ("storage.k8s.io", "volumeattachments") => {
                related(&|| self.is_of_node("storage.k8s.io", "volumeattachments", name, node))
            }
            ("", "serviceaccounts") => match (verb, subresource) {
                ("get", "") | ("create", "token") if !name.is_empty() => referred(Reference::Account),
                ("create", "token") => refuse("can only create tokens for individual service accounts"),
                ("create", _) => refuse("can only create token subresource of serviceaccount"),
                _ => refuse("can only create tokens for individual service accounts"),
            },
            ("coordination.k8s.io", "leases") => match namespace.as_str() {
                _ if !one_of_its_own => refuse("can only get, create, update, patch, or delete a node lease"),
                LEASES if verb == "create" || name == node => Ok(()),
                LEASES => refuse("can only access node lease with the same name as the requesting node"),
                _ => Err(format!("can only access leases in the {LEASES:?} system namespace")),
            },
            ("storage.k8s.io", "csinodes") => match verb {
                _ if !one_of_its_own => refuse("can only get, create, update, patch, or delete a CSINode"),
                _ if !subresource.is_empty() => refuse("cannot authorize CSINode subresources"),
                "create" => Ok(()),
                _ if name == node => Ok(()),
                _ => refuse("can only access CSINode with the same name as the requesting node"),
            },
            ("resource.k8s.io", "resourceslices") => match verb {
                _ if !subresource.is_empty() => refuse("cannot authorize ResourceSlice subresources"),
                "create" => Ok(()),
                "get" | "update" | "patch" | "delete" => {
                    related(&|| self.is_of_node("resource.k8s.io", "resourceslices", name, node))
                }
                "list" | "watch" | "deletecollection" if selects_own => Ok(()),
                "list" | "watch" | "deletecollection" => {
                    refuse("can only list/watch/deletecollection resourceslices with spec.nodeName field selector")
                }
                _ => refuse(
                    "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                     delete, deletecollection",
                ),
            },
            ("", "nodes") => match (verb, subresource) {
                ("create" | "update" | "patch", "") | ("update" | "patch", "status") => Ok(()),
                ("get" | "list" | "watch", "") => match name.as_str() {
                    "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                    name if name == node => Ok(()),
                    name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
                },
                _ => refuse(""),
            },
            ("", "pods") => match (verb, subresource) {
                ("create" | "delete", "") | ("update" | "patch", "status") | ("create", "eviction") => Ok(()),
                ("list" | "watch", "") if selects_own => Ok(()),
                ("list" | "watch", "") if name.is_empty() => {
                    refuse("can only list/watch pods with spec.nodeName field selector")
                }
                ("get" | "list" | "watch", "") => related(&|| self.has_pod(node, namespace, name)),
                _ => refuse(""),
            },
            _ if self.rules.iter().any(|rule| rule.allows(attributes)) => Ok(()),
            _ => refuse(""),
        }
    }

    fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let nodes = self.nodes.read();
        let mut pods = nodes.get(node).into_iter().flat_map(HashMap::values);
        pods.any(|pod| pod.entry.name() == name && pod.entry.namespace() == namespace)
    }

    /// Whether a pod of the namespace on the node refers to the object.
    fn refers(&self, node: &str, namespace: &str, kind: Reference, name: &str) -> bool {
        let nodes = self.nodes.read();
        let pods = nodes.get(node).into_iter().flat_map(HashMap::values);
        let wanted = |(found, of): &(Reference, Box<str>)| (*found, &**of).cmp(&(kind, name));
        pods.filter(|pod| pod.entry.namespace() == namespace)
            .any(|pod| self.references(pod).found.binary_search_by(wanted).is_ok())
    }

    /// Whether a pod on the node has a claim that this volume is bound to.
    fn has_volume(&self, node: &str, name: &str) -> bool {
        let Some(volume) = self.cached("", "persistentvolumes", "", name) else { return false };
        let claim = |field: &str| volume.pointer("/spec/claimRef").and_then(|claim| claim.get(field)?.as_str());
        let (Some(namespace), Some(claim)) = (claim("namespace"), claim("name")) else { return false };
        self.refers(node, namespace, Reference::Claim, claim)
    }

    /// Whether a volume that a pod on the node has a claim to is mounted with this Secret.
    fn mounts_with(&self, node: &str, namespace: &str, secret: &str) -> bool {
        let claims: Vec<(String, Box<str>)> = {
            let nodes = self.nodes.read();
            let pods = nodes.get(node).into_iter().flat_map(HashMap::values);
            pods.flat_map(|pod| {
                let claims = self.references(pod).found.iter().filter(|(kind, _)| *kind == Reference::Claim);
                claims.map(|(_, name)| (pod.entry.namespace().to_owned(), name.clone()))
            })
            .collect()
        };
        claims.iter().any(|(of, name)| {
            let Some(claim) = self.cached("", "persistentvolumeclaims", of, name) else { return false };
            let Some(volume) = claim.pointer("/spec/volumeName").and_then(Value::as_str) else { return false };
            let Some(volume) = self.cached("", "persistentvolumes", "", volume) else { return false };
            let bound = |field: &str| volume.pointer("/spec/claimRef").and_then(|claim| claim.get(field)?.as_str());
            bound("namespace") == Some(of)
                && bound("name") == Some(name)
                && volume.get("spec").is_some_and(|spec| mounts_with(spec, of, namespace, secret))
        })
    }

    /// Whether the status of a pod on the node says that this claim was made for it.
    fn was_given_claim(&self, node: &str, namespace: &str, name: &str) -> bool {
        let nodes = self.nodes.read();
        let pods = nodes.get(node).into_iter().flat_map(HashMap::values);
        pods.filter(|pod| pod.entry.namespace() == namespace).any(|pod| {
            let Ok(pod) = pod.entry.decode() else { return false };
            let is_it = |status: &Value| status.get("resourceClaimName").is_some_and(|claim| claim == name);
            let each = pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array);
            !is_mirror(&pod)
                && (each.into_iter().flatten().any(is_it)
                    || pod.pointer("/status/extendedResourceClaimStatus").is_some_and(is_it))
        })
    }

    /// Whether the `spec.nodeName` of an object without namespace is this node.
    fn is_of_node(&self, group: &str, resource: &str, name: &str, node: &str) -> bool {
        let object = self.cached(group, resource, "", name);
        object.is_some_and(|object| object.pointer("/spec/nodeName").is_some_and(|of| of == node))
    }

    fn cached(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.cache.resource(group, resource)?.get(namespace, name)?.decode().ok()
    }

    fn references<'a>(&self, pod: &'a Pod) -> &'a References {
        pod.references.get_or_init(|| {
            let nothing = || Arc::new(References { spec_hash: 0, found: Vec::new() });
            let Ok(object) = serde_json::from_slice::<Specified<'_>>(&pod.entry.value) else { return nothing() };
            if object.metadata.annotations.is_some_and(|all| all.contains_key(MIRROR)) {
                return nothing();
            }
            let spec_hash = self.hasher.hash_one(object.spec.get());
            if let Some(earlier) = pod.earlier.as_ref().filter(|earlier| earlier.spec_hash == spec_hash) {
                return earlier.clone();
            }
            let spec: Value = serde_json::from_str(object.spec.get()).unwrap_or_default();
            let mut found = Vec::new();
            Reference::each(&spec, &mut |kind, name| found.push((kind, name.into())));
            let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
            for volume in volumes.filter(|volume| volume.get("ephemeral").is_some_and(Value::is_object)) {
                let volume = volume.get("name").and_then(Value::as_str).unwrap_or_default();
                found.push((Reference::Claim, format!("{}-{volume}", pod.entry.name()).into()));
            }
            found.sort_unstable();
            found.dedup();
            Arc::new(References { spec_hash, found })
        })
    }

    fn set(nodes: &mut HashMap<Box<str>, HashMap<Arc<str>, Pod>>, at: usize, entry: &Arc<Entry>) {
        let node = entry.field(at);
        if node.is_empty() {
            return;
        }
        if !nodes.contains_key(node) {
            nodes.insert(node.into(), HashMap::new());
        }
        let Some(pods) = nodes.get_mut(node) else { return };
        let earlier = pods.remove(&entry.key).and_then(|pod| pod.references.into_inner().or(pod.earlier));
        pods.insert(entry.key.clone(), Pod { entry: entry.clone(), references: OnceLock::new(), earlier });
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(MIRROR).is_some())
}

/// Whether a volume's `spec`, bound to a claim of the namespace `claimed_in`, names the Secret. Where no namespace is given
/// with it, it is the claim's.
fn mounts_with(spec: &Value, claimed_in: &str, namespace: &str, secret: &str) -> bool {
    let Some(spec) = spec.as_object() else { return false };
    let text = |object: &Value, field: &str| object.get(field).and_then(Value::as_str).map(str::to_owned);
    spec.values().filter_map(Value::as_object).any(|source| {
        source.iter().any(|(key, value)| {
            // `azureFile` names its Secret in two fields, everything else in an object whose key ends so.
            let (name, given) = match key.as_str() {
                "secretName" => {
                    let given = source.get("secretNamespace").and_then(Value::as_str);
                    (value.as_str().map(str::to_owned), given.map(str::to_owned))
                }
                key if key.ends_with("ecretRef") => (text(value, "name"), text(value, "namespace")),
                _ => return false,
            };
            let given = given.filter(|namespace| !namespace.is_empty());
            name.as_deref() == Some(secret) && given.as_deref().unwrap_or(claimed_in) == namespace
        })
    })
}

fn is_pods(resource: &ResourceCache) -> bool {
    resource.group().is_empty() && resource.resource() == "pods"
}

/// Place of `spec.nodeName` among the pods' selectable fields; without it no pod is found, and so nothing is allowed.
fn node_name_at(pods: &ResourceCache) -> usize {
    pods.kind().field_selectors.iter().position(|field| field.path == NODE_NAME).unwrap_or(usize::MAX)
}

impl Listener for NodeAuthorizer {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if !is_pods(resource) {
            return;
        }
        let at = node_name_at(resource);
        let node = |entry: &Option<Arc<Entry>>| entry.as_ref().map(|e| e.field(at).to_owned()).unwrap_or_default();
        let (old, new) = (node(&change.old), node(&change.new));
        if old.is_empty() && new.is_empty() {
            return;
        }
        let mut nodes = self.nodes.write();
        if let Some(entry) = change.old.as_ref().filter(|_| old != new)
            && let Some(pods) = nodes.get_mut(old.as_str())
        {
            pods.remove(&entry.key);
            if pods.is_empty() {
                nodes.remove(old.as_str());
            }
        }
        if let Some(entry) = &change.new {
            Self::set(&mut nodes, at, entry);
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = HashMap::new();
        if let Some(pods) = cache.resource("", "pods") {
            for entry in pods.snapshot().map.values() {
                Self::set(&mut fresh, node_name_at(&pods), entry);
            }
        }
        *self.nodes.write() = fresh;
    }
}

/// What a pod may refer to that a kubelet may then read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    Secret,
    ConfigMap,
    Account,
    /// A PersistentVolumeClaim.
    Claim,
    ResourceClaim,
}

impl Reference {
    /// Whether a pod's spec names any object of this kind, anywhere.
    pub(crate) fn is_in(self, spec: &Value) -> bool {
        let mut is_in = false;
        Self::each(spec, &mut |kind, _| is_in |= kind == self);
        is_in
    }

    /// Everything that a pod's spec refers to, wherever that stands.
    fn each<'a>(spec: &'a Value, found: &mut impl FnMut(Self, &'a str)) {
        let map = match spec {
            Value::Array(items) => return items.iter().for_each(|item| Self::each(item, found)),
            Value::Object(map) => map,
            _ => return,
        };
        for (key, value) in map {
            let mut named = |kind: Self, value: &'a Value, field: &str| {
                if let Some(name) = value.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()) {
                    found(kind, name);
                }
            };
            match key.as_str() {
                "secret" => {
                    named(Self::Secret, value, "secretName");
                    named(Self::Secret, value, "name");
                }
                "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => named(Self::Secret, value, "name"),
                "imagePullSecrets" => {
                    value.as_array().into_iter().flatten().for_each(|secret| named(Self::Secret, secret, "name"));
                }
                "azureFile" => named(Self::Secret, value, "secretName"),
                "configMap" | "configMapRef" | "configMapKeyRef" => named(Self::ConfigMap, value, "name"),
                "persistentVolumeClaim" => named(Self::Claim, value, "claimName"),
                "resourceClaims" => {
                    let claims = value.as_array().into_iter().flatten();
                    claims.for_each(|claim| named(Self::ResourceClaim, claim, "resourceClaimName"));
                }
                "serviceAccountName" => {
                    if let Some(name) = value.as_str().filter(|name| !name.is_empty()) {
                        found(Self::Account, name);
                    }
                }
                // Keys in these are the user's own words.
                "nodeSelector" | "volumeAttributes" | "matchLabels" | "options" => continue,
                _ => {}
            }
            Self::each(value, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_they_are() {
        let spec = json!({
            "serviceAccountName": "sa", "nodeSelector": {"serviceAccountName": "other"}, "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}}, {"name": "b", "configMap": {"name": "cm"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "pvc"}},
                {"name": "e", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "f", "csi": {"driver": "d", "volumeAttributes": {"serviceAccountName": "other"}}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "root"}}]}},
            ],
            "resourceClaims": [{"name": "r", "resourceClaimName": "gpu"}, {"name": "t", "resourceClaimTemplateName": "x"}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "env"}}]}],
            "containers": [{"name": "x", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}],
        });
        let mut found = Vec::new();
        Reference::each(&spec, &mut |kind, name| found.push((kind, name)));
        found.sort_unstable();
        let of = |kind| found.iter().filter(|(k, _)| *k == kind).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(of(Reference::Secret), ["azure", "key", "proj", "pull", "vol"], "a volume's name is no secret's");
        assert_eq!(of(Reference::ConfigMap), ["cm", "env", "root"]);
        assert_eq!(of(Reference::Account), ["sa"]);
        assert_eq!(of(Reference::Claim), ["pvc"]);
        assert_eq!(of(Reference::ResourceClaim), ["gpu"]);
        assert!(!Reference::Account.is_in(&json!({"serviceAccountName": ""})));
    }

    #[test]
    fn volumes_name_secrets() {
        let csi = json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "a", "namespace": "x"}}});
        assert!(mounts_with(&csi, "default", "x", "a"));
        assert!(!mounts_with(&csi, "default", "default", "a"));
        let azure = json!({"azureFile": {"secretName": "a", "shareName": "s"}, "claimRef": {"name": "a"}});
        assert!(mounts_with(&azure, "default", "default", "a"));
        assert!(!mounts_with(&azure, "default", "default", "s"));
    }
}
