//! Makes the name service known: the Service `kube-system/kube-dns` with its fixed cluster IP, and this node's
//! EndpointSlice of it. Each node serves its own pods (`internalTrafficPolicy: Local`).

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use keelson_client::{Backoff, Change, is_already_exists, is_not_found};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::Config;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGER: &str = "keelson-dns";

/// Whether a change touches what is kept here.
pub(crate) fn is_about<K: Resource<DynamicType = ()>>(change: &Change<K>, config: &Config) -> bool {
    let is_ours = |object: &K| {
        let name = object.meta().name.as_deref();
        object.meta().namespace.as_deref() == Some(NAMESPACE)
            && (name == Some(SERVICE) || name == Some(slice_name(config).as_str()))
    };
    match change {
        Change::Added(object) | Change::Updated(_, object) | Change::Deleted(object) => is_ours(object),
        Change::Resync(_) => true,
    }
}

/// Keeps both objects until cancelled: at the start, and whenever `changed` tells.
pub(crate) async fn keep(client: kube::Client, config: &Config, changed: &Notify) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    loop {
        match ensure(&client, config).await {
            Ok(()) => {
                backoff.reset();
                changed.notified().await;
            }
            Err(error) => {
                tracing::warn!(%error, "Service kube-system/kube-dns is not up to date, will try again");
                tokio::select! {
                    () = backoff.wait() => {}
                    () = changed.notified() => {}
                }
            }
        }
    }
}

async fn ensure(client: &kube::Client, config: &Config) -> Result<(), kube::Error> {
    ensure_object::<Service>(&Api::namespaced(client.clone(), NAMESPACE), SERVICE, &service(config)).await?;
    // With the node as owner the garbage collector removes the slice with it. Without the right to read it: no owner.
    let node = Api::<Node>::all(client.clone()).get_metadata(&config.node_name).await.ok();
    let uid = node.and_then(|node| node.uid());
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    ensure_object::<EndpointSlice>(&slices, &slice_name(config), &slice(config, uid.as_deref())).await
}

/// Creates the object, or corrects what differs in the fields we say something about.
async fn ensure_object<K>(api: &Api<K>, name: &str, wanted: &Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.get(name).await {
        Ok(found) => {
            let found = serde_json::to_value(found).map_err(kube::Error::SerdeError)?;
            if includes(&found, wanted) {
                return Ok(());
            }
            api.patch(
                name,
                &PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
                &Patch::Merge(wanted),
            )
            .await
            .map(drop)
        }
        Err(e) if is_not_found(&e) => {
            let object = serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            match api.create(&params, &object).await {
                // Another node was quicker: both want the same.
                Err(e) if is_already_exists(&e) => Ok(()),
                done => done.map(drop),
            }
        }
        Err(e) => Err(e),
    }
}

/// Whether `found` has all that `wanted` says; what it has besides does not matter.
fn includes(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|f| includes(f, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| includes(f, w))
        }
        (found, wanted) => found == wanted,
    }
}

fn service(config: &Config) -> Value {
    let port = |name: &str, protocol: &str| json!({ "name": name, "protocol": protocol, "port": 53, "targetPort": config.port });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": config.service_ip.to_string(),
            "internalTrafficPolicy": "Local",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}

fn slice_name(config: &Config) -> String {
    format!("kube-dns-{}", config.node_name)
}

fn slice(config: &Config, node_uid: Option<&str>) -> Value {
    let mut metadata = json!({
        "name": slice_name(config),
        "namespace": NAMESPACE,
        "labels": {
            "kubernetes.io/service-name": SERVICE,
            "endpointslice.kubernetes.io/managed-by": MANAGER,
            "k8s-app": "kube-dns",
        },
    });
    if let (Some(uid), Some(metadata)) = (node_uid, metadata.as_object_mut()) {
        let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": config.node_name, "uid": uid }]);
        metadata.insert("ownerReferences".to_owned(), owner);
    }
    let port = |name: &str, protocol: &str| json!({ "name": name, "protocol": protocol, "port": config.port });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [config.node_ip.to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": config.node_name,
        }],
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let config = Config::new("n1", std::net::Ipv4Addr::new(192, 0, 2, 1));
        let mut stored = service(&config);
        stored["metadata"]["uid"] = json!("u");
        stored["spec"]["type"] = json!("ClusterIP");
        stored["spec"]["ports"][0]["nodePort"] = json!(0);
        assert!(includes(&stored, &service(&config)));
        stored["spec"]["internalTrafficPolicy"] = json!("Cluster");
        assert!(!includes(&stored, &service(&config)));
        let moved = Config::new("n1", std::net::Ipv4Addr::new(192, 0, 2, 2));
        assert!(!includes(&slice(&config, None), &slice(&moved, None)));
        assert!(includes(&slice(&config, Some("u")), &slice(&config, None)));
    }

    #[test]
    fn the_objects_are_of_their_kinds() {
        let config = Config::new("n1", std::net::Ipv4Addr::new(192, 0, 2, 1));
        let service: Service = serde_json::from_value(service(&config)).unwrap();
        assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.10"));
        let slice: EndpointSlice = serde_json::from_value(slice(&config, Some("u"))).unwrap();
        assert_eq!(slice.metadata.owner_references.unwrap()[0].uid, "u");
        assert!(is_about(
            &Change::Deleted(std::sync::Arc::new({
                let mut slice = EndpointSlice::default();
                slice.metadata.name = Some("kube-dns-n1".to_owned());
                slice.metadata.namespace = Some(NAMESPACE.to_owned());
                slice
            })),
            &config
        ));
    }
}
