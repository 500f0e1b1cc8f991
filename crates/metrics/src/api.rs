//! metrics.k8s.io/v1beta1: NodeMetrics and PodMetrics, as objects, lists and tables. The API server says which nodes and pods
//! fit a selector, so that selectors mean here what they mean there.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::quantity::{Format, Quantity};
use keelson_api::status::Status;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api as Kinds, Resource};
use serde_json::{Value, json};

use crate::store::{Latest, Store};
use crate::usage::Usage;

const GROUP: &str = "metrics.k8s.io";
const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

/// A response in parts.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub content_type: HeaderValue,
    pub body: Bytes,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("application/json"),
            body: value.to_string().into(),
        }
    }

    fn error(status: &Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status: code, ..Self::json(&status.to_value()) }
    }

    /// There is nothing to write here.
    pub(crate) fn method_not_allowed(method: &Method) -> Self {
        Self::error(&Status::method_not_allowed(GROUP, "", method.as_str()))
    }
}

/// Answers requests.
pub(crate) struct Api {
    client: kube::Client,
    store: Arc<Store>,
}

/// What a path under the group version asks for; an empty name is a list.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Nodes { name: &'a str },
    Pods { namespace: &'a str, name: &'a str },
}

fn asked<'a>(parts: &[&'a str]) -> Option<Asked<'a>> {
    Some(match *parts {
        ["nodes"] => Asked::Nodes { name: "" },
        ["nodes", name] => Asked::Nodes { name },
        ["pods"] => Asked::Pods { namespace: "", name: "" },
        ["namespaces", namespace, "pods"] => Asked::Pods { namespace, name: "" },
        ["namespaces", namespace, "pods", name] => Asked::Pods { namespace, name },
        _ => return None,
    })
}

impl Api {
    pub(crate) fn new(client: kube::Client, store: Arc<Store>) -> Self {
        Self { client, store }
    }

    /// Answers a GET.
    pub(crate) async fn get(&self, path: &str, query: &str, accept: &str) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let document = match parts.as_slice() {
            ["healthz" | "livez" | "readyz"] => {
                let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
                return Answer { status: StatusCode::OK, content_type, body: "ok".into() };
            }
            ["apis"] => aggregated_discovery(),
            ["apis", GROUP, "v1beta1"] => discovery(),
            ["openapi", "v3"] => {
                json!({"paths": {format!("apis/{GROUP_VERSION}"): {"serverRelativeURL": format!("/openapi/v3/apis/{GROUP_VERSION}")}}})
            }
            ["openapi", "v3", "apis", GROUP, "v1beta1"] => schemas(),
            ["apis", GROUP, "v1beta1", rest @ ..] => {
                let Some(asked) = asked(rest) else { return Answer::error(&Status::unknown_path()) };
                let as_table = accept.contains("as=Table");
                return match self.metrics(&asked, &Selectors::of(query), as_table).await {
                    Ok(value) => Answer::json(&value),
                    Err(status) => Answer::error(&status),
                };
            }
            _ => return Answer::error(&Status::unknown_path()),
        };
        Answer::json(&document)
    }

    async fn metrics(&self, asked: &Asked<'_>, selectors: &Selectors, as_table: bool) -> Result<Value, Status> {
        if selectors.watch {
            return Err(Status::method_not_allowed(GROUP, "", "watch"));
        }
        let latest = self.store.latest().await.map_err(unavailable)?;
        let (list_kind, mut items) = match *asked {
            Asked::Nodes { name } => {
                let nodes = select(Kinds::<Node>::all(self.client.clone()), name, selectors).await?;
                ("NodeMetricsList", nodes.iter().filter_map(|node| node_metrics(node, &latest)).collect::<Vec<_>>())
            }
            Asked::Pods { namespace, name } => {
                let pods = match namespace {
                    "" => Kinds::<Pod>::all(self.client.clone()),
                    namespace => Kinds::namespaced(self.client.clone(), namespace),
                };
                let pods = select(pods, name, selectors).await?;
                ("PodMetricsList", pods.iter().filter_map(|pod| pod_metrics(pod, &latest)).collect())
            }
        };
        let (resource, name) = match *asked {
            Asked::Nodes { name } => ("nodemetrics", name.to_string()),
            Asked::Pods { name: "", .. } => ("podmetrics", String::new()),
            Asked::Pods { namespace, name } => ("podmetrics", format!("{namespace}/{name}")),
        };
        if name.is_empty() {
            return Ok(if as_table {
                table(&items)
            } else {
                json!({"kind": list_kind, "apiVersion": GROUP_VERSION, "metadata": {}, "items": items})
            });
        }
        match items.pop() {
            Some(one) if as_table => Ok(table(&[one])),
            Some(one) => Ok(one),
            None => Err(Status::not_found(GROUP, resource, &name)),
        }
    }
}

/// The query's selectors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selectors {
    labels: Option<String>,
    fields: Option<String>,
    watch: bool,
}

