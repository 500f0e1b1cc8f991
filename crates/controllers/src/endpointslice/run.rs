//! Observes Services, pods, nodes and slices, and writes slices.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{
    Change, EventRecorder, Key, SharedInformer, WorkQueue, is_namespace_terminating, is_not_found, reference,
    run_workers,
};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use super::plan::{self, Observed, SERVICE_NAME, is_ours};
use crate::common::expectations::Expectations;
use crate::common::objects::{is_deleting, label, name, namespace, uid};
use crate::common::{patch, pods};
use crate::context::{Context, objects};

const COMPONENT: &str = "endpoint-slice-controller";
/// Index of slices by `namespace/service`.
pub(super) const BY_SERVICE: &str = "service";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The `endpointslice-controller`.
pub async fn run(context: Context) {
    let services = context.informers.get::<Service>();
    let all_pods = context.informers.get::<Pod>();
    let slices = context.informers.get::<EndpointSlice>();
    let nodes = context.informers.get::<Node>();
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.as_str().to_owned()));
    if !context.synced(&services).await
        || !context.synced(&all_pods).await
        || !context.synced(&slices).await
        || !context.synced(&nodes).await
    {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        client: context.client.clone(),
        recorder: context.recorder(COMPONENT),
        services: services.clone(),
        pods: all_pods.clone(),
        slices: slices.clone(),
        nodes: nodes.clone(),
        expectations: Expectations::default(),
        max_endpoints: context.config.max_endpoints_per_slice,
    });
    let on_service =
        context.each(&services, |change| objects(&change).for_each(|service| queue.add(Key::of(&**service))));
    let on_pod = context.each(&all_pods, |change| {
        for key in services_of_change(&services, &change) {
            queue.add(key);
        }
    });
    let on_slice = context.each(&slices, |change| {
        for slice in objects(&change).filter(|slice| is_ours(slice)) {
            service_of(slice).into_iter().for_each(|key| queue.add(key));
        }
    });
    let on_node = context.each(&nodes, |change| {
        let zone = |node: &Node| label(&node.metadata, ZONE).map(str::to_owned);
        let moved = match &change {
            Change::Updated(old, new) => zone(old) != zone(new),
            Change::Added(node) | Change::Deleted(node) => zone(node).is_some(),
            Change::Resync(_) => true,
        };
        if moved {
            services.list().iter().for_each(|service| queue.add(Key::of(&**service)));
        }
    });
    let workers = context.config.concurrent_service_endpoint_syncs;
    let work = run_workers(COMPONENT, queue.clone(), workers, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_service, on_pod, on_slice, on_node, work);
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let service = label(&slice.metadata, SERVICE_NAME)?;
    Some(Key::new(Some(namespace(&slice.metadata)), service))
}

/// The labels by which a Service chooses pods; none for those that choose none.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
    spec?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether a Service chooses what has these labels. Asked for every Service at every change of a pod, so it builds
/// nothing.
pub(crate) fn selects(service: &Service, meta: &ObjectMeta) -> bool {
    let has = |(key, value): (&String, &String)| label(meta, key) == Some(value.as_str());
    selector(service).is_some_and(|selector| selector.iter().all(has))
}

/// Services whose endpoints a change of pods may change. Most updates of pods (restart counts, resource versions) change
/// none.
pub(crate) fn services_of_change(services: &SharedInformer<Service>, change: &Change<Pod>) -> Vec<Key> {
    let all = |keep: &dyn Fn(&Service) -> bool, namespace: &str| -> Vec<Key> {
        let services = services.list_in(namespace);
        services.iter().filter(|service| keep(service)).map(|service| Key::of(&**service)).collect()
    };
    match change {
        Change::Added(pod) | Change::Deleted(pod) => {
            all(&|service| selects(service, &pod.metadata), namespace(&pod.metadata))
        }
        Change::Updated(old, new) => {
            let relabeled = old.metadata.labels != new.metadata.labels;
            if !relabeled && !is_endpoint_changed(old, new) {
                return Vec::new();
            }
            let affected =
                |service: &Service| selects(service, &new.metadata) || relabeled && selects(service, &old.metadata);
            all(&affected, namespace(&new.metadata))
        }
        Change::Resync(_) => services.list().iter().map(|service| Key::of(&**service)).collect(),
    }
}

