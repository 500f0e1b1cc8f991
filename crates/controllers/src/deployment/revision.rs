//! Which ReplicaSet belongs to the current template, its name, its annotations, and which old ones may go.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use super::plan::{Set, Sets};
use super::{rollout, status};
use crate::common::objects::{annotation, created, is_deleting, name};
use crate::common::owners::controller_reference;
use crate::common::slim::LAST_APPLIED;

/// Tells the pods of one ReplicaSet from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// Longest revision history kept in the annotation, in bytes.
const MAX_HISTORY: usize = 2000;

/// Sorts a Deployment's ReplicaSets into the one of the current template and the others, oldest first.
pub(super) fn sort(deployment: &Deployment, replicasets: &[&ReplicaSet]) -> Sets {
    let mut by_age: Vec<&ReplicaSet> = replicasets.to_vec();
    by_age.sort_by_key(|set| (created(&set.metadata), name(&set.metadata).to_owned()));
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let current = template.and_then(|template| {
        by_age
            .iter()
            .position(|set| set.spec.as_ref().is_some_and(|spec| same_template(spec.template.as_ref(), template)))
    });
    let mut sets = Sets { new: None, old: Vec::new(), scaled: Vec::new() };
    for (index, set) in by_age.into_iter().enumerate() {
        let set = Set { wanted: set.clone(), is_new: false };
        if Some(index) == current { sets.new = Some(set) } else { sets.old.push(set) }
    }
    sets
}

/// Whether two templates make the same pods; the hash label does not count, nor does empty against absent.
pub(super) fn same_template(set: Option<&PodTemplateSpec>, deployment: &PodTemplateSpec) -> bool {
    let Some(set) = set else { return false };
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        template
    };
    let (set, deployment) = (plain(set), plain(deployment));
    if set == deployment {
        return true;
    }
    match (serde_json::to_value(&set), serde_json::to_value(&deployment)) {
        (Ok(set), Ok(deployment)) => without_empty(set) == without_empty(deployment),
        _ => false,
    }
}

fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            Some(Value::Array(items.into_iter().map(|item| without_empty(item).unwrap_or(Value::Null)).collect()))
        }
        Value::Object(fields) => {
            let kept: serde_json::Map<_, _> =
                fields.into_iter().filter_map(|(key, value)| Some((key, without_empty(value)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other),
    }
}

/// The suffix of a ReplicaSet's name: a hash of the template and of how often such a name was taken already.
pub(super) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    // A template that came as JSON can be written as JSON.
    feed(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        feed(&collisions.to_le_bytes());
    }
    // Without vowels and look-alikes, so that no word comes out.
    const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}

/// The revision a ReplicaSet stands for; 0 when it says none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Brings the current ReplicaSet's annotations and revision up to date; makes it when `create` and there is none.
pub(super) fn refresh(
    deployment: &Deployment,
    sets: &mut Sets,
    create: bool,
    current: &mut DeploymentStatus,
    deployment_revision: &mut Option<String>,
    now: Timestamp,
) {
    let Some(spec) = &deployment.spec else { return };
    let next = sets.old.iter().map(|set| revision(&set.wanted)).max().unwrap_or(0).saturating_add(1);
    match &mut sets.new {
        Some(Set { is_new: true, .. }) => {}
        Some(set) => {
            annotate(deployment, &mut set.wanted, next);
            if let Some(set_spec) = &mut set.wanted.spec
                && set_spec.min_ready_seconds.unwrap_or(0) != spec.min_ready_seconds.unwrap_or(0)
            {
                set_spec.min_ready_seconds = spec.min_ready_seconds;
            }
            status::note_found(deployment, current, name(&set.wanted.metadata), now);
        }
        None if create => {
            let mut wanted = new_set(deployment, current.collision_count);
            annotate(deployment, &mut wanted, next);
            sets.new = Some(Set { wanted, is_new: true });
            let count = rollout::new_replicas(deployment, sets);
            if let Some(Set { wanted, .. }) = &mut sets.new {
                if let Some(spec) = &mut wanted.spec {
                    spec.replicas = Some(count);
                }
                rollout::annotate_size(deployment, wanted);
                if count > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {count}", name(&wanted.metadata));
                    sets.scaled.push((name(&wanted.metadata).to_owned(), message));
                }
                status::note_created(deployment, current, name(&wanted.metadata), now);
            }
        }
        None => return,
    }
    let wanted = sets.new.as_ref().and_then(|set| annotation(&set.wanted.metadata, REVISION));
    if wanted != annotation(&deployment.metadata, REVISION) {
        *deployment_revision = wanted.map(str::to_owned);
    }
}

fn new_set(deployment: &Deployment, collisions: Option<i32>) -> ReplicaSet {
    let mut spec = deployment.spec.clone().unwrap_or_default();
    let hash = hash(&spec.template, collisions);
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        Some(labels)
    };
    let mut template_meta = spec.template.metadata.take().unwrap_or_default();
    template_meta.labels = with_hash(template_meta.labels);
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", name(&deployment.metadata))),
        namespace: deployment.metadata.namespace.clone(),
        labels: template_meta.labels.clone(),
        owner_references: Some(vec![controller_reference("apps/v1", "Deployment", &deployment.metadata)]),
        ..ObjectMeta::default()
    };
    spec.template.metadata = Some(template_meta);
    ReplicaSet {
        metadata,
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector {
                match_labels: with_hash(spec.selector.match_labels),
                match_expressions: spec.selector.match_expressions,
            },
            template: Some(spec.template),
        }),
        status: None,
    }
}

/// The Deployment's own annotations (but for its bookkeeping), and the revision, which only grows: a ReplicaSet that is
/// rolled back to becomes the newest and remembers what it was.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, next: i64) {
    let known = revision(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        let own = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];
        if !own.contains(&key.as_str()) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if known >= next {
        return;
    }
    annotations.insert(REVISION.into(), next.to_string());
    if known == 0 {
        return;
    }
    let mut history: Vec<String> = annotations
        .get(REVISION_HISTORY)
        .map(|history| history.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    history.push(known.to_string());
    while history.len() > 1 && history.iter().map(|part| part.len() + 1).sum::<usize>() > MAX_HISTORY {
        history.remove(0);
    }
    annotations.insert(REVISION_HISTORY.into(), history.join(","));
}

/// Old ReplicaSets beyond the history limit, that are empty and have nothing pending.
pub(super) fn surplus(deployment: &Deployment, sets: &Sets) -> Vec<ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let mut old: Vec<&ReplicaSet> =
        sets.old.iter().map(|set| &set.wanted).filter(|set| !is_deleting(&set.metadata)).collect();
    let Some(count) = old.len().checked_sub(limit) else { return Vec::new() };
    old.sort_by_key(|set| revision(set));
    let is_empty = |set: &&&ReplicaSet| {
        let status = set.status.as_ref();
        rollout::size(set) == 0
            && status.map_or(0, |status| status.replicas) == 0
            && set.metadata.generation.unwrap_or(0) <= status.and_then(|status| status.observed_generation).unwrap_or(0)
    };
    old.iter().take(count).filter(is_empty).map(|set| (*set).clone()).collect()
}
