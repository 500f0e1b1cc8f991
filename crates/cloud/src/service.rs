//! The service controller: gives Services of type LoadBalancer what they ask for, and writes into their status where they
//! are reached. `plan` decides, purely; `sync` acts. Events, finalizer and messages are upstream's.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use keelson_client::{Change, EventRecorder, InformerFactory, Key, LeaderElector, WorkQueue, leader, run_workers};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::provider::{Balanced, LoadBalancers, Port, ProviderError};

/// Keeps a Service from going before its load balancer.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Services worked on at once.
const CONCURRENT_SYNCS: usize = 4;

/// What the controller is told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Take the Lease `kube-system/cloud-controller-manager` before acting, under this identity.
    pub leader_election_identity: Option<String>,
}

/// What is to be done for a Service as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It wants no load balancer, has none and says so.
    Nothing,
    /// Publish it; first add the finalizer when it is not there.
    Ensure { service: Balanced, add_finalizer: bool },
    /// Take its load balancer away, then clear its status and remove the finalizer.
    Clean,
}

/// Decides.
pub fn plan(service: &core::Service) -> Action {
    let spec = service.spec.as_ref();
    let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
    let has_finalizer = finalizers.iter().any(|f| f == FINALIZER);
    let wanted = spec.is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none());
    if !wanted || service.metadata.deletion_timestamp.is_some() {
        let published = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
        let ours = spec.is_none_or(|s| s.load_balancer_class.is_none());
        let clean = has_finalizer || ours && published.is_some_and(|ingress| !ingress.is_empty());
        return if clean { Action::Clean } else { Action::Nothing };
    }
    match balanced(service) {
        Some(balanced) => Action::Ensure { service: balanced, add_finalizer: !has_finalizer },
        None => Action::Nothing,
    }
}

/// `None` while it has no cluster IP.
fn balanced(service: &core::Service) -> Option<Balanced> {
    let spec = service.spec.as_ref()?;
    let port = |port: &core::ServicePort| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: u16::try_from(port.port).ok()?,
        })
    };
    Some(Balanced {
        key: Key::of(service).as_str().to_owned(),
        cluster_ip: spec.cluster_ip.as_deref()?.parse().ok()?,
        wanted_ip: spec.load_balancer_ip.as_deref().and_then(|ip| ip.parse().ok()),
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
    })
}

/// Runs the controller until `shutdown`.
pub async fn run(
    client: kube::Client,
    informers: InformerFactory,
    config: Config,
    provider: Arc<dyn LoadBalancers>,
    shutdown: CancellationToken,
) {
    let recorder = EventRecorder::new(client.clone(), "service-controller", None);
    let Some(identity) = config.leader_election_identity else {
        control(client, &informers, recorder, provider, shutdown).await;
        return;
    };
    let lease = leader::Config::new("kube-system", "cloud-controller-manager", identity);
    let elector = LeaderElector::new(client.clone(), lease, Some(recorder.clone()));
    while let Some(leadership) = elector.acquire(&shutdown).await {
        let stop = shutdown.child_token();
        tokio::select! {
            () = control(client.clone(), &informers, recorder.clone(), provider.clone(), stop.clone()) => {}
            () = leadership.lost.cancelled() => stop.cancel(),
        }
        leadership.release().await;
        if shutdown.is_cancelled() {
            return;
        }
    }
}

async fn control(
    client: kube::Client,
    informers: &InformerFactory,
    recorder: EventRecorder,
    provider: Arc<dyn LoadBalancers>,
    stop: CancellationToken,
) {
    let services = informers.get::<core::Service>();
    let queue = WorkQueue::new();
    let controller =
        Arc::new(Controller { client, recorder, provider, published: Mutex::default(), services: services.clone() });
    let feed = async {
        let mut changes = services.subscribe();
        loop {
            match changes.next().await {
                Change::Added(service) | Change::Updated(_, service) | Change::Deleted(service) => {
                    queue.add(Key::of(&*service));
                }
                Change::Resync(all) => all.iter().for_each(|service| queue.add(Key::of(&**service))),
            }
        }
    };
    let work = run_workers("service", queue.clone(), CONCURRENT_SYNCS, stop, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await.map(|()| None) }
    });
    tokio::select! {
        () = work => {}
        () = feed => {}
    }
}

