//! A controller as people write them with kube-rs: outside the cluster, for a kind of its own, with a finalizer and children
//! that it owns.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{mentions, says, up};

const MANAGER: &str = "gardener";

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "garden.example.com",
    version = "v1",
    kind = "Plant",
    namespaced,
    status = "PlantStatus",
    shortname = "pl",
    printcolumn = r#"{"name":"Height","type":"integer","jsonPath":".status.height"}"#
)]
struct PlantSpec {
    species: String,
    height: i64,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct PlantStatus {
    height: i64,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Finalizer(#[from] Box<kube::runtime::finalizer::Error<Self>>),
}

/// The plant's label, and what grew.
async fn grow(client: &Client, plant: &Plant) -> Result<Action, Error> {
    let namespace = plant.namespace().unwrap_or_default();
    let label = ConfigMap {
        metadata: ObjectMeta {
            name: Some(plant.name_any()),
            owner_references: Some(plant.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some([("species".to_owned(), plant.spec.species.clone())].into()),
        ..ConfigMap::default()
    };
    let labels: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let apply = PatchParams::apply(MANAGER).force();
    labels.patch(&plant.name_any(), &apply, &Patch::Apply(label)).await?;
    let plants: Api<Plant> = Api::namespaced(client.clone(), &namespace);
    let status = serde_json::json!({ "status": { "height": plant.spec.height } });
    plants.patch_status(&plant.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(Action::await_change())
}

/// What stays of it.
async fn compost(client: &Client, plant: &Plant) -> Result<Action, Error> {
    let heap: Api<ConfigMap> = Api::namespaced(client.clone(), &plant.namespace().unwrap_or_default());
    let change = ConfigMap {
        metadata: ObjectMeta { name: Some("compost".into()), ..ObjectMeta::default() },
        data: Some([(plant.name_any(), plant.spec.species.clone())].into()),
        ..ConfigMap::default()
    };
    heap.patch("compost", &PatchParams::apply(MANAGER), &Patch::Apply(change)).await?;
    Ok(Action::await_change())
}

async fn reconcile(plant: Arc<Plant>, client: Arc<Client>) -> Result<Action, Error> {
    let plants: Api<Plant> = Api::namespaced((*client).clone(), &plant.namespace().unwrap_or_default());
    let done = finalizer(&plants, "garden.example.com/compost", plant, |event| async {
        match event {
            Event::Apply(plant) => grow(&client, &plant).await,
            Event::Cleanup(plant) => compost(&client, &plant).await,
        }
    });
    done.await.map_err(|error| Error::Finalizer(Box::new(error)))
}

async fn run(client: Client) {
    let plants: Api<Plant> = Api::all(client.clone());
    let labels: Api<ConfigMap> = Api::all(client.clone());
    let retry = |_: Arc<Plant>, error: &Error, _: Arc<Client>| {
        eprintln!("{error}");
        Action::requeue(Duration::from_millis(200))
    };
    Controller::new(plants, watcher::Config::default())
        .owns(labels, watcher::Config::default())
        .run(reconcile, retry, Arc::new(client))
        .for_each(|_| std::future::ready(()))
        .await;
}

#[test]
fn a_controller_outside_the_cluster_keeps_its_kind() {
    let cluster = up();
    let c = &cluster;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let client = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
        let client = Client::try_from(config).expect("a client");
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let name = Plant::crd_name();
        let apply = PatchParams::apply(MANAGER).force();
        definitions.patch(name, &apply, &Patch::Apply(Plant::crd())).await.expect("the definition is applied");
        let established = await_condition(definitions, name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.expect("in time").expect("established");
        client
    });
    runtime.spawn(run(client));

    let plant = |height: &str| {
        format!(
            "{{apiVersion: garden.example.com/v1, kind: Plant, metadata: {{name: fern}}, spec: {{species: Fern, height: {height}}}}}"
        )
    };
    let apply = |text: &str| format!("echo '{text}' | kubectl apply -f -");
    // The server knows the kind before kubectl's own view of it is old.
    says(c, &apply(&plant("3")), "plant.garden.example.com/fern created\n");
    mentions(
        c,
        &apply(&plant("tall")),
        &["spec.height: Invalid value: \"string\"", "must be of type integer", "[exit 1]"],
    );
    cluster.wait_for("get plants --no-headers", |rows| {
        rows.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()).any(|row| row == ["fern", "3"])
    });
    says(
        c,
        "kubectl get configmap fern -o jsonpath='{.data.species} {.metadata.ownerReferences[0].kind}'",
        "Fern Plant",
    );
    says(c, "kubectl get pl fern -o jsonpath='{.metadata.finalizers[0]}'", "garden.example.com/compost");
    mentions(
        c,
        "kubectl explain plant.spec",
        &["GROUP:      garden.example.com\n", "  height\t<integer> -required-\n"],
    );

    says(
        c,
        "kubectl patch plant fern --type merge -p '{\"spec\":{\"species\":\"Tree fern\",\"height\":5}}'",
        "plant.garden.example.com/fern patched\n",
    );
    cluster.wait_for("get configmap fern -o jsonpath={.data.species}", |species| species == "Tree fern");
    cluster.wait_for("get plant fern -o jsonpath={.status.height}", |height| height == "5");
    // What is taken from it comes back, by its watch of what it owns.
    let first = cluster.kubectl("get configmap fern -o jsonpath={.metadata.uid}");
    cluster.kubectl("delete configmap fern");
    cluster.wait_for("get configmap fern -o jsonpath={.metadata.uid}", |uid| !uid.is_empty() && uid != first);

    says(
        c,
        "kubectl delete plant fern --timeout=30s",
        "plant.garden.example.com \"fern\" deleted from default namespace\n",
    );
    says(c, "kubectl get configmap compost -o jsonpath='{.data.fern}'", "Tree fern");
    cluster.wait_for("get configmaps -o name", |names| !names.contains("configmap/fern"));
    runtime.shutdown_background();
}
