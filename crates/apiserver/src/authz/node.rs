//! The Node authorizer: a kubelet reads its own Node, the pods of its node, and those Secrets and ConfigMaps, by name, that
//! such a pod refers to; it asks for tokens only of accounts that such a pod runs as. Everything else that a kubelet may do
//! is the ClusterRole `system:node`, bounded by the NodeRestriction admission plugin.
//!
//! The index follows the watch cache: pods by node, and what each refers to. References are found when they are first asked
//! for, and again only when a pod's spec has changed; most changes of pods are changes of their status.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Attributes;
use crate::UserInfo;
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};

const NODE_NAME: &str = "spec.nodeName";

/// Judges kubelets.
#[derive(Default)]
pub(crate) struct NodeAuthorizer {
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
    #[serde(borrow)]
    spec: &'a RawValue,
}

impl NodeAuthorizer {
    /// Why a kubelet may not do this, whatever its roles say; `None` for everything that roles decide.
    pub(crate) fn refusal(&self, user: &UserInfo, attributes: &Attributes) -> Option<String> {
        let node = user.as_node()?;
        let Attributes { verb, name, namespace, .. } = attributes;
        let reads = matches!(verb.as_str(), "get" | "list" | "watch");
        let lists = matches!(verb.as_str(), "list" | "watch");
        let kind = match (attributes.group.as_str(), attributes.resource.as_str(), attributes.subresource.as_str()) {
            ("", "nodes", "") if reads => {
                return match name.as_str() {
                    "" => Some(format!("node '{node}' cannot read all nodes, only its own Node object")),
                    name if name == node => None,
                    name => Some(format!("node '{node}' cannot read '{name}', only its own Node object")),
                };
            }
            ("", "pods", "") if reads => {
                let own = |(field, value): &(String, String)| field == NODE_NAME && value == node;
                if lists && attributes.fields.iter().any(own) {
                    return None;
                }
                if lists && name.is_empty() {
                    return Some("can only list/watch pods with spec.nodeName field selector".into());
                }
                return (!self.has_pod(node, namespace, name)).then(|| unrelated(node));
            }
            ("", "secrets", _) => Reference::Secret,
            ("", "configmaps", _) => Reference::ConfigMap,
            ("", "serviceaccounts", "token") => Reference::Account,
            _ => return None,
        };
        if kind != Reference::Account && !reads {
            return Some("can only read resources of this type".into());
        }
        if kind != Reference::Account && !attributes.subresource.is_empty() {
            return Some("cannot read subresource".into());
        }
        if name.is_empty() || namespace.is_empty() {
            return Some("No Object name found".into());
        }
        (!self.refers(node, namespace, kind, name)).then(|| unrelated(node))
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

    fn references<'a>(&self, pod: &'a Pod) -> &'a References {
        pod.references.get_or_init(|| {
            let spec = serde_json::from_slice::<Specified<'_>>(&pod.entry.value).map(|object| object.spec.get());
            let spec = spec.unwrap_or_default();
            let spec_hash = self.hasher.hash_one(spec);
            if let Some(earlier) = pod.earlier.as_ref().filter(|earlier| earlier.spec_hash == spec_hash) {
                return earlier.clone();
            }
            let spec: Value = serde_json::from_str(spec).unwrap_or_default();
            let mut found = Vec::new();
            Reference::each(&spec, &mut |kind, name| found.push((kind, name.into())));
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

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
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
                "configMap" | "configMapRef" | "configMapKeyRef" => named(Self::ConfigMap, value, "name"),
                "serviceAccountName" => {
                    if let Some(name) = value.as_str().filter(|name| !name.is_empty()) {
                        found(Self::Account, name);
                    }
                }
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
            "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}}, {"name": "b", "configMap": {"name": "cm"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "root"}}]}},
            ],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "env"}}]}],
            "containers": [{"name": "x", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}],
        });
        let mut found = Vec::new();
        Reference::each(&spec, &mut |kind, name| found.push((kind, name)));
        found.sort_unstable();
        let of = |kind| found.iter().filter(|(k, _)| *k == kind).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(of(Reference::Secret), ["key", "proj", "pull", "vol"], "a volume's name is no secret's");
        assert_eq!(of(Reference::ConfigMap), ["cm", "env", "root"]);
        assert_eq!(of(Reference::Account), ["sa"]);
        assert!(!Reference::Account.is_in(&json!({"serviceAccountName": ""})));
    }
}