struct Controller {
    client: kube::Client,
    recorder: EventRecorder,
    provider: Arc<dyn LoadBalancers>,
    services: keelson_client::SharedInformer<core::Service>,
    /// What this process has published already: nothing is done for a Service that did not change in this.
    published: Mutex<HashMap<String, Balanced>>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), ProviderError> {
        let Some(service) = self.services.get_key(key) else {
            self.published.lock().remove(key.as_str());
            return self.provider.ensure_deleted(key.as_str()).await;
        };
        match plan(&service) {
            Action::Nothing => Ok(()),
            Action::Clean => self.clean(&service, key).await,
            Action::Ensure { service: wanted, add_finalizer } => {
                let result = self.ensure(&service, key, wanted, add_finalizer).await;
                if let Err(error) = &result {
                    let message = format!("Error syncing load balancer: failed to ensure load balancer: {error}");
                    self.recorder.warning(&keelson_client::reference(&*service), "SyncLoadBalancerFailed", message);
                }
                result
            }
        }
    }

    async fn ensure(
        &self,
        service: &core::Service,
        key: &Key,
        wanted: Balanced,
        add_finalizer: bool,
    ) -> Result<(), ProviderError> {
        if self.published.lock().get(key.as_str()) == Some(&wanted) && !add_finalizer {
            return Ok(());
        }
        let about = keelson_client::reference(service);
        self.recorder.normal(&about, "EnsuringLoadBalancer", "Ensuring load balancer");
        if add_finalizer {
            let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
            finalizers.push(FINALIZER.into());
            self.patch(service, "", json!({"metadata": {"finalizers": finalizers}})).await?;
        }
        let status = self.provider.ensure(&wanted).await?;
        let current = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        if current != Some(&status) {
            self.patch(service, "status", json!({"status": {"loadBalancer": status}})).await?;
        }
        self.published.lock().insert(key.as_str().to_owned(), wanted);
        self.recorder.normal(&about, "EnsuredLoadBalancer", "Ensured load balancer");
        Ok(())
    }

    async fn clean(&self, service: &core::Service, key: &Key) -> Result<(), ProviderError> {
        let about = keelson_client::reference(service);
        self.recorder.normal(&about, "DeletingLoadBalancer", "Deleting load balancer");
        self.published.lock().remove(key.as_str());
        self.provider.ensure_deleted(key.as_str()).await.inspect_err(|error| {
            self.recorder.warning(&about, "DeleteLoadBalancerFailed", format!("Error deleting load balancer: {error}"));
        })?;
        if service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref()).is_some() {
            self.patch(service, "status", json!({"status": {"loadBalancer": null}})).await?;
        }
        let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
        if finalizers.iter().any(|f| f == FINALIZER) {
            let rest: Vec<&String> = finalizers.iter().filter(|f| *f != FINALIZER).collect();
            self.patch(service, "", json!({"metadata": {"finalizers": rest}})).await?;
        }
        self.recorder.normal(&about, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(())
    }

    /// A merge patch of the Service (or a subresource) that is only valid for this very object.
    async fn patch(&self, service: &core::Service, subresource: &str, mut patch: Value) -> Result<(), ProviderError> {
        let metadata = &service.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let api: Api<core::Service> =
            Api::namespaced(self.client.clone(), metadata.namespace.as_deref().unwrap_or_default());
        patch["metadata"]["uid"] = json!(metadata.uid);
        if subresource.is_empty() {
            // Finalizers of others must not be lost.
            patch["metadata"]["resourceVersion"] = json!(metadata.resource_version);
        }
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let result = match subresource {
            "" => api.patch(name, &params, &patch).await,
            _ => api.patch_subresource(subresource, name, &params, &patch).await,
        };
        match result {
            Err(error) if !keelson_client::is_not_found(&error) => Err(ProviderError(error.to_string())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: Value) -> core::Service {
        let mut service = json!({"metadata": {"name": "a", "namespace": "n"}});
        for (key, value) in json.as_object().unwrap() {
            for (name, value) in value.as_object().unwrap() {
                service[key][name] = value.clone();
            }
        }
        serde_json::from_value(service).unwrap()
    }

    fn wanted() -> Value {
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 80}]})
    }

    #[test]
    fn a_new_service_is_published_with_a_finalizer() {
        let Action::Ensure { service, add_finalizer } = plan(&service(json!({"spec": wanted()}))) else { panic!() };
        assert!(add_finalizer);
        assert_eq!(
            (service.key.as_str(), service.ports[0].protocol.as_str(), service.ports[0].port),
            ("n/a", "TCP", 80)
        );
    }

    #[test]
    fn what_is_to_be_cleaned() {
        let finalizer = json!({"finalizers": [FINALIZER]});
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}});
        let deleted = json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let plain = json!({"type": "ClusterIP"});
        for (json, expected) in [
            (json!({"spec": plain}), Action::Nothing),
            (json!({"spec": plain, "metadata": finalizer}), Action::Clean),
            (json!({"spec": plain, "status": ingress}), Action::Clean),
            (json!({"spec": wanted(), "metadata": deleted}), Action::Clean),
            (
                json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "x/y", "clusterIP": "1.1.1.1"},
                    "status": ingress}),
                Action::Nothing,
            ),
            (json!({"spec": {"type": "LoadBalancer"}}), Action::Nothing),
        ] {
            assert_eq!(plan(&service(json.clone())), expected, "{json}");
        }
    }
}