fn is_endpoint_changed(old: &Pod, new: &Pod) -> bool {
    let shape = |pod: &Pod| {
        let status = pod.status.as_ref();
        let spec = pod.spec.as_ref();
        (
            pods::is_ready(pod),
            is_deleting(&pod.metadata),
            pods::is_finished(pod),
            status.and_then(|status| status.pod_ip.clone()),
            status.and_then(|status| status.pod_ips.clone()),
            spec.and_then(|spec| spec.node_name.clone()),
            spec.and_then(|spec| spec.hostname.clone()),
        )
    };
    shape(old) != shape(new)
}

struct Controller {
    client: kube::Client,
    recorder: EventRecorder,
    services: SharedInformer<Service>,
    pods: SharedInformer<Pod>,
    slices: SharedInformer<EndpointSlice>,
    nodes: SharedInformer<Node>,
    expectations: Expectations,
    max_endpoints: usize,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(service) = self.services.get_key(key) else {
            // The slices are the garbage collector's.
            self.expectations.forget(key);
            return Ok(None);
        };
        if selector(&service).is_none() || is_deleting(&service.metadata) {
            return Ok(None);
        }
        // Acting on slices that lack our own writes would make the same endpoints twice.
        if !self.expectations.fulfilled(key, &self.slices) {
            return Ok(None);
        }
        let known = self.slices.by_index(BY_SERVICE, key.as_str());
        let slices: Vec<&EndpointSlice> = known
            .iter()
            .map(|slice| &**slice)
            .filter(|slice| is_ours(slice) && !is_deleting(&slice.metadata) && plan::belongs(slice, &service))
            .collect();
        let in_namespace = self.pods.list_in(namespace(&service.metadata));
        let pods: Vec<&Pod> =
            in_namespace.iter().map(|pod| &**pod).filter(|pod| selects(&service, &pod.metadata)).collect();
        let mut zones = HashMap::new();
        for node in self.nodes.list() {
            if let Some(zone) = label(&node.metadata, ZONE) {
                zones.insert(name(&node.metadata).to_owned(), zone.to_owned());
            }
        }
        let max_endpoints = self.max_endpoints;
        let plan =
            plan::plan(&Observed { service: &service, pods: &pods, slices: &slices, zones: &zones, max_endpoints });
        let result = self.carry_out(key, &service, plan, &slices).await;
        if let Err(error) = &result {
            let message = format!(
                "Error updating Endpoint Slices for Service {}/{}: {error}",
                namespace(&service.metadata),
                name(&service.metadata)
            );
            self.recorder.warning(&reference(&*service), "FailedToUpdateEndpointSlices", message);
        }
        result.map(|()| None)
    }

    async fn carry_out(
        &self,
        key: &Key,
        service: &Service,
        plan: plan::Plan,
        known: &[&EndpointSlice],
    ) -> Result<(), kube::Error> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace(&service.metadata));
        for slice in &plan.create {
            match api.create(&PostParams::default(), slice).await {
                Ok(made) => self.expectations.created(key, made.metadata.resource_version.as_deref()),
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        for slice in &plan.update {
            let Some(before) = known.iter().find(|before| before.metadata.uid == slice.metadata.uid) else { continue };
            if let Some(written) = patch::write(&api, None, *before, slice).await? {
                self.expectations.created(key, written.metadata.resource_version.as_deref());
            }
        }
        for slice in &plan.delete {
            let uid = uid(&slice.metadata).to_owned();
            let params =
                DeleteParams::default().preconditions(Preconditions { uid: Some(uid.clone()), resource_version: None });
            match api.delete(name(&slice.metadata), &params).await {
                Ok(_) => self.expectations.deleted(key, Key::of(slice), &uid),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
