//! Observes Services and pods, and writes Endpoints.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use keelson_client::{
    EventRecorder, Key, SharedInformer, WorkQueue, is_already_exists, is_namespace_terminating, is_not_found,
    reference, run_workers,
};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use super::plan::{self, MANAGED_BY, MANAGER};
use crate::common::objects::{label, name, namespace, uid};
use crate::common::patch;
use crate::context::{Context, objects};
use crate::endpointslice::{selector, selects, services_of_change};

const COMPONENT: &str = "endpoint-controller";

/// The `endpoints-controller`.
pub async fn run(context: Context) {
    let services = context.informers.get::<Service>();
    let all_pods = context.informers.get::<Pod>();
    let endpoints = context.informers.get::<Endpoints>();
    if !context.synced(&services).await || !context.synced(&all_pods).await || !context.synced(&endpoints).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        client: context.client.clone(),
        recorder: context.recorder(COMPONENT),
        services: services.clone(),
        pods: all_pods.clone(),
        endpoints: endpoints.clone(),
    });
    let on_service =
        context.each(&services, |change| objects(&change).for_each(|service| queue.add(Key::of(&**service))));
    let on_pod = context.each(&all_pods, |change| {
        for key in services_of_change(&services, &change) {
            queue.add(key);
        }
    });
    let on_endpoints = context.each(&endpoints, |change| {
        for object in objects(&change).filter(|object| label(&object.metadata, MANAGED_BY) == Some(MANAGER)) {
            queue.add(Key::of(&**object));
        }
    });
    let workers = context.config.concurrent_endpoint_syncs;
    let work = run_workers(COMPONENT, queue.clone(), workers, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_service, on_pod, on_endpoints, work);
}

struct Controller {
    client: kube::Client,
    recorder: EventRecorder,
    services: SharedInformer<Service>,
    pods: SharedInformer<Pod>,
    endpoints: SharedInformer<Endpoints>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let api = Api::<Endpoints>::namespaced(self.client.clone(), key.namespace().unwrap_or_default());
        let existing = self.endpoints.get_key(key);
        let Some(service) = self.services.get_key(key) else {
            // Endpoints have no owner reference; they go with the Service of their name.
            if let Some(orphan) = existing {
                let uid = Some(uid(&orphan.metadata).to_owned());
                let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
                match api.delete(key.name(), &params).await {
                    Ok(_) => {}
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(None);
        };
        if selector(&service).is_none() {
            return Ok(None);
        }
        let in_namespace = self.pods.list_in(namespace(&service.metadata));
        let pods: Vec<&Pod> =
            in_namespace.iter().map(|pod| &**pod).filter(|pod| selects(&service, &pod.metadata)).collect();
        let wanted = plan::plan(&service, &pods, existing.as_deref());
        let result = match &existing {
            Some(existing) => patch::write(&api, None, &**existing, &wanted).await.map(|_| ()),
            None => api.create(&PostParams::default(), &wanted).await.map(|_| ()),
        };
        match result {
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            // The informer is behind; the object's arrival brings the Service back here.
            Err(error) if is_already_exists(&error) => Err(error),
            Err(error) => {
                let message = format!(
                    "Failed to {} endpoint {}/{}: {error}",
                    if existing.is_some() { "update" } else { "create" },
                    namespace(&service.metadata),
                    name(&service.metadata)
                );
                let reason = if existing.is_some() { "FailedToUpdateEndpoint" } else { "FailedToCreateEndpoint" };
                self.recorder.warning(&reference(&*service), reason, message);
                Err(error)
            }
            Ok(()) => Ok(None),
        }
    }
}
