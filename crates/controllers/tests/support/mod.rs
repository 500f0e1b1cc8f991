//! A real API server over a real store, the controllers, and a stand-in for scheduler and kubelet: pods are bound to
//! one node, become ready, and end when deleted.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Event, Node, ObjectReference, Pod, ServiceAccount};
use keelson_apiserver::{ApiServer, UserInfo};
use keelson_client::{Change, SharedInformer};
use keelson_controllers::Config;
use keelson_store::LocalStore;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub client: Client,
    server: ApiServer,
    controllers: Option<(JoinHandle<()>, CancellationToken)>,
    kubelet: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

pub fn config() -> Config {
    Config {
        leader_elect: false,
        root_ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        allocate_node_cidrs: true,
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Config::default()
    }
}

impl Cluster {
    pub async fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path(), keelson_store::Options::default()).unwrap();
        let server = ApiServer::new(keelson_apiserver::Config::default(), Arc::new(store)).await.unwrap();
        let client = server.kube_client(UserInfo::new("admin", ["system:masters"]));
        let node: Node = from(json!({"metadata": {"name": "node-1"}}));
        let nodes = Api::<Node>::all(client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        report_ready(&client, "node-1").await;
        let kubelet = tokio::spawn(kubelet(client.clone()));
        let mut cluster = Self { client, server, controllers: None, kubelet, _dir: dir };
        cluster.start_controllers(config);
        // Without it pods are refused.
        for namespace in ["default", "kube-public"] {
            until(&cluster.api::<ServiceAccount>(namespace), "default", "there", |_| true).await;
        }
        cluster
    }

    pub fn start_controllers(&mut self, config: Config) {
        let client = self.server.kube_client(UserInfo::new("system:kube-controller-manager", [] as [&str; 0]));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { keelson_controllers::run(client, config, stop).await.unwrap() });
        self.controllers = Some((task, shutdown));
    }

    pub async fn stop_controllers(&mut self) {
        if let Some((task, shutdown)) = self.controllers.take() {
            shutdown.cancel();
            tokio::time::timeout(DEADLINE, task).await.expect("controllers stop in time").unwrap();
        }
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Messages of events with a reason, about objects of a name that begins with `prefix`, once there are `count`.
    pub async fn events(&self, namespace: &str, reason: &str, prefix: &str, count: usize) -> Vec<String> {
        let api = self.api::<Event>(namespace);
        eventually(&format!("{count} events {reason}"), || async {
            let all = api.list(&ListParams::default()).await.unwrap();
            let chosen = all.items.into_iter().filter(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.involved_object.name.as_deref().is_some_and(|name| name.starts_with(prefix))
            });
            let messages: Vec<String> = chosen.filter_map(|event| event.message).collect();
            (messages.len() >= count).then_some(messages)
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((task, shutdown)) = &self.controllers {
            shutdown.cancel();
            task.abort();
        }
        self.kubelet.abort();
    }
}

pub fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Waits until `check` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Waits until an object is as wanted.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, check: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let last = std::sync::Mutex::new(None);
    let wait = async {
        loop {
            let found = api.get_opt(name).await.unwrap();
            if let Some(object) = &found
                && check(object)
            {
                return object.clone();
            }
            *last.lock().unwrap() = found;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(object) => object,
        Err(_) => panic!("{name} is not {what}: {:#?}", last.lock().unwrap()),
    }
}

/// Waits until an object is gone.
pub async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    eventually(&format!("{name} to be gone"), || async { api.get_opt(name).await.unwrap().is_none().then_some(()) })
        .await;
}

pub async fn list<K>(api: &Api<K>, labels: &str) -> Vec<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.list(&ListParams::default().labels(labels)).await.unwrap().items
}

pub async fn report_ready(client: &Client, node: &str) {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(keelson_client::clock::now());
    let ready = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}});
    let nodes = Api::<Node>::all(client.clone());
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(&ready)).await.unwrap();
}

/// Binds, runs and ends pods. An annotation `test/never-ready` keeps one from becoming ready.
async fn kubelet(client: Client) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let informer = SharedInformer::start(Api::<Pod>::all(client.clone()), watcher::Config::default(), None);
    let mut changes = informer.subscribe();
    loop {
        let pods = match changes.next().await {
            Change::Added(pod) | Change::Updated(_, pod) => vec![pod],
            Change::Deleted(_) => continue,
            Change::Resync(all) => all,
        };
        for pod in pods {
            let name = pod.metadata.name.clone().unwrap();
            let api = Api::<Pod>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let started = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() != Some("Pending"));
            let result = if pod.metadata.deletion_timestamp.is_some() {
                api.delete(&name, &DeleteParams::default().grace_period(0)).await.map(|_| ())
            } else if !bound {
                let binding = Binding {
                    metadata: kube::core::ObjectMeta { name: Some(name.clone()), ..Default::default() },
                    target: ObjectReference {
                        kind: Some("Node".into()),
                        name: Some("node-1".into()),
                        ..ObjectReference::default()
                    },
                };
                let created =
                    api.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await;
                created.map(|_| ())
            } else if !started {
                let n = NEXT.fetch_add(1, Ordering::Relaxed);
                let annotations = pod.metadata.annotations.as_ref();
                let ready = annotations.is_none_or(|annotations| !annotations.contains_key("test/never-ready"));
                let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(keelson_client::clock::now());
                let status = json!({"status": {
                    "phase": "Running", "podIP": format!("10.244.{}.{}", n / 250, n % 250 + 1),
                    // In place of what an earlier, unseen patch of this kind said.
                    "podIPs": [{"$patch": "replace"}, {"ip": format!("10.244.{}.{}", n / 250, n % 250 + 1)}],
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": now}],
                }});
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await.map(|_| ())
            } else {
                Ok(())
            };
            match result {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                other => other.unwrap(),
            }
        }
    }
}

pub fn deployment(name: &str, replicas: i32, image: &str) -> k8s_openapi::api::apps::v1::Deployment {
    from(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": image}]}
            }
        }
    }))
}
