use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use serde_json::json;

use super::super::revision::{DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, REVISION, REVISION_HISTORY};
use super::super::rollout::{available, size};
use super::*;
use crate::common::objects::annotation;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn deployment(replicas: i32, surge: &str, unavailable: &str, image: &str) -> Deployment {
    let number = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1, "annotations": {"a": "b"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate":
                {"maxSurge": number(surge), "maxUnavailable": number(unavailable)}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
        }
    }))
    .unwrap()
}

fn recreate(mut deployment: Deployment) -> Deployment {
    deployment.spec.as_mut().unwrap().strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    deployment
}

/// A ReplicaSet made from an image, `age` seconds old, as the controller would have left it.
fn set(deployment: &Deployment, image: &str, revision: i64, size: i32, available: i32) -> ReplicaSet {
    let mut template = deployment.clone();
    let spec = template.spec.as_mut().unwrap();
    spec.paused = None;
    spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    let observed = Observed { deployment: &template, replicasets: &[], unfinished_pods: &HashMap::new(), now: now() };
    let mut set = *plan(&observed).create.unwrap();
    set.metadata.uid = Some(format!("uid-{image}"));
    set.metadata.creation_timestamp = Some((now() - Duration::from_secs(1000 - revision.unsigned_abs())).into());
    set.metadata.annotations.as_mut().unwrap().insert(REVISION.into(), revision.to_string());
    set.spec.as_mut().unwrap().replicas = Some(size);
    set.status = Some(ReplicaSetStatus {
        replicas: size,
        available_replicas: Some(available),
        ready_replicas: Some(available),
        observed_generation: Some(0),
        ..ReplicaSetStatus::default()
    });
    set
}

fn run(deployment: &Deployment, sets: &[ReplicaSet]) -> Plan {
    run_at(deployment, sets, now())
}

fn run_at(deployment: &Deployment, sets: &[ReplicaSet], now: Timestamp) -> Plan {
    let replicasets: Vec<_> = sets.iter().collect();
    plan(&Observed { deployment, replicasets: &replicasets, unfinished_pods: &HashMap::new(), now })
}

/// Sizes after the plan, by image, in the order given.
fn sizes(plan: &Plan, sets: &[ReplicaSet]) -> Vec<i32> {
    let of = |set: &&ReplicaSet| plan.update.iter().find(|after| after.metadata.uid == set.metadata.uid).map(size);
    sets.iter().filter_map(|set| of(&set)).collect()
}

fn reason(status: &DeploymentStatus, type_: &str) -> String {
    let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    condition.map_or("-".into(), |c| format!("{} {}", c.status, c.reason.as_deref().unwrap_or("")))
}

