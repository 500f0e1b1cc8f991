//! The Node authorizer, as far as it keeps secrets: a kubelet reads only those Secrets and ConfigMaps, by name, that a pod
//! on its node refers to, and asks for tokens only of accounts that such a pod runs as. Everything else that a kubelet may
//! do is the ClusterRole `system:node`, bounded by the NodeRestriction admission plugin.

use std::sync::Arc;

use serde_json::Value;

use super::Attributes;
use crate::UserInfo;
use crate::cache::ResourceCache;

/// Judges kubelets.
pub(crate) struct NodeAuthorizer {
    pods: Option<Arc<ResourceCache>>,
    /// Place of `spec.nodeName` among the pods' selectable fields.
    node_name: usize,
}

impl NodeAuthorizer {
    pub(crate) fn new(pods: Option<Arc<ResourceCache>>) -> Self {
        let position = pods
            .as_ref()
            .and_then(|pods| pods.kind().field_selectors.iter().position(|field| field.path == "spec.nodeName"));
        // Without the field no pod is found, and so nothing is allowed.
        Self { pods, node_name: position.unwrap_or(usize::MAX) }
    }

    /// Why a kubelet may not do this, whatever its roles say; `None` for everything that roles decide.
    pub(crate) fn refusal(&self, user: &UserInfo, attributes: &Attributes) -> Option<String> {
        let node = user.as_node()?;
        let kind = match (attributes.group.as_str(), attributes.resource.as_str(), attributes.subresource.as_str()) {
            ("", "secrets", _) => Reference::Secret,
            ("", "configmaps", _) => Reference::ConfigMap,
            ("", "serviceaccounts", "token") => Reference::Account,
            _ => return None,
        };
        let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        if kind != Reference::Account && !reads {
            return Some("can only read resources of this type".into());
        }
        if attributes.name.is_empty() || attributes.namespace.is_empty() {
            return Some("No Object name found".into());
        }
        if self.refers(node, &attributes.namespace, kind, &attributes.name) {
            return None;
        }
        Some(format!("no relationship found between node '{node}' and this object"))
    }

    /// Whether a pod of the namespace on the node refers to the object.
    fn refers(&self, node: &str, namespace: &str, kind: Reference, name: &str) -> bool {
        let Some(pods) = &self.pods else { return false };
        let (snapshot, prefix) = (pods.snapshot(), pods.namespace_prefix(namespace));
        snapshot.range(&prefix, "").filter(|pod| pod.field(self.node_name) == node).any(|pod| {
            let Ok(pod) = pod.decode() else { return false };
            pod.get("spec").is_some_and(|spec| kind.is_in(spec, Some(name)))
        })
    }
}

/// What a pod may refer to that a kubelet may then read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Secret,
    ConfigMap,
    Account,
}

impl Reference {
    /// Whether a pod's spec names the object (any, without a name) anywhere.
    pub(crate) fn is_in(self, spec: &Value, name: Option<&str>) -> bool {
        let meant = |found: &Value| match name {
            Some(name) => found == name,
            None => found.as_str().is_some_and(|found| !found.is_empty()),
        };
        match spec {
            Value::Array(items) => items.iter().any(|item| self.is_in(item, name)),
            Value::Object(map) => map.iter().any(|(key, value)| {
                let named = |field: &str| value.get(field).is_some_and(meant);
                let here = match (self, key.as_str()) {
                    (Self::Secret, "secret") => named("secretName") || named("name"),
                    (Self::Secret, "secretRef" | "secretKeyRef") | (Self::Secret, "nodePublishSecretRef") => {
                        named("name")
                    }
                    (Self::Secret, "imagePullSecrets") => {
                        value.as_array().into_iter().flatten().any(|s| s.get("name").is_some_and(meant))
                    }
                    (Self::ConfigMap, "configMap" | "configMapRef" | "configMapKeyRef") => named("name"),
                    (Self::Account, "serviceAccountName") => meant(value),
                    _ => false,
                };
                here || self.is_in(value, name)
            }),
            _ => false,
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
        for name in ["pull", "vol", "proj", "key"] {
            assert!(Reference::Secret.is_in(&spec, Some(name)), "{name}");
            assert!(!Reference::ConfigMap.is_in(&spec, Some(name)), "{name}");
        }
        for name in ["cm", "root", "env"] {
            assert!(Reference::ConfigMap.is_in(&spec, Some(name)), "{name}");
        }
        assert!(Reference::Account.is_in(&spec, Some("sa")));
        assert!(!Reference::Secret.is_in(&spec, Some("a")), "a volume's name is no secret's");
    }
}
