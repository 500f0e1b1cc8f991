//! Deployments, ReplicaSets and ReplicationControllers against a real API server.

mod support;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use support::{Cluster, config, deployment, eventually, from, gone, list, until};

fn is_complete(replicas: i32) -> impl Fn(&Deployment) -> bool {
    move |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        status.observed_generation == deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == replicas
            && status.replicas.unwrap_or(0) == replicas
            && status.available_replicas.unwrap_or(0) == replicas
            && reason(deployment, "Progressing") == "NewReplicaSetAvailable"
    }
}

fn reason(deployment: &Deployment, type_: &str) -> String {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let condition = conditions.into_iter().find(|condition| condition.type_ == type_);
    condition.and_then(|condition| condition.reason.clone()).unwrap_or_default()
}

fn revision(deployment: &Deployment) -> &str {
    deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].as_str()
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().unwrap().replicas.unwrap()
}

async fn set_image(api: &Api<Deployment>, name: &str, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_goes_back_and_is_deleted() {
    let cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let sets = cluster.api::<ReplicaSet>("default");
    let pods = cluster.api::<Pod>("default");
    deployments.create(&PostParams::default(), &deployment("web", 3, "one")).await.unwrap();
    let made = until(&deployments, "web", "complete", is_complete(3)).await;
    assert_eq!(revision(&made), "1");
    assert_eq!(reason(&made, "Available"), "MinimumReplicasAvailable");
    let first = list(&sets, "app=web").await.remove(0);
    let first_name = first.metadata.name.clone().unwrap();
    let messages = cluster.events("default", "ScalingReplicaSet", "web", 1).await;
    assert_eq!(messages, [format!("Scaled up replica set {first_name} from 0 to 3")]);
    let messages = cluster.events("default", "SuccessfulCreate", "web", 3).await;
    assert!(messages.iter().all(|message| message.starts_with(&format!("Created pod: {first_name}-"))), "{messages:?}");

    set_image(&deployments, "web", "two").await;
    let rolled = until(&deployments, "web", "rolled out", |one| revision(one) == "2" && is_complete(3)(one)).await;
    assert_eq!(rolled.status.as_ref().unwrap().collision_count, None);
    eventually("the old ReplicaSet to have no pods", || async {
        (list(&pods, "app=web").await.len() == 3).then_some(())
    })
    .await;
    let mut sizes: Vec<i32> = list(&sets, "app=web").await.iter().map(size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);

    // What `kubectl rollout undo` does.
    set_image(&deployments, "web", "one").await;
    until(&deployments, "web", "rolled back", |one| revision(one) == "3" && is_complete(3)(one)).await;
    let back = sets.get(&first_name).await.unwrap();
    assert_eq!((back.metadata.uid.clone(), size(&back)), (first.metadata.uid, 3));

    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    deployments.patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    until(&deployments, "web", "scaled", is_complete(5)).await;
    // By now there are so many similar events that they are combined.
    let messages = cluster.events("default", "ScalingReplicaSet", "web", 10).await;
    let message = format!("Scaled up replica set {first_name} from 3 to 5");
    assert!(messages.iter().any(|known| known.ends_with(&message)), "{messages:?}");

    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    eventually("all to be gone", || async {
        (list(&pods, "app=web").await.is_empty() && list(&sets, "app=web").await.is_empty()).then_some(())
    })
    .await;
}

/// Name and version of all objects of the workload.
async fn versions(cluster: &Cluster) -> BTreeSet<String> {
    let seen = |meta: &kube::core::ObjectMeta| format!("{:?} {:?}", meta.name, meta.resource_version);
    let mut versions = BTreeSet::new();
    versions.extend(list(&cluster.api::<Deployment>("default"), "").await.iter().map(|one| seen(&one.metadata)));
    versions.extend(list(&cluster.api::<ReplicaSet>("default"), "").await.iter().map(|one| seen(&one.metadata)));
    versions.extend(list(&cluster.api::<Pod>("default"), "").await.iter().map(|one| seen(&one.metadata)));
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_cluster_is_written_to_no_more_also_after_a_restart() {
    let mut cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    deployments.create(&PostParams::default(), &deployment("web", 2, "one")).await.unwrap();
    until(&deployments, "web", "complete", is_complete(2)).await;
    let before = versions(&cluster).await;
    cluster.stop_controllers().await;
    cluster.start_controllers(config());
    // Once a new Deployment is complete, all controllers have long looked at the old one.
    let probe = cluster.api::<Deployment>("kube-public");
    probe.create(&PostParams::default(), &deployment("probe", 1, "one")).await.unwrap();
    until(&probe, "probe", "complete", is_complete(1)).await;
    assert_eq!(before, versions(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_restart_in_the_middle_of_a_rollout_finish_it() {
    let mut cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let sets = cluster.api::<ReplicaSet>("default");
    deployments.create(&PostParams::default(), &deployment("web", 6, "one")).await.unwrap();
    until(&deployments, "web", "complete", is_complete(6)).await;
    set_image(&deployments, "web", "two").await;
    eventually("the rollout to begin", || async { (list(&sets, "app=web").await.len() == 2).then_some(()) }).await;
    for _ in 0..3 {
        cluster.stop_controllers().await;
        cluster.start_controllers(config());
    }
    until(&deployments, "web", "rolled out", |one| revision(one) == "2" && is_complete(6)(one)).await;
    let pods = cluster.api::<Pod>("default");
    eventually("six pods", || async { (list(&pods, "app=web").await.len() == 6).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_never_runs_old_and_new_together() {
    let cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let mut wanted = deployment("db", 2, "one");
    wanted.spec.as_mut().unwrap().strategy = from(json!({"type": "Recreate"}));
    deployments.create(&PostParams::default(), &wanted).await.unwrap();
    until(&deployments, "db", "complete", is_complete(2)).await;
    set_image(&deployments, "db", "two").await;
    let pods = cluster.api::<Pod>("default");
    eventually("new pods", || async {
        let all = list(&pods, "app=db").await;
        let images: BTreeSet<_> =
            all.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect();
        assert!(images.len() <= 1, "old and new together");
        (images.contains("two") && all.len() == 2).then_some(())
    })
    .await;
    until(&deployments, "db", "complete", is_complete(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_replaces_adopts_and_releases_pods() {
    let cluster = Cluster::start(config()).await;
    let sets = cluster.api::<ReplicaSet>("default");
    let pods = cluster.api::<Pod>("default");
    let template =
        json!({"metadata": {"labels": {"app": "rs"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut orphan: Pod = from(template.clone());
    orphan.metadata.name = Some("orphan".into());
    pods.create(&PostParams::default(), &orphan).await.unwrap();
    let set: ReplicaSet = from(json!({
        "metadata": {"name": "rs"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "rs"}}, "template": template}
    }));
    sets.create(&PostParams::default(), &set).await.unwrap();
    let ready =
        |count: i32| move |set: &ReplicaSet| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(count));
    until(&sets, "rs", "ready", ready(3)).await;
    let all = list(&pods, "app=rs").await;
    assert_eq!(all.len(), 3, "the orphan counts");
    assert!(all.iter().all(|pod| pod.metadata.owner_references.as_ref().is_some_and(|owners| owners[0].name == "rs")));

    // A pod that loses its label is let go, and made up for.
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "free"}}}));
    pods.patch("orphan", &PatchParams::default(), &relabel).await.unwrap();
    until(&pods, "orphan", "released", |pod| pod.metadata.owner_references.is_none()).await;
    eventually("a third pod", || async { (list(&pods, "app=rs").await.len() == 3).then_some(()) }).await;

    let name = list(&pods, "app=rs").await[0].metadata.name.clone().unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    gone(&pods, &name).await;
    until(&sets, "rs", "ready again", ready(3)).await;
    eventually("three pods", || async { (list(&pods, "app=rs").await.len() == 3).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_scales_up_and_down() {
    let cluster = Cluster::start(config()).await;
    let controllers = cluster.api::<ReplicationController>("default");
    let pods = cluster.api::<Pod>("default");
    let rc: ReplicationController = from(json!({
        "metadata": {"name": "rc"},
        "spec": {"replicas": 40, "selector": {"app": "rc"}, "template":
            {"metadata": {"labels": {"app": "rc"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    }));
    controllers.create(&PostParams::default(), &rc).await.unwrap();
    let ready = |count: i32| {
        move |rc: &ReplicationController| {
            rc.status.as_ref().is_some_and(|s| s.ready_replicas.unwrap_or(0) == count && s.replicas == count)
        }
    };
    until(&controllers, "rc", "ready", ready(40)).await;
    assert_eq!(list(&pods, "app=rc").await.len(), 40, "exactly");
    let scale = Patch::Merge(json!({"spec": {"replicas": 7}}));
    controllers.patch("rc", &PatchParams::default(), &scale).await.unwrap();
    until(&controllers, "rc", "smaller", ready(7)).await;
    eventually("seven pods", || async { (list(&pods, "app=rc").await.len() == 7).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_cannot_be_ready_keeps_the_old_pods_and_times_out() {
    let cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let mut wanted = deployment("web", 2, "one");
    wanted.spec.as_mut().unwrap().progress_deadline_seconds = Some(1);
    deployments.create(&PostParams::default(), &wanted).await.unwrap();
    until(&deployments, "web", "complete", is_complete(2)).await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"test/never-ready": "1"}}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let late = until(&deployments, "web", "late", |one| reason(one, "Progressing") == "ProgressDeadlineExceeded").await;
    assert_eq!(late.status.as_ref().unwrap().available_replicas, Some(2));
    assert_eq!(list(&cluster.api::<Pod>("default"), "app=web").await.len(), 3);
}