#[test]
fn the_first_replica_set_is_made_at_full_size() {
    let deployment = deployment(3, "25%", "25%", "v1");
    let plan = run(&deployment, &[]);
    let made = plan.create.unwrap();
    let name = made.metadata.name.clone().unwrap();
    let hash = made.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
    assert_eq!(name, format!("web-{hash}"));
    assert!((6..=10).contains(&hash.len()), "{hash}");
    assert_eq!(size(&made), 3);
    assert_eq!(plan.scaled, [(name.clone(), format!("Scaled up replica set {name} from 0 to 3"))]);
    let spec = made.spec.as_ref().unwrap();
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
    let template = spec.template.as_ref().unwrap().metadata.as_ref().unwrap();
    assert_eq!(template.labels.as_ref().unwrap()[HASH_LABEL], hash);
    let annotations = made.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["a"], "b");
    assert_eq!(annotations[REVISION], "1");
    assert_eq!(annotations[DESIRED_REPLICAS], "3");
    assert_eq!(annotations[MAX_REPLICAS], "4");
    assert_eq!(plan.revision.as_deref(), Some("1"));
    assert_eq!(reason(&plan.status, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(reason(&plan.status, "Available"), "False MinimumReplicasUnavailable");
}

#[test]
fn templates_hash_to_different_names_and_collisions_to_others_still() {
    let (one, two) = (deployment(1, "1", "0", "v1"), deployment(1, "1", "0", "v2"));
    let name = |deployment: &Deployment| run(deployment, &[]).create.unwrap().metadata.name.unwrap();
    assert_eq!(name(&one), name(&one));
    assert_ne!(name(&one), name(&two));
    let mut collided = one.clone();
    collided.status = Some(DeploymentStatus { collision_count: Some(1), ..DeploymentStatus::default() });
    assert_ne!(name(&one), name(&collided));
}

/// One step of a rollout from `old` to `new` (size, available) gives these sizes.
fn step(replicas: i32, surge: &str, unavailable: &str, old: (i32, i32), new: (i32, i32), after: [i32; 2]) {
    let deployment = deployment(replicas, surge, unavailable, "v2");
    let sets = [set(&deployment, "v1", 1, old.0, old.1), set(&deployment, "v2", 2, new.0, new.1)];
    assert_eq!(sizes(&run(&deployment, &sets), &sets), after, "{replicas} {surge} {unavailable} {old:?} {new:?}");
}

#[test]
fn a_rollout_keeps_between_minimum_and_maximum() {
    step(10, "0", "2", (10, 10), (0, 0), [8, 0]);
    step(10, "0", "2", (8, 8), (0, 0), [8, 2]);
    step(10, "0", "2", (8, 8), (2, 0), [8, 2]);
    step(10, "0", "2", (8, 8), (2, 2), [6, 2]);
    step(10, "2", "0", (10, 10), (0, 0), [10, 2]);
    step(10, "2", "0", (10, 10), (2, 0), [10, 2]);
    step(10, "2", "0", (10, 10), (2, 1), [9, 2]);
    step(10, "2", "0", (9, 9), (2, 1), [9, 3]);
    step(10, "25%", "25%", (10, 10), (0, 0), [10, 3]);
    step(10, "25%", "25%", (10, 10), (3, 0), [8, 3]);
    step(10, "0", "0", (10, 10), (0, 0), [9, 0]);
    step(1, "1", "0", (1, 1), (1, 1), [0, 1]);
    // Pods that are not available anyway go first.
    step(10, "0", "2", (10, 8), (0, 0), [8, 0]);
    step(10, "3", "2", (10, 0), (3, 0), [8, 3]);
    step(10, "0", "0", (10, 0), (0, 0), [9, 0]);
}

/// All rollouts end, and on the way there are never too many pods nor too few available ones.
#[test]
fn every_rollout_ends_within_bounds() {
    for replicas in [1, 2, 3, 7, 10] {
        for (surge, unavailable) in [("1", "0"), ("0", "1"), ("25%", "25%"), ("100%", "0"), ("0", "100%"), ("3", "2")] {
            let mut deployment = deployment(replicas, surge, unavailable, "v2");
            let mut sets = vec![set(&deployment, "v1", 1, replicas, replicas)];
            let number = |text: &str| match text.strip_suffix('%') {
                Some(percent) => f64::from(replicas) * percent.parse::<f64>().unwrap() / 100.0,
                None => text.parse().unwrap(),
            };
            let (max, mut min) = (number(surge).ceil() as i32, number(unavailable).floor() as i32);
            if max == 0 && min == 0 {
                min = 1;
            }
            let mut done = false;
            for turn in 0..200 {
                let plan = run(&deployment, &sets);
                if let Some(made) = plan.create {
                    let mut made = *made;
                    made.metadata.uid = Some("new".into());
                    made.metadata.creation_timestamp = Some(now().into());
                    sets.push(made);
                }
                for after in plan.update {
                    let known = sets.iter_mut().find(|set| set.metadata.uid == after.metadata.uid).unwrap();
                    *known = after;
                }
                deployment.status = Some(plan.status);
                // A kubelet that makes one pod ready per turn; deleted pods are gone at once, unready ones first.
                let mut started = false;
                for set in &mut sets {
                    let size = size(set);
                    let mut ready = available(set).min(size);
                    if ready < size && !started && turn % 2 == 0 {
                        ready += 1;
                        started = true;
                    }
                    set.status = Some(ReplicaSetStatus {
                        replicas: size,
                        available_replicas: Some(ready),
                        ..ReplicaSetStatus::default()
                    });
                }
                let total: i32 = sets.iter().map(size).sum();
                let ready: i32 = sets.iter().map(available).sum();
                assert!(total <= replicas + max, "{replicas} {surge} {unavailable}: {total} pods");
                assert!(ready >= replicas - min, "{replicas} {surge} {unavailable}: {ready} available");
                done = reason(deployment.status.as_ref().unwrap(), "Progressing") == "True NewReplicaSetAvailable";
                if done {
                    break;
                }
            }
            assert!(done, "{replicas} {surge} {unavailable} did not end");
            assert_eq!(sets.iter().map(size).collect::<Vec<_>>(), [0, replicas]);
        }
    }
}

#[test]
fn a_settled_deployment_writes_nothing() {
    let mut deployment = deployment(3, "1", "0", "v1");
    let sets = [set(&deployment, "v1", 1, 3, 3)];
    let first = run(&deployment, &sets);
    assert_eq!(reason(&first.status, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(reason(&first.status, "Available"), "True MinimumReplicasAvailable");
    deployment.status = Some(first.status.clone());
    deployment.metadata.annotations.as_mut().unwrap().insert(REVISION.into(), "1".into());
    let second = run_at(&deployment, &sets, now() + Duration::from_secs(3600));
    assert_eq!(second.status, first.status);
    assert_eq!(second.update, sets);
    assert!(second.create.is_none() && second.revision.is_none() && second.scaled.is_empty() && second.again.is_none());
}

#[test]
fn going_back_takes_up_the_old_replica_set_as_the_newest_revision() {
    let deployment = deployment(2, "1", "0", "v1");
    let sets = [set(&deployment, "v1", 1, 0, 0), set(&deployment, "v2", 2, 2, 2)];
    let plan = run(&deployment, &sets);
    assert!(plan.create.is_none());
    assert_eq!(sizes(&plan, &sets), [1, 2]);
    let back = plan.update.iter().find(|set| set.metadata.uid.as_deref() == Some("uid-v1")).unwrap();
    assert_eq!(annotation(&back.metadata, REVISION), Some("3"));
    assert_eq!(annotation(&back.metadata, REVISION_HISTORY), Some("1"));
    assert_eq!(plan.revision.as_deref(), Some("3"));
}

/// Sizes after the Deployment's size changed from `from` to `to` in the middle of a rollout.
fn scaled(from: (i32, &str), to: i32, sizes_before: &[i32], after: &[i32]) {
    let before = deployment(from.0, from.1, "0", "v9");
    let sets: Vec<_> = sizes_before
        .iter()
        .enumerate()
        .map(|(n, size)| set(&before, &format!("v{}", 9 - n), 9 - n as i64, *size, 0))
        .collect();
    let deployment = deployment(to, from.1, "0", "v9");
    let plan = run(&deployment, &sets);
    assert_eq!(sizes(&plan, &sets), after, "{from:?} to {to} from {sizes_before:?}");
    for set in plan.update.iter().filter(|set| size(set) > 0) {
        assert_eq!(annotation(&set.metadata, DESIRED_REPLICAS), Some(to.to_string().as_str()));
    }
}

#[test]
fn a_change_of_size_during_a_rollout_is_spread_in_proportion() {
    scaled((10, "0"), 12, &[10], &[12]);
    scaled((10, "0"), 5, &[10], &[5]);
    scaled((10, "0"), 20, &[5, 5], &[10, 10]);
    scaled((10, "0"), 5, &[8, 2], &[4, 1]);
    scaled((10, "0"), 12, &[5, 5], &[6, 6]);
    scaled((10, "0"), 11, &[5, 3, 2], &[6, 3, 2]);
    scaled((10, "0"), 0, &[5, 3, 2], &[0, 0, 0]);
    scaled((10, "2"), 20, &[5, 7], &[9, 13]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut deployment = deployment(4, "1", "0", "v2");
    deployment.spec.as_mut().unwrap().paused = Some(true);
    let mut old = set(&deployment, "v1", 1, 3, 3);
    old.metadata.annotations.as_mut().unwrap().insert(DESIRED_REPLICAS.into(), "3".into());
    let sets = [old];
    let plan = run(&deployment, &sets);
    assert!(plan.create.is_none());
    assert_eq!(sizes(&plan, &sets), [4]);
    assert_eq!(reason(&plan.status, "Progressing"), "Unknown DeploymentPaused");
    deployment.status = Some(plan.status);
    deployment.spec.as_mut().unwrap().paused = None;
    let resumed = run(&deployment, &plan.update);
    assert!(resumed.create.is_some());
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let deployment = recreate(deployment(2, "1", "0", "v2"));
    let mut sets = [set(&deployment, "v1", 1, 2, 2)];
    let first = run(&deployment, &sets);
    assert!(first.create.is_none());
    assert_eq!(sizes(&first, &sets), [0]);
    let message = format!("Scaled down replica set {} from 2 to 0", sets[0].metadata.name.as_deref().unwrap());
    assert_eq!(first.scaled[0].1, message);
    sets[0] = set(&deployment, "v1", 1, 0, 0);
    let pods: HashMap<_, _> = [("uid-v1".to_owned(), 1)].into();
    let observed = Observed { deployment: &deployment, replicasets: &[&sets[0]], unfinished_pods: &pods, now: now() };
    assert!(plan(&observed).create.is_none(), "a pod is still ending");
    let then = run(&deployment, &sets);
    assert_eq!(size(&then.create.unwrap()), 2);
}

#[test]
fn a_rollout_that_does_not_move_times_out() {
    let mut deployment = deployment(1, "1", "0", "v2");
    let sets = [set(&deployment, "v1", 1, 1, 1), set(&deployment, "v2", 2, 1, 0)];
    deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(60);
    let first = run(&deployment, &sets);
    deployment.status = Some(first.status);
    let second = run_at(&deployment, &sets, now() + Duration::from_secs(30));
    assert_eq!(second.again, Some(Duration::from_secs(31)));
    assert_eq!(Some(&second.status), deployment.status.as_ref());
    let late = run_at(&deployment, &sets, now() + Duration::from_secs(61));
    assert_eq!(reason(&late.status, "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(late.again, None);
    let message = late.status.conditions.iter().flatten().find(|c| c.type_ == "Progressing").unwrap().message.clone();
    let name = sets[1].metadata.name.as_deref().unwrap();
    assert_eq!(message.unwrap(), format!("ReplicaSet {name:?} has timed out progressing."));
    deployment.status = Some(late.status);
    let sets = [sets[0].clone(), set(&deployment, "v2", 2, 1, 1)];
    let moved = run_at(&deployment, &sets, now() + Duration::from_secs(90));
    assert_eq!(reason(&moved.status, "Progressing"), "True ReplicaSetUpdated");
}

#[test]
fn history_beyond_the_limit_is_deleted_when_the_rollout_is_complete() {
    let mut deployment = deployment(1, "1", "0", "v5");
    deployment.spec.as_mut().unwrap().revision_history_limit = Some(2);
    let mut sets: Vec<_> = (1..=4).map(|n| set(&deployment, &format!("v{n}"), n, 0, 0)).collect();
    sets.push(set(&deployment, "v5", 5, 1, 0));
    assert!(run(&deployment, &sets).delete.is_empty(), "not before");
    sets[4] = set(&deployment, "v5", 5, 1, 1);
    let plan = run(&deployment, &sets);
    let deleted: Vec<_> = plan.delete.iter().map(|set| set.metadata.uid.as_deref().unwrap()).collect();
    assert_eq!(deleted, ["uid-v1", "uid-v2"]);
    assert_eq!(plan.update.len(), 3);
}

#[test]
fn a_failure_to_make_pods_is_passed_on() {
    let deployment = deployment(1, "1", "0", "v1");
    let mut sets = [set(&deployment, "v1", 1, 1, 0)];
    sets[0].status.as_mut().unwrap().conditions = serde_json::from_value(
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]),
    )
    .unwrap();
    assert_eq!(reason(&run(&deployment, &sets).status, "ReplicaFailure"), "True FailedCreate");
}

#[test]
fn empty_and_absent_template_fields_are_the_same() {
    let deployment = deployment(1, "1", "0", "v1");
    let mut other = set(&deployment, "v1", 1, 1, 1);
    let spec = other.spec.as_mut().unwrap().template.as_mut().unwrap().spec.as_mut().unwrap();
    spec.containers[0].env = Some(Vec::new());
    spec.security_context = Some(Default::default());
    assert!(run(&deployment, &[other]).create.is_none());
}
