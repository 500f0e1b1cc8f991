//! What leads to this server: a Service without a selector, the endpoints behind it (every API server's address, for each has
//! a metrics server beside it), and the APIService. Service and endpoints are kept as they should be; the APIService is made
//! when there is none, and is then its owner's to change, or to point at another server.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::SERVICE;

const NAMESPACE: &str = "kube-system";
const MANAGER: &str = "keelson-metrics";
const API_SERVICE: &str = "v1beta1.metrics.k8s.io";
/// Waits between tries grow between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Keeps the registration until `shutdown`.
pub(crate) async fn run(client: kube::Client, port: u16, ca_bundle: Vec<u8>, shutdown: CancellationToken) {
    let work = async {
        // The API servers' own addresses, which they keep behind this Service.
        let config = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
        let mut changes = watcher(slices, config).default_backoff().boxed();
        let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
        loop {
            match ensure(&client, port, &ca_bundle).await {
                Ok(()) => {
                    backoff.reset();
                    while !matches!(changes.next().await, Some(Ok(_)) | None) {}
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics server is not registered yet");
                    backoff.wait().await;
                }
            }
        }
    };
    let _ = shutdown.run_until_cancelled(work).await;
}

async fn ensure(client: &kube::Client, port: u16, ca_bundle: &[u8]) -> Result<(), kube::Error> {
    let own = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    let servers = own.list(&ListParams::default().labels("kubernetes.io/service-name=kubernetes")).await?;
    let mut addresses: Vec<String> =
        servers.items.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect();
    addresses.sort();
    addresses.dedup();
    let apply = PatchParams::apply(MANAGER).force();
    let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
    services.patch(SERVICE, &apply, &Patch::Apply(service(port))).await?;
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
    slices.patch(SERVICE, &apply, &Patch::Apply(slice(port, &addresses))).await?;
    let api_services = Api::<APIService>::all(client.clone());
    if api_services.get_opt(API_SERVICE).await?.is_none() {
        let object = serde_json::from_value(api_service(ca_bundle)).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        match api_services.create(&parameters, &object).await {
            Err(error) if !keelson_client::is_already_exists(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn labels() -> Value {
    json!({"k8s-app": "keelson-metrics", "kubernetes.io/cluster-service": "true"})
}

fn service(port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": labels()},
        "spec": {"ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]},
    })
}

fn slice(port: u16, addresses: &[String]) -> Value {
    let mut labels = labels();
    labels["kubernetes.io/service-name"] = SERVICE.into();
    labels["endpointslice.kubernetes.io/managed-by"] = MANAGER.into();
    let endpoints: Vec<_> =
        addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    })
}

fn api_service(ca_bundle: &[u8]) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": API_SERVICE, "labels": labels()},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": SERVICE, "namespace": NAMESPACE, "port": 443},
            "caBundle": ByteString(ca_bundle.to_vec()),
        },
    })
}
