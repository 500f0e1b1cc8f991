//! Keeps the index as the informers say.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, PodStatus, Service},
    discovery::v1::EndpointSlice,
};
use keelson_client::{Change, SharedInformer};
use tokio::sync::Notify;

use crate::{Config, registration, server::Shared};

/// Of a namespace only the name is read.
pub(crate) fn keep_name(namespace: &mut Namespace) {
    namespace.spec = None;
    namespace.status = None;
    namespace.metadata.labels = None;
    namespace.metadata.annotations = None;
}

/// Of a pod only the address is read.
pub(crate) fn keep_address(pod: &mut Pod) {
    pod.spec = None;
    pod.metadata.labels = None;
    pod.metadata.annotations = None;
    let pod_ip = pod.status.take().and_then(|status| status.pod_ip);
    pod.status = Some(PodStatus { pod_ip, ..PodStatus::default() });
}

/// Follows until cancelled. `registration_changed` is told when what [`registration`] keeps was touched.
pub(crate) async fn follow(
    shared: &Arc<Shared>,
    config: &Config,
    services: SharedInformer<Service>,
    slices: SharedInformer<EndpointSlice>,
    namespaces: SharedInformer<Namespace>,
    pods: Option<SharedInformer<Pod>>,
    registration_changed: &Notify,
) {
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let mut namespace_changes = namespaces.subscribe();
    let mut pod_changes = pods.as_ref().map(SharedInformer::subscribe);
    // A complete first list of each before the first answer: to deny what exists would be worse than to be silent.
    let mut missing = 3 + usize::from(pod_changes.is_some());
    loop {
        let next_pod = async {
            match &mut pod_changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        let is_resync = tokio::select! {
            change = service_changes.next() => {
                if registration::is_about(&change, config) {
                    registration_changed.notify_one();
                }
                service_changed(shared, change)
            }
            change = slice_changes.next() => {
                if registration::is_about(&change, config) {
                    registration_changed.notify_one();
                }
                slice_changed(shared, change)
            }
            change = namespace_changes.next() => namespace_changed(shared, change),
            change = next_pod => pod_changed(shared, change),
        };
        if is_resync && missing > 0 {
            missing -= 1;
            if missing == 0 {
                shared.set_synced();
            }
        }
    }
}

fn service_changed(shared: &Shared, change: Change<Service>) -> bool {
    let mut index = shared.index.write();
    match change {
        Change::Added(new) | Change::Updated(_, new) => index.set_service(new),
        Change::Deleted(old) => index.remove_service(&old),
        Change::Resync(all) => {
            index.resync_services(all);
            return true;
        }
    }
    false
}

fn slice_changed(shared: &Shared, change: Change<EndpointSlice>) -> bool {
    let mut index = shared.index.write();
    match change {
        Change::Added(new) => index.set_slice(new),
        Change::Updated(old, new) => {
            index.remove_slice(&old);
            index.set_slice(new);
        }
        Change::Deleted(old) => index.remove_slice(&old),
        Change::Resync(all) => {
            index.resync_slices(all);
            return true;
        }
    }
    false
}

fn namespace_changed(shared: &Shared, change: Change<Namespace>) -> bool {
    let mut index = shared.index.write();
    match change {
        Change::Added(new) | Change::Updated(_, new) => index.set_namespace(&new),
        Change::Deleted(old) => index.remove_namespace(&old),
        Change::Resync(all) => {
            index.resync_namespaces(&all);
            return true;
        }
    }
    false
}

fn pod_changed(shared: &Shared, change: Change<Pod>) -> bool {
    let mut index = shared.index.write();
    match change {
        Change::Added(new) | Change::Updated(_, new) => index.set_pod(&new),
        Change::Deleted(old) => index.remove_pod(&old),
        Change::Resync(all) => {
            index.resync_pods(&all);
            return true;
        }
    }
    false
}
