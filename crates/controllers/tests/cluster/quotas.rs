//! Quotas counted by the controller while the server charges them, and claims that wait for their pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Secret};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, config, eventually, from, gone, until};

fn used(quota: &ResourceQuota) -> Option<BTreeMap<String, String>> {
    let status = quota.status.as_ref()?;
    // What is enforced is what is asked for.
    if status.hard != quota.spec.as_ref()?.hard {
        return None;
    }
    Some(status.used.as_ref()?.iter().map(|(name, Quantity(amount))| (name.clone(), amount.clone())).collect())
}

async fn counts(quotas: &Api<ResourceQuota>, name: &str, expected: Value) {
    let expected: BTreeMap<String, String> = from(expected);
    until(quotas, name, "counted", |quota| used(quota).as_ref() == Some(&expected)).await;
}

fn pod(name: &str, cpu: &str) -> Pod {
    from(json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}},
    ]}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_follow_what_comes_and_goes() {
    let cluster = Cluster::start(config()).await;
    let (pods, secrets) = (cluster.api::<Pod>("default"), cluster.api::<Secret>("default"));
    let quotas = cluster.api::<ResourceQuota>("default");
    let params = PostParams::default();
    pods.create(&params, &pod("old", "100m")).await.unwrap();
    let hard = json!({"pods": "2", "requests.cpu": "500m", "secrets": "3", "count/configmaps": "5", "count/widgets.example.com": "1"});
    let quota: ResourceQuota = from(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    quotas.create(&params, &quota).await.unwrap();
    // What nobody defines is not counted; `kube-root-ca.crt` is.
    counts(&quotas, "q", json!({"pods": "1", "requests.cpu": "100m", "secrets": "0", "count/configmaps": "1"})).await;

    pods.create(&params, &pod("new", "300m")).await.unwrap();
    let secret: Secret = from(json!({"metadata": {"name": "s"}}));
    secrets.create(&params, &secret).await.unwrap();
    let full = json!({"pods": "2", "requests.cpu": "400m", "secrets": "1", "count/configmaps": "1"});
    counts(&quotas, "q", full).await;
    let refused = pods.create(&params, &pod("more", "1m")).await.unwrap_err();
    assert!(refused.to_string().contains("exceeded quota: q"), "{refused}");

    pods.delete("old", &DeleteParams::default()).await.unwrap();
    secrets.delete("s", &DeleteParams::default()).await.unwrap();
    counts(&quotas, "q", json!({"pods": "1", "requests.cpu": "300m", "secrets": "0", "count/configmaps": "1"})).await;
    eventually("the freed place to be usable", || async { pods.create(&params, &pod("more", "1m")).await.ok() }).await;

    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let crds =
        cluster.all::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>();
    crds.create(&params, &from(crd)).await.unwrap();
    let counted =
        |quota: &ResourceQuota| used(quota).is_some_and(|used| used.contains_key("count/widgets.example.com"));
    until(&quotas, "q", "counting widgets", counted).await;
}

/// While pods come and go at once and the controller counts, there are never more than the quota allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_hold_while_they_are_counted() {
    const HARD: usize = 8;
    let cluster = Cluster::start(config()).await;
    let (pods, quotas) = (cluster.api::<Pod>("default"), cluster.api::<ResourceQuota>("default"));
    let hard = json!({"pods": HARD.to_string(), "requests.cpu": "900m"});
    let quota: ResourceQuota = from(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    counts(&quotas, "q", json!({"pods": "0", "requests.cpu": "0"})).await;
    let users: Vec<_> = (0..32)
        .map(|user| {
            let pods = pods.clone();
            tokio::spawn(async move {
                let mut made = 0;
                for round in 0..4 {
                    let name = format!("p{user}-{round}");
                    match pods.create(&PostParams::default(), &pod(&name, "100m")).await {
                        Ok(_) => made += 1,
                        Err(error) => assert!(error.to_string().contains("exceeded quota: q"), "{error}"),
                    }
                    let there = pods.list(&ListParams::default()).await.unwrap().items;
                    let active = there.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
                    assert!(active <= HARD, "{active} pods");
                    if round % 2 == 0 {
                        let now = DeleteParams::default().grace_period(0);
                        // It may not have been made.
                        let _ = pods.delete(&name, &now).await;
                    }
                }
                made
            })
        })
        .collect();
    let mut made = 0;
    for user in users {
        made += user.await.unwrap();
    }
    assert!(made >= HARD, "{made} pods were made");
    // In the end the quota says what there is.
    eventually("the count to be right", || async {
        let there = pods.list(&ListParams::default()).await.unwrap().items.len();
        let used = used(&quotas.get("q").await.unwrap())?;
        (used.get("pods")? == &there.to_string()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_volumes_wait_for_their_users() {
    let cluster = Cluster::start(config()).await;
    let (pods, claims) = (cluster.api::<Pod>("default"), cluster.api::<PersistentVolumeClaim>("default"));
    let (params, background) = (PostParams::default(), DeleteParams::default());
    let claim = |name: &str| -> PersistentVolumeClaim {
        from(
            json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        )
    };
    for name in ["used", "unused"] {
        claims.create(&params, &claim(name)).await.unwrap();
    }
    let user: Pod = from(json!({"metadata": {"name": "user"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}],
    }}));
    pods.create(&params, &user).await.unwrap();
    until(&pods, "user", "on a node", |pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).await;
    for name in ["used", "unused"] {
        claims.delete(name, &background).await.unwrap();
    }
    gone(&claims, "unused").await;
    assert!(claims.get_opt("used").await.unwrap().is_some(), "a claim went before its pod");
    pods.delete("user", &background).await.unwrap();
    gone(&claims, "used").await;

    let volumes = cluster.all::<PersistentVolume>();
    let volume: PersistentVolume = from(json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/v"},
    }}));
    volumes.create(&params, &volume).await.unwrap();
    let phase = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    volumes.patch_status("v", &PatchParams::default(), &phase("Bound")).await.unwrap();
    volumes.delete("v", &background).await.unwrap();
    let there = volumes.get_opt("v").await.unwrap().is_some_and(|volume| volume.metadata.deletion_timestamp.is_some());
    assert!(there, "a bound volume went");
    volumes.patch_status("v", &PatchParams::default(), &phase("Released")).await.unwrap();
    gone(&volumes, "v").await;

    let classes = cluster.all::<VolumeAttributesClass>();
    let class: VolumeAttributesClass =
        from(json!({"metadata": {"name": "fast"}, "driverName": "d", "parameters": {"a": "b"}}));
    classes.create(&params, &class).await.unwrap();
    let mut fast = claim("fast");
    fast.spec.as_mut().unwrap().volume_attributes_class_name = Some("fast".into());
    claims.create(&params, &fast).await.unwrap();
    classes.delete("fast", &background).await.unwrap();
    assert!(classes.get_opt("fast").await.unwrap().is_some(), "a class went before its claim");
    claims.delete("fast", &background).await.unwrap();
    gone(&classes, "fast").await;
}
