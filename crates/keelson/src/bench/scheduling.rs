//! How many pods a second get a node: the cycle alone, and through the API with nodes that only exist there.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_scheduler::cache::Cache;
use keelson_scheduler::cycle::{self, Cursor};
use keelson_scheduler::plugins::{ScoringStrategy, default_profile};
use keelson_scheduler::pod::PodInfo;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use super::{Figure, Row, Size, thousands};
use crate::cli::Failure;

/// Requests under way at once.
const IN_FLIGHT: usize = 32;

fn node(index: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("bench-{index}"), "labels": {"bench": "true"}},
        "spec": {"taints": [{"key": "bench", "effect": "NoSchedule"}]},
    })
}

fn status() -> Value {
    let resources = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    json!({"status": {"capacity": resources, "allocatable": resources, "conditions": [{
        "type": "Ready", "status": "True", "reason": "Bench", "message": "", "lastHeartbeatTime": null,
        "lastTransitionTime": null}]}})
}

fn pod(index: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("bench-{index}"), "namespace": "default", "uid": format!("bench-{index}"),
            "labels": {"bench": "true"}},
        "spec": {"containers": [{"name": "c", "image": "keelson.local/hello",
                "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}],
            "nodeSelector": {"bench": "true"}, "tolerations": [{"operator": "Exists"}]},
    })
}

/// The cycle on 5,000 nodes, with no API server.
pub(super) fn alone(size: Size) -> Option<Row> {
    let (nodes, count) = (size.of(5000), size.of(20_000));
    let mut cache = Cache::default();
    for index in 0..nodes {
        let mut node = node(index);
        node["status"] = status()["status"].clone();
        cache.set_node(&serde_json::from_value::<Node>(node).ok()?);
    }
    let pods: Vec<PodInfo> =
        (0..count).filter_map(|index| PodInfo::new(&serde_json::from_value::<Pod>(pod(index)).ok()?)).collect();
    let (profile, mut cursor) = (default_profile("default-scheduler", ScoringStrategy::default()), Cursor::default());
    let start = Instant::now();
    for (index, pod) in pods.into_iter().enumerate() {
        let node = cycle::schedule(&profile, &cache, &pod, &mut cursor, |count| index % count).ok()?.name.clone();
        cache.assume(pod, &node);
    }
    let measured = count as f64 / start.elapsed().as_secs_f64();
    Some(Row::new(format!("scheduler alone, {} nodes", thousands(nodes)), Figure::PerSecond(10_000.0), measured))
}

/// 5,000 pods onto 1,000 nodes.
pub(super) async fn through_the_api(client: &kube::Client, size: Size) -> Result<Row, Failure> {
    let (node_count, pod_count) = (size.of(1000), size.of(5000));
    let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client.clone()));
    let params = PostParams::default();
    futures::stream::iter((0..node_count).map(Ok::<_, Failure>))
        .try_for_each_concurrent(IN_FLIGHT, |index| {
            let (nodes, params) = (nodes.clone(), params.clone());
            async move {
                nodes.create(&params, &serde_json::from_value(node(index))?).await?;
                let name = format!("bench-{index}");
                nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status())).await?;
                Ok(())
            }
        })
        .await?;
    let start = Instant::now();
    let bound = {
        let config = watcher::Config::default().labels("bench=true");
        let mut events = watcher(pods.clone(), config).boxed();
        async move {
            let mut seen = std::collections::HashSet::new();
            while seen.len() < pod_count {
                let Some(event) = events.try_next().await? else { break };
                if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = event
                    && pod.spec.is_some_and(|spec| spec.node_name.is_some())
                {
                    seen.extend(pod.metadata.name);
                }
            }
            Ok::<_, Failure>(())
        }
    };
    let create =
        futures::stream::iter((0..pod_count).map(Ok::<_, Failure>)).try_for_each_concurrent(IN_FLIGHT, |index| {
            let (pods, params) = (pods.clone(), params.clone());
            async move {
                let mut pod = pod(index);
                pod["metadata"]["uid"].take();
                pods.create(&params, &serde_json::from_value(pod)?).await?;
                Ok(())
            }
        });
    let both = async { tokio::try_join!(create, bound) };
    tokio::time::timeout(Duration::from_secs(300), both).await.map_err(|_| "pods were not scheduled in 300 s")??;
    let measured = pod_count as f64 / start.elapsed().as_secs_f64();
    let (now, labelled) = (DeleteParams::default().grace_period(0), ListParams::default().labels("bench=true"));
    pods.delete_collection(&now, &labelled).await?;
    nodes.delete_collection(&now, &labelled).await?;
    Ok(Row::new(
        format!("scheduling {} pods onto {} nodes, through the API", thousands(pod_count), thousands(node_count)),
        Figure::PerSecond(5000.0),
        measured,
    ))
}