impl Selectors {
    fn of(query: &str) -> Self {
        let mut selectors = Self::default();
        for (key, value) in form(query) {
            match key.as_str() {
                "labelSelector" if !value.is_empty() => selectors.labels = Some(value),
                "fieldSelector" if !value.is_empty() => selectors.fields = Some(value),
                "watch" => selectors.watch = matches!(value.as_str(), "" | "1" | "true"),
                _ => {}
            }
        }
        selectors
    }
}

/// The pairs of a query, decoded.
fn form(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'x')).to_digit(16));
                    match digits {
                        [Some(high), Some(low)] => bytes.push((high * 16 + low) as u8),
                        _ => bytes.push(b'%'),
                    }
                }
                byte => bytes.push(byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// The objects asked for, metadata alone; one of a name that is not there is an error.
async fn select<K>(kinds: Kinds<K>, name: &str, selectors: &Selectors) -> Result<Vec<ObjectMeta>, Status>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let meta = |object: PartialObjectMeta<K>| object.metadata;
    if !name.is_empty() {
        return Ok(vec![meta(kinds.get_metadata(name).await.map_err(passed_on)?)]);
    }
    let parameters = ListParams {
        label_selector: selectors.labels.clone(),
        field_selector: selectors.fields.clone(),
        ..Default::default()
    };
    Ok(kinds.list_metadata(&parameters).await.map_err(passed_on)?.items.into_iter().map(meta).collect())
}

/// The API server's own answer, where it gave one.
fn passed_on(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) if status.code == 404 => Status::new(404, "NotFound", status.message),
        kube::Error::Api(status) if status.code == 400 => Status::bad_request(status.message),
        error => unavailable(error),
    }
}

fn unavailable(error: kube::Error) -> Status {
    Status::unavailable(format!("metrics are not available: {error}"))
}

fn quantities(usage: &Usage) -> Value {
    let nanos = i64::try_from(usage.nano_cpus).unwrap_or(i64::MAX);
    let kib = i64::try_from(usage.memory_bytes / 1024).unwrap_or(i64::MAX);
    // As upstream's metrics server writes them: always in thousand-millionths and Ki.
    json!({"cpu": format!("{nanos}n"), "memory": format!("{kib}Ki")})
}

fn window(milliseconds: i64) -> String {
    let seconds = milliseconds as f64 / 1000.0;
    format!("{}s", (seconds * 1000.0).round() / 1000.0)
}

fn object(kind: &str, meta: &ObjectMeta, at_ms: i64, window_ms: i64) -> Value {
    let now = keelson_client::clock::now();
    let at = Timestamp::from_millisecond(at_ms).unwrap_or(now);
    let seconds = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = json!({"name": meta.name, "creationTimestamp": seconds(now)});
    if let Some(namespace) = &meta.namespace {
        metadata["namespace"] = namespace.clone().into();
    }
    if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
        metadata["labels"] = json!(labels);
    }
    json!({
        "kind": kind, "apiVersion": GROUP_VERSION, "metadata": metadata,
        "timestamp": seconds(at), "window": window(window_ms),
    })
}

fn node_metrics(meta: &ObjectMeta, latest: &Latest) -> Option<Value> {
    let usage = latest.nodes.get(meta.name.as_ref()?)?;
    let mut value = object("NodeMetrics", meta, usage.at_ms, usage.window_ms);
    value["usage"] = quantities(usage);
    Some(value)
}

fn pod_metrics(meta: &ObjectMeta, latest: &Latest) -> Option<Value> {
    let containers = latest.pods.get(&(meta.namespace.clone()?, meta.name.clone()?))?;
    // The pod's time is its oldest container's.
    let (_, oldest) = containers.iter().min_by_key(|(_, usage)| usage.at_ms)?;
    let mut value = object("PodMetrics", meta, oldest.at_ms, oldest.window_ms);
    let containers = containers.iter().map(|(name, usage)| json!({"name": name, "usage": quantities(usage)}));
    value["containers"] = containers.collect();
    Some(value)
}

/// What `kubectl get` shows.
fn table(items: &[Value]) -> Value {
    let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
    let total = |item: &Value, resource: &str| -> Quantity {
        let of = |usage: &Value| Quantity::lookup(usage, resource).unwrap_or(Quantity::ZERO);
        match item["containers"].as_array() {
            Some(containers) => containers
                .iter()
                .fold(Quantity::new(0, Format::BinarySi), |sum, container| sum + of(&container["usage"])),
            None => of(&item["usage"]),
        }
    };
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let cpu = (total(item, "cpu").nanos() as f64 / 1e9 * 1000.0).round();
            let memory = total(item, "memory").value() / 1024;
            json!({
                "cells": [item["metadata"]["name"], format!("{cpu}m"), format!("{memory}Ki"), item["window"]],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]},
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [column("Name", "name"), column("cpu", ""), column("memory", ""), column("Window", "")],
        "rows": rows,
    })
}

