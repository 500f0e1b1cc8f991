use serde_json::{Value, json};

use super::{pod, refused, start};
use crate::support::Api;

const PODS: &str = "POST /api/v1/namespaces/team/pods";
const CLAIMS: &str = "/api/v1/namespaces/team/persistentvolumeclaims";

async fn storage_class(api: &Api, name: &str, more: Value) {
    let mut class = json!({"metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
    more.as_object().unwrap().iter().for_each(|(key, value)| class[key] = value.clone());
    api.ok("POST /apis/storage.k8s.io/v1/storageclasses", class).await;
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

#[tokio::test]
async fn claims_get_the_default_class_and_a_finalizer() {
    let (_server, api) = start(json!({})).await;
    let made = api.ok(&format!("POST {CLAIMS}"), claim("before")).await;
    assert_eq!(made["spec"].get("storageClassName"), None);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    // Of one second the first by name counts.
    storage_class(&api, "b", json!({})).await;
    storage_class(&api, "a", json!({"metadata": {"name": "a"}})).await;
    let made = api.ok(&format!("POST {CLAIMS}"), claim("after")).await;
    assert_eq!(made["spec"]["storageClassName"], "b");
    let mut none = claim("none");
    none["spec"]["storageClassName"] = "".into();
    assert_eq!(api.ok(&format!("POST {CLAIMS}"), none).await["spec"]["storageClassName"], "");
}

#[tokio::test]
async fn claims_grow_where_their_class_allows() {
    let (_server, api) = start(json!({})).await;
    storage_class(&api, "grows", json!({"allowVolumeExpansion": true})).await;
    api.ok(&format!("POST {CLAIMS}"), claim("a")).await;
    let patch = format!("PATCH+merge {CLAIMS}/a");
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let (code, status) = api.call(&patch, grow.clone()).await;
    assert!(code == 403 || code == 422, "{status}");
    api.ok(&patch, json!({"spec": {"volumeName": "v"}})).await;
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    api.ok(&format!("PATCH+merge {CLAIMS}/a/status"), bound).await;
    api.ok(&patch, grow.clone()).await;
    let class = "PATCH+merge /apis/storage.k8s.io/v1/storageclasses/grows";
    api.ok(class, json!({"allowVolumeExpansion": false})).await;
    let more = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    let said = "persistentvolumeclaims \"a\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass \
                that provisions the pvc must support resize";
    refused(&api, &patch, more, 403, said).await;
}

#[tokio::test]
async fn ingresses_get_the_default_class() {
    let (_server, api) = start(json!({})).await;
    let class = json!({
        "metadata": {"name": "web", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/web"},
    });
    api.ok("POST /apis/networking.k8s.io/v1/ingressclasses", class).await;
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let made = api.ok("POST /apis/networking.k8s.io/v1/namespaces/team/ingresses", ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "web");
}

#[tokio::test]
async fn runtime_classes_shape_pods() {
    let (_server, api) = start(json!({})).await;
    let class = json!({
        "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
    });
    api.ok("POST /apis/node.k8s.io/v1/runtimeclasses", class).await;
    let of = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = class.into();
        pod
    };
    let made = api.ok(PODS, of("a", "vm")).await;
    assert_eq!(made["spec"]["overhead"], json!({"memory": "64Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"vm": "yes"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "vm"), "{made}");
    refused(&api, PODS, of("b", "none"), 403, "pods \"b\" is forbidden: pod rejected: RuntimeClass \"none\" not found")
        .await;
    let mut own = pod("b");
    own["spec"]["overhead"] = json!({"cpu": "1"});
    let said =
        "pods \"b\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    refused(&api, PODS, own, 403, said).await;
    let mut elsewhere = of("b", "vm");
    elsewhere["spec"]["nodeSelector"] = json!({"vm": "no"});
    let said = "pods \"b\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no";
    refused(&api, PODS, elsewhere, 403, said).await;
}

#[tokio::test]
async fn priorities_come_from_classes() {
    let (_server, api) = start(json!({})).await;
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value, "globalDefault": true, "preemptionPolicy": "Never"});
    let classes = "POST /apis/scheduling.k8s.io/v1/priorityclasses";
    api.ok(classes, class("usual", 7)).await;
    let said = "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one \
                default can exist";
    refused(&api, classes, class("other", 8), 403, said).await;
    let made = api.ok(PODS, pod("a")).await;
    let spec = &made["spec"];
    assert_eq!(spec["priorityClassName"], "usual");
    assert_eq!((spec["priority"].as_i64(), spec["preemptionPolicy"].as_str()), (Some(7), Some("Never")));
    // Those that the system's pods have stay.
    for name in ["system-node-critical", "system-cluster-critical"] {
        let path = format!("DELETE /apis/scheduling.k8s.io/v1/priorityclasses/{name}");
        let (code, status) = api.call(&path, json!(null)).await;
        let why = format!(
            "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system priority class and cannot be deleted"
        );
        assert_eq!((code, &status["message"]), (403, &json!(why)));
    }
}

#[tokio::test]
async fn accounts_may_bound_what_their_pods_refer_to() {
    let (_server, api) = start(json!({})).await;
    let account = json!({
        "metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "own"}],
    });
    api.ok("POST /api/v1/namespaces/team/serviceaccounts", account).await;
    let of = |name: &str, secret: &str| {
        let mut pod = pod(name);
        pod["spec"]["serviceAccountName"] = "strict".into();
        pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": secret}}]);
        pod
    };
    api.ok(PODS, of("a", "own")).await;
    // CVE-2024-3177: nor as a whole, by `envFrom`.
    let said = "pods \"b\" is forbidden: container c with envFrom referencing secret.secretName=\"other\" is not allowed because \
                service account strict does not reference that secret";
    refused(&api, PODS, of("b", "other"), 403, said).await;
    // CVE-2023-2728: nor through an ephemeral container.
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]}});
    let said = "pods \"a\" is forbidden: ephemeral container e with envFrom referencing secret.secretName=\"other\" is not allowed \
                because service account strict does not reference that secret";
    let path = "PATCH+strategic /api/v1/namespaces/team/pods/a/ephemeralcontainers";
    refused(&api, path, debugger, 403, said).await;
}

#[tokio::test]
async fn bound_pods_know_where_they_are() {
    let (_server, api) = start(json!({})).await;
    let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}}});
    api.ok("POST /api/v1/nodes", node).await;
    api.ok(PODS, pod("a")).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    api.ok("POST /api/v1/namespaces/team/pods/a/binding", binding).await;
    let bound = api.ok("GET /api/v1/namespaces/team/pods/a", Value::Null).await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!(bound["metadata"]["labels"], labels);
}
