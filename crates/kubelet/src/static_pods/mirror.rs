//! Mirrors: the API server's pictures of static pods. Made, replaced and deleted so that each static pod has one and nobody
//! else does; their status is written by the pods' own tasks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Set;
use super::file::HASH;
use crate::context::Context;
use crate::node_shutdown;
use crate::pod::view;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Waits after a refused write grow between these.
const RETRY: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(200), std::time::Duration::from_secs(20));

/// Mirrors of this node by namespace and name; `None` before the API server's first list.
pub(crate) type Mirrors = Option<HashMap<(String, String), Arc<Pod>>>;

/// Whether the API object is a picture of a static pod.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether `mirror` shows `pod` as it is now.
pub(crate) fn shows(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, MIRROR).is_some() && annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// Where a pod's mirror is.
pub(crate) fn key(pod: &Pod) -> (String, String) {
    (view::namespace(pod).to_string(), view::name(pod).to_string())
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A static pod with what its mirror remembers of it. What a shutdown of the node ended before this kubelet `started` is
/// forgotten: it runs again.
pub(crate) fn overlay(pod: &Pod, mirror: Option<&Pod>, started: Timestamp) -> Pod {
    let mut pod = pod.clone();
    if let Some(mirror) = mirror.filter(|mirror| shows(mirror, &pod)) {
        pod.status = mirror.status.clone().filter(|status| !is_of_another_life(status, started));
        pod.metadata.generation = mirror.metadata.generation;
    }
    pod
}

fn is_of_another_life(status: &PodStatus, started: Timestamp) -> bool {
    let target = status.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
    let at = target.and_then(|condition| condition.last_transition_time.as_ref());
    status.reason.as_deref() == Some(node_shutdown::TERMINATED) && at.is_some_and(|at| at.0 < started)
}

#[derive(Debug, PartialEq)]
enum Action {
    Create(Arc<Pod>),
    Delete(Arc<Pod>),
}

/// What to do about the mirrors. `ending` says of a static pod that is no longer wanted whether it still runs.
fn plan(
    pods: &Set,
    mirrors: &HashMap<(String, String), Arc<Pod>>,
    ending: impl Fn(&(String, String)) -> bool,
) -> Vec<Action> {
    let wanted: BTreeMap<(String, String), &Arc<Pod>> = pods.values().map(|pod| (key(pod), pod)).collect();
    let stale = mirrors.iter().filter(|(key, mirror)| match wanted.get(*key) {
        Some(pod) => mirror.metadata.deletion_timestamp.is_some() || !shows(mirror, pod),
        None => !ending(key),
    });
    let missing = wanted.iter().filter(|(key, _)| !mirrors.contains_key(*key));
    let deletes = stale.map(|(_, mirror)| Action::Delete(mirror.clone()));
    deletes.chain(missing.map(|(_, pod)| Action::Create((*pod).clone()))).collect()
}

/// Keeps the mirrors right until `shutdown`. `ended` is told when a static pod's task is over.
pub(crate) async fn keep(
    ctx: Arc<Context>,
    mut pods: watch::Receiver<Set>,
    mut mirrors: watch::Receiver<Mirrors>,
    ended: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let work = async {
        let mut node = ctx.node.subscribe();
        let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
        loop {
            let (wanted, known) = (pods.borrow_and_update().clone(), mirrors.borrow_and_update().clone());
            let owner = node.borrow_and_update().clone().flatten();
            let mut good = true;
            if let (Some(known), Some(owner)) = (known, owner) {
                let ending = |(namespace, name): &(String, String)| ctx.pods.named(namespace, name).is_some();
                for action in plan(&wanted, &known, ending) {
                    if let Err(error) = act(&ctx, &owner, &action).await {
                        tracing::warn!(?error, "a mirror pod is not as it should be");
                        good = false;
                    }
                }
            }
            let again = async { if good { std::future::pending().await } else { backoff.wait().await } };
            tokio::select! {
                changed = pods.changed() => if changed.is_err() { return },
                changed = mirrors.changed() => if changed.is_err() { return },
                _ = node.changed() => {}
                () = ended.notified() => {}
                () = again => continue,
            }
            backoff.reset();
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

async fn act(ctx: &Context, node: &Node, action: &Action) -> Result<(), kube::Error> {
    match action {
        Action::Create(pod) => {
            let api = Api::<Pod>::namespaced(ctx.client.clone(), view::namespace(pod));
            match api.create(&PostParams::default(), &picture(pod, node)).await {
                Err(error) if !keelson_client::is_already_exists(&error) => Err(error),
                _ => Ok(()),
            }
        }
        Action::Delete(mirror) => {
            let api = Api::<Pod>::namespaced(ctx.client.clone(), view::namespace(mirror));
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
                ..Default::default()
            };
            match api.delete(view::name(mirror), &parameters).await {
                Err(error) if !keelson_client::is_not_found(&error) && !keelson_client::is_conflict(&error) => {
                    Err(error)
                }
                _ => Ok(()),
            }
        }
    }
}

fn picture(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.status = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_string();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..Default::default()
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_shutdown_ended_runs_again_after_it() {
        let pod = |annotation: &str, status: serde_json::Value| -> Pod {
            let metadata = json!({"name": "a", "annotations": {annotation: "1"}});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let ended = |reason: &str| {
            let target =
                json!({"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T10:00:00Z"});
            pod(MIRROR, json!({"phase": "Failed", "reason": reason, "conditions": [target]}))
        };
        let of_file = pod(HASH, json!({}));
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        for (reason, started, is_kept) in [
            ("Terminated", "2026-01-01T09:00:00Z", true),
            ("Terminated", "2026-01-01T11:00:00Z", false),
            ("DeadlineExceeded", "2026-01-01T11:00:00Z", true),
        ] {
            let known = overlay(&of_file, Some(&ended(reason)), at(started)).status.is_some_and(|s| s.phase.is_some());
            assert_eq!(known, is_kept, "{reason} {started}");
        }
    }

    #[test]
    fn each_pod_has_one_mirror() {
        let pod = |name: &str, annotation: &str, hash: &str, more: serde_json::Value| -> Arc<Pod> {
            let mut metadata = json!({"name": name, "namespace": "n", "uid": hash, "annotations": {annotation: hash}});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let wanted = pod("a", HASH, "1", json!({}));
        let pods: Set = [("1".to_string(), wanted.clone())].into();
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        for (mirror, ending, expected) in [
            (None, false, "create"),
            (Some(pod("a", MIRROR, "1", json!({}))), false, ""),
            (Some(pod("a", MIRROR, "0", json!({}))), false, "delete"),
            (Some(pod("a", MIRROR, "1", going)), false, "delete"),
            (Some(pod("b", MIRROR, "1", json!({}))), false, "delete create"),
            (Some(pod("b", MIRROR, "1", json!({}))), true, "create"),
        ] {
            let mirrors = mirror.iter().map(|mirror| (key(mirror), mirror.clone())).collect();
            let words: Vec<&str> = plan(&pods, &mirrors, |_| ending)
                .iter()
                .map(|action| if matches!(action, Action::Create(_)) { "create" } else { "delete" })
                .collect();
            assert_eq!(words.join(" "), expected, "{mirror:?} {ending}");
        }
    }
}