/// Resource, kind, and whether it has a namespace.
const RESOURCES: [(&str, &str, bool); 2] = [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];

fn discovery() -> Value {
    let resources = RESOURCES.map(|(name, kind, namespaced)| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]})
    });
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": resources})
}

fn aggregated_discovery() -> Value {
    let resources = RESOURCES.map(|(name, kind, namespaced)| {
        json!({
            "resource": name, "singularResource": "", "verbs": ["get", "list"],
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "responseKind": {"group": GROUP, "version": "v1beta1", "kind": kind},
        })
    });
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [{
        "metadata": {"name": GROUP},
        "versions": [{"version": "v1beta1", "freshness": "Current", "resources": resources}],
    }]})
}

fn schemas() -> Value {
    let usage = json!({
        "type": "object", "description": "What is used: cpu and memory.", "additionalProperties": {"type": "string"},
    });
    let schema = |kind: &str, description: &str, own: (&str, Value)| {
        let mut schema = json!({
            "type": "object", "description": description,
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": "v1beta1", "kind": kind}],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                "timestamp": {"type": "string", "format": "date-time", "description": "When the window ended."},
                "window": {"type": "string", "description": "How long usage was measured."},
            },
        });
        schema["properties"][own.0] = own.1;
        schema
    };
    let containers = json!({
        "type": "array", "description": "Usage of each container.",
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "usage": usage}},
    });
    // By these paths clients find out which schema a resource has.
    let mut paths = serde_json::Map::new();
    for (resource, kind, namespaced) in RESOURCES {
        let place = if namespaced { "namespaces/{namespace}/" } else { "" };
        let gvk = json!({"group": GROUP, "version": "v1beta1", "kind": kind});
        for (action, name) in [("list", ""), ("get", "/{name}")] {
            let get = json!({
                "responses": {"200": {"description": "OK"}}, "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk,
            });
            paths.insert(format!("/apis/{GROUP_VERSION}/{place}{resource}{name}"), json!({ "get": get }));
        }
    }
    json!({
        "openapi": "3.0.0", "info": {"title": GROUP, "version": "v1beta1"}, "paths": paths,
        "components": {"schemas": {
            "io.k8s.metrics.v1beta1.NodeMetrics": schema("NodeMetrics", "What a node uses.", ("usage", usage.clone())),
            "io.k8s.metrics.v1beta1.PodMetrics": schema("PodMetrics", "What a pod's containers use.", ("containers", containers)),
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let usage = Usage { nano_cpus: 1_500_000, memory_bytes: 10 << 20, at_ms: 1_000_000, window_ms: 10_250 };
        let mut latest = Latest::default();
        latest.pods.insert(("ns".into(), "p".into()), vec![("a".into(), usage), ("b".into(), usage)]);
        let meta = ObjectMeta { name: Some("p".into()), namespace: Some("ns".into()), ..Default::default() };
        let pod = pod_metrics(&meta, &latest).unwrap();
        assert_eq!(pod["containers"][0], json!({"name": "a", "usage": {"cpu": "1500000n", "memory": "10240Ki"}}));
        assert_eq!((&pod["window"], &pod["timestamp"]), (&json!("10.25s"), &json!("1970-01-01T00:16:40Z")));
        assert_eq!(table(&[pod])["rows"][0]["cells"], json!(["p", "3m", "20480Ki", "10.25s"]));
        let other = ObjectMeta { name: Some("q".into()), namespace: Some("ns".into()), ..Default::default() };
        assert!(pod_metrics(&other, &latest).is_none());
    }

    #[test]
    fn every_resource_leads_to_its_schema() {
        let document = schemas();
        for (path, kind) in [("nodes", "NodeMetrics"), ("namespaces/{namespace}/pods", "PodMetrics")] {
            let path = format!("/apis/metrics.k8s.io/v1beta1/{path}");
            let gvk = &document["paths"][&path]["get"]["x-kubernetes-group-version-kind"];
            assert_eq!(gvk["kind"], kind, "{path}");
            let schema = &document["components"]["schemas"][format!("io.k8s.metrics.v1beta1.{kind}")];
            assert_eq!(schema["x-kubernetes-group-version-kind"][0], *gvk);
        }
    }

    #[test]
    fn paths_and_queries() {
        assert_eq!(asked(&["nodes"]), Some(Asked::Nodes { name: "" }));
        assert_eq!(asked(&["namespaces", "a", "pods", "b"]), Some(Asked::Pods { namespace: "a", name: "b" }));
        assert_eq!(asked(&["pods", "b"]), None);
        let selectors = Selectors::of("labelSelector=app%3Dweb%2Ctier+in+%28a%29&limit=500&watch=true");
        assert_eq!(selectors.labels.as_deref(), Some("app=web,tier in (a)"));
        assert!(selectors.watch && selectors.fields.is_none());
    }
}
