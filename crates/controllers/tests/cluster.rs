//! Namespaces, garbage collection, Services, ServiceAccounts and nodes against a real API server.

#[path = "cluster/quotas.rs"]
mod quotas;
mod support;
#[path = "cluster/tokens.rs"]
mod tokens;

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_client::{LeaderElector, leader};
use keelson_controllers::Config;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{Cluster, config, deployment, eventually, from, gone, list, report_ready, until};
use tokio_util::sync::CancellationToken;

fn available(replicas: i32) -> impl Fn(&Deployment) -> bool {
    move |one| one.status.as_ref().is_some_and(|status| status.available_replicas == Some(replicas))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_removes_the_owner_last() {
    let cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let pods = cluster.api::<Pod>("default");
    deployments.create(&PostParams::default(), &deployment("web", 3, "one")).await.unwrap();
    until(&deployments, "web", "available", available(3)).await;
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    eventually("the Deployment to go", || async {
        let there = deployments.get_opt("web").await.unwrap().is_some();
        // Read after the owner: had it gone first, dependents would be left now.
        let sets = list(&cluster.api::<ReplicaSet>("default"), "app=web").await.len();
        assert!(there || sets == 0, "the owner went before its ReplicaSets");
        (!there).then_some(())
    })
    .await;
    assert!(list(&pods, "app=web").await.is_empty(), "pods block their ReplicaSet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_lose_their_owner() {
    let cluster = Cluster::start(config()).await;
    let deployments = cluster.api::<Deployment>("default");
    let sets = cluster.api::<ReplicaSet>("default");
    deployments.create(&PostParams::default(), &deployment("web", 2, "one")).await.unwrap();
    until(&deployments, "web", "available", available(2)).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    gone(&deployments, "web").await;
    let set = list(&sets, "app=web").await.remove(0);
    assert_eq!(set.metadata.owner_references, None);
    assert_eq!(list(&cluster.api::<Pod>("default"), "app=web").await.len(), 2);
    // A Deployment of the same selector takes the ReplicaSet up again.
    deployments.create(&PostParams::default(), &deployment("web", 2, "one")).await.unwrap();
    until(&deployments, "web", "available", available(2)).await;
    let sets = list(&sets, "app=web").await;
    assert_eq!((sets.len(), sets[0].metadata.uid.clone()), (1, set.metadata.uid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_of_absent_owners_go_and_those_with_one_left_stay() {
    let cluster = Cluster::start(config()).await;
    let maps = cluster.api::<ConfigMap>("default");
    let map = |name: &str, owners: Value| -> ConfigMap {
        from(json!({"metadata": {"name": name, "ownerReferences": owners}}))
    };
    let parent = maps.create(&PostParams::default(), &map("parent", json!([]))).await.unwrap();
    let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let real = owner("parent", parent.metadata.uid.as_deref().unwrap());
    let absent = owner("never", "00000000-0000-0000-0000-000000000001");
    // The right name with a wrong uid is another object.
    let stale = owner("parent", "00000000-0000-0000-0000-000000000002");
    for (name, owners) in
        [("one", json!([absent])), ("two", json!([stale])), ("three", json!([real, absent])), ("four", json!([real]))]
    {
        maps.create(&PostParams::default(), &map(name, owners)).await.unwrap();
    }
    gone(&maps, "one").await;
    gone(&maps, "two").await;
    let one_owner = |map: &ConfigMap| map.metadata.owner_references.as_ref().is_some_and(|owners| owners.len() == 1);
    until(&maps, "three", "with one owner", one_owner).await;
    maps.delete("parent", &DeleteParams::default()).await.unwrap();
    gone(&maps, "three").await;
    gone(&maps, "four").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_get_their_defaults_and_go_with_all_they_hold() {
    let cluster = Cluster::start(config()).await;
    let namespaces = cluster.all::<Namespace>();
    let namespace: Namespace = from(json!({"metadata": {"name": "shop"}}));
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts = cluster.api::<ServiceAccount>("shop");
    let maps = cluster.api::<ConfigMap>("shop");
    until(&accounts, "default", "there", |_| true).await;
    let ca = until(&maps, "kube-root-ca.crt", "there", |_| true).await;
    assert!(ca.data.unwrap()["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    until(&accounts, "default", "there again", |_| true).await;
    let tamper = Patch::Merge(json!({"data": {"ca.crt": "x"}}));
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &tamper).await.unwrap();
    until(&maps, "kube-root-ca.crt", "put right", |map| map.data.as_ref().unwrap()["ca.crt"] != "x").await;

    let deployments = cluster.api::<Deployment>("shop");
    deployments.create(&PostParams::default(), &deployment("web", 2, "one")).await.unwrap();
    until(&deployments, "web", "available", available(2)).await;
    let secrets = cluster.api::<Secret>("shop");
    let held: Secret = from(json!({"metadata": {"name": "held", "finalizers": ["test/hold"]}}));
    secrets.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let waiting = until(&namespaces, "shop", "waiting for the finalizer", |namespace| {
        let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| {
            condition.type_ == "NamespaceFinalizersRemaining"
                && condition.status == "True"
                && condition.message.as_deref().is_some_and(|message| message.contains("test/hold in 1"))
        })
    })
    .await;
    assert_eq!(waiting.status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(list(&cluster.api::<Pod>("shop"), "").await.is_empty(), "pods went first");
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    secrets.patch("held", &PatchParams::default(), &release).await.unwrap();
    gone(&namespaces, "shop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_endpoints_that_follow_their_pods() {
    let cluster = Cluster::start(config()).await;
    let services = cluster.api::<Service>("default");
    let service: Service = from(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    }));
    services.create(&PostParams::default(), &service).await.unwrap();
    let deployments = cluster.api::<Deployment>("default");
    deployments.create(&PostParams::default(), &deployment("web", 3, "one")).await.unwrap();
    let slices = cluster.api::<EndpointSlice>("default");
    let ready = |count: usize| {
        let slices = slices.clone();
        move || {
            let slices = slices.clone();
            async move {
                let all = list(&slices, "kubernetes.io/service-name=web").await;
                let endpoints = all.iter().flat_map(|slice| &slice.endpoints);
                let ready =
                    endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
                (ready.count() == count).then_some(all)
            }
        }
    };
    let found = eventually("three endpoints", ready(3)).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].ports.as_ref().unwrap()[0].port, Some(8080));
    assert_eq!(found[0].endpoints[0].node_name.as_deref(), Some("node-1"));
    let endpoints = cluster.api::<Endpoints>("default");
    until(&endpoints, "web", "of three addresses", |endpoints| {
        let subsets: Vec<_> = endpoints.subsets.iter().flatten().collect();
        subsets.len() == 1 && subsets[0].addresses.as_ref().is_some_and(|addresses| addresses.len() == 3)
    })
    .await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch("web", &PatchParams::default(), &scale).await.unwrap();
    eventually("one endpoint", ready(1)).await;
    services.delete("web", &DeleteParams::default()).await.unwrap();
    gone(&endpoints, "web").await;
    eventually("no slice", || async { list(&slices, "kubernetes.io/service-name=web").await.is_empty().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_tainted_and_left_and_recovers() {
    let second = Duration::from_secs(1);
    let quick = Config { node_monitor_grace_period: second, node_startup_grace_period: second, ..config() };
    let cluster = Cluster::start(quick).await;
    let nodes = cluster.all::<Node>();
    // A second node that stays, so that not the whole cluster is down.
    let other: Node = from(json!({"metadata": {"name": "node-2"}}));
    nodes.create(&PostParams::default(), &other).await.unwrap();
    report_ready(&cluster.client, "node-2").await;
    let client = cluster.client.clone();
    let heart = tokio::spawn(async move {
        let leases = kube::Api::<Lease>::namespaced(client, "kube-node-lease");
        let lease: Lease = from(json!({"metadata": {"name": "node-2"}, "spec": {"holderIdentity": "node-2"}}));
        leases.create(&PostParams::default(), &lease).await.unwrap();
        loop {
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(keelson_client::clock::now());
            let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
            leases.patch("node-2", &PatchParams::default(), &patch).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let first = until(&nodes, "node-1", "with a network", |node| node.spec.as_ref().unwrap().pod_cidr.is_some()).await;
    let second = until(&nodes, "node-2", "with a network", |node| node.spec.as_ref().unwrap().pod_cidr.is_some()).await;
    let networks = |node: &Node| node.spec.as_ref().unwrap().pod_cidrs.clone().unwrap();
    assert_ne!(networks(&first), networks(&second));
    assert!(networks(&first)[0].starts_with("10.244.") && networks(&first)[0].ends_with(".0/24"));

    let pods = cluster.api::<Pod>("default");
    let mut pod: Pod = from(json!({
        "metadata": {"name": "stays"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"operator": "Exists"}]}
    }));
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pod.metadata.name = Some("leaves".into());
    pod.spec.as_mut().unwrap().tolerations = from(json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
    ]));
    pods.create(&PostParams::default(), &pod).await.unwrap();

    until(&nodes, "node-1", "unreachable", |node| {
        let taints = node.spec.as_ref().unwrap().taints.clone().unwrap_or_default();
        let effects: Vec<_> = taints
            .iter()
            .filter(|taint| taint.key == "node.kubernetes.io/unreachable")
            .map(|taint| taint.effect.as_str())
            .collect();
        effects == ["NoSchedule", "NoExecute"]
    })
    .await;
    until(&pods, "stays", "not ready", |pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "False")
    })
    .await;
    gone(&pods, "leaves").await;
    assert!(pods.get_opt("stays").await.unwrap().is_some());
    let steady = nodes.get("node-2").await.unwrap();
    assert_eq!(steady.spec.unwrap().taints, None, "a node that renews its lease is left alone");

    report_ready(&cluster.client, "node-1").await;
    until(&nodes, "node-1", "without taints", |node| node.spec.as_ref().unwrap().taints.is_none()).await;
    heart.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_holder_of_the_lease_acts_and_it_gives_it_up() {
    let elected = |identity: &str| Config { leader_elect: true, identity: identity.into(), ..config() };
    let mut cluster = Cluster::start(elected("one")).await;
    let leases = cluster.api::<Lease>("kube-system");
    let holder = |wanted: &'static str| {
        move |lease: &Lease| lease.spec.as_ref().unwrap().holder_identity.as_deref() == Some(wanted)
    };
    until(&leases, "kube-controller-manager", "held by one", holder("one")).await;
    cluster.stop_controllers().await;
    let released = leases.get("kube-controller-manager").await.unwrap();
    assert!(holder("")(&released), "{released:?}");
    cluster.start_controllers(elected("two"));
    let taken = until(&leases, "kube-controller-manager", "held by two", holder("two")).await;
    assert_eq!(taken.spec.unwrap().lease_transitions, Some(1));
    let messages = cluster.events("kube-system", "LeaderElection", "kube-controller-manager", 2).await;
    assert_eq!(messages, ["one became leader", "two became leader"]);
}

fn elector(cluster: &Cluster, identity: &str) -> LeaderElector {
    let config = leader::Config {
        lease_duration: Duration::from_secs(2),
        renew_deadline: Duration::from_secs(1),
        retry_period: Duration::from_millis(100),
        ..leader::Config::new("default", "crown", identity)
    };
    LeaderElector::new(cluster.client.clone(), config, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_leader_is_followed_after_its_lease_and_not_before() {
    let cluster = Cluster::start(config()).await;
    let shutdown = CancellationToken::new();
    let (first, second) = (elector(&cluster, "first"), elector(&cluster, "second"));
    let reign = first.acquire(&shutdown).await.unwrap();
    assert!(*first.is_leader().borrow());
    // Longer than the lease: it is being renewed.
    let early = tokio::time::timeout(Duration::from_secs(3), second.acquire(&shutdown)).await;
    assert!(early.is_err() && !reign.lost.is_cancelled());
    drop(reign);
    let crashed = tokio::time::Instant::now();
    let reign = second.acquire(&shutdown).await.unwrap();
    assert!(crashed.elapsed() > Duration::from_secs(1), "{:?}", crashed.elapsed());
    reign.release().await;
    let released = tokio::time::Instant::now();
    first.acquire(&shutdown).await.unwrap();
    assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
    shutdown.cancel();
    assert!(second.acquire(&shutdown).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_lease_was_taken_learns_of_it_in_time() {
    let cluster = Cluster::start(config()).await;
    let elector = elector(&cluster, "first");
    let reign = elector.acquire(&CancellationToken::new()).await.unwrap();
    let leases = cluster.api::<Lease>("default");
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(keelson_client::clock::now());
    let usurp = json!({"spec": {"holderIdentity": "usurper", "renewTime": now, "leaseDurationSeconds": 60}});
    leases.patch("crown", &PatchParams::default(), &Patch::Merge(&usurp)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), reign.lost.cancelled()).await.expect("learns of it");
    assert!(!*elector.is_leader().borrow());
    let lease = leases.get("crown").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("usurper"), "and leaves it alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_finished_pods_are_kept() {
    let cluster = Cluster::start(Config { terminated_pod_gc_threshold: 1, ..config() }).await;
    let pods = cluster.api::<Pod>("default");
    for name in ["a", "b", "c"] {
        let pod: Pod = from(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        until(&pods, name, "running", |pod| phase(pod).as_deref() == Some("Running")).await;
    }
    for name in ["a", "b", "c"] {
        let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        pods.patch_status(name, &PatchParams::default(), &done).await.unwrap();
    }
    eventually("one pod", || async { (list(&pods, "").await.len() == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_hundred_endpoints_fill_two_slices() {
    let cluster = Cluster::start(config()).await;
    let services = cluster.api::<Service>("default");
    let service: Service =
        from(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
    services.create(&PostParams::default(), &service).await.unwrap();
    let deployments = cluster.api::<Deployment>("default");
    deployments.create(&PostParams::default(), &deployment("web", 120, "one")).await.unwrap();
    until(&deployments, "web", "available", available(120)).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let found = eventually("120 endpoints", || async {
        let all = list(&slices, "kubernetes.io/service-name=web").await;
        let ready = |slice: &EndpointSlice| {
            let endpoints = slice.endpoints.iter();
            endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count()
        };
        (all.iter().map(ready).sum::<usize>() == 120).then_some(all)
    })
    .await;
    assert!(found.len() >= 2 && found.iter().all(|slice| slice.endpoints.len() <= 100));
    assert_eq!(list(&cluster.api::<Pod>("default"), "app=web").await.len(), 120, "exactly");
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    gone(&deployments, "web").await;
    eventually("no pods", || async { list(&cluster.api::<Pod>("default"), "app=web").await.is_empty().then_some(()) })
        .await;
}

/// Custom resources are owned, own, and go with their namespace like everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_collected_and_go_with_their_namespace() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{ApiResource, DynamicObject};

    let cluster = Cluster::start(config()).await;
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "x-kubernetes-preserve-unknown-fields": true}}}]},
    });
    let definitions = cluster.all::<CustomResourceDefinition>();
    definitions.create(&PostParams::default(), &from(definition)).await.unwrap();
    until(&definitions, "things.example.com", "established", |crd| {
        let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Established" && c.status == "True"))
    })
    .await;
    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let things = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), "default", &resource);
    let maps = cluster.api::<ConfigMap>("default");
    let owner = |api_version: &str, kind: &str, name: &str, uid: &str| json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}]);
    // A thing that a map owns, and a map that this thing owns.
    let map = maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "first"}}))).await.unwrap();
    let owners = owner("v1", "ConfigMap", "first", map.metadata.uid.as_deref().unwrap());
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "second", "ownerReferences": owners}});
    let thing = things.create(&PostParams::default(), &from(thing)).await.unwrap();
    let owners = owner("example.com/v1", "Thing", "second", thing.metadata.uid.as_deref().unwrap());
    let third = from(json!({"metadata": {"name": "third", "ownerReferences": owners}}));
    maps.create(&PostParams::default(), &third).await.unwrap();
    maps.delete("first", &DeleteParams::default()).await.unwrap();
    eventually("the thing is collected", || async { things.get_opt("second").await.unwrap().is_none().then_some(()) })
        .await;
    gone(&maps, "third").await;

    let namespaces = cluster.all::<Namespace>();
    namespaces.create(&PostParams::default(), &from(json!({"metadata": {"name": "doomed"}}))).await.unwrap();
    let doomed = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), "doomed", &resource);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}});
    doomed.create(&PostParams::default(), &from(thing)).await.unwrap();
    namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
    gone(&namespaces, "doomed").await;
    assert!(doomed.get_opt("a").await.unwrap().is_none());
}
