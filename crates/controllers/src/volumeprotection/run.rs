//! Observes claims, volumes and pods, and writes finalizers.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use keelson_client::{Change, Key, SharedInformer, WorkQueue, is_not_found, run_workers};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{self, Action, CLAIM_FINALIZER, VOLUME_FINALIZER};
use crate::common::objects::{name, namespace};
use crate::common::pods;
use crate::context::{Context, objects};

/// Objects worked on at once.
const WORKERS: usize = 2;

/// The `persistentvolumeclaim-protection-controller`.
pub async fn run_claims(context: Context) {
    let claims = context.informers.get::<PersistentVolumeClaim>();
    let all_pods = context.informers.get::<Pod>();
    if !context.synced(&claims).await || !context.synced(&all_pods).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_claim = context.each(&claims, |change| match &change {
        Change::Deleted(_) => {}
        change => objects(change).for_each(|claim| queue.add(Key::of(&**claim))),
    });
    // A pod lets go of its claims when it is gone, and never before.
    let on_pod = context.each(&all_pods, |change| {
        if let Change::Deleted(pod) = &change {
            let namespace = namespace(&pod.metadata);
            plan::claims(pod).for_each(|used| queue.add(Key::new(Some(namespace), &used.name)));
        }
    });
    let this = Arc::new(Claims { client: context.client.clone(), claims: claims.clone(), pods: all_pods.clone() });
    let component = "persistentvolumeclaim-protection-controller";
    let work = run_workers(component, queue.clone(), WORKERS, context.shutdown.clone(), move |key: Key| {
        let this = this.clone();
        async move { this.sync(&key).await }
    });
    tokio::join!(on_claim, on_pod, work);
}

struct Claims {
    client: Client,
    claims: SharedInformer<PersistentVolumeClaim>,
    pods: SharedInformer<Pod>,
}

impl Claims {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(None) };
        let space = namespace(&claim.metadata);
        let used = || self.pods.list_in(space).iter().any(|pod| plan::uses(pod, &claim));
        let action = plan::decide(&claim.metadata, CLAIM_FINALIZER, used);
        // The informer may be behind; a pod that it does not know yet would lose its volume.
        if action == Action::Remove {
            let api = Api::<Pod>::namespaced(self.client.clone(), space);
            let pods = api.list(&ListParams::default()).await?;
            if pods.items.iter().any(|pod| pods::node(pod).is_some() && plan::uses(pod, &claim)) {
                return Ok(None);
            }
        }
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), space);
        write(&api, &*claim, action, CLAIM_FINALIZER).await
    }
}

/// The `persistentvolume-protection-controller`.
pub async fn run_volumes(context: Context) {
    let volumes = context.informers.get::<PersistentVolume>();
    if !context.synced(&volumes).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_volume = context.each(&volumes, |change| match &change {
        Change::Deleted(_) => {}
        change => objects(change).for_each(|volume| queue.add(Key::of(&**volume))),
    });
    let (client, all) = (context.client.clone(), volumes.clone());
    let component = "persistentvolume-protection-controller";
    let work = run_workers(component, queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
        let (client, volume) = (client.clone(), all.get_key(&key));
        async move {
            let Some(volume) = volume else { return Ok(None) };
            let action = plan::decide(&volume.metadata, VOLUME_FINALIZER, || plan::is_bound(&volume));
            write(&Api::<PersistentVolume>::all(client), &*volume, action, VOLUME_FINALIZER).await
        }
    });
    tokio::join!(on_volume, work);
}

async fn write<K>(api: &Api<K>, object: &K, action: Action, finalizer: &str) -> Result<Option<Duration>, kube::Error>
where
    K: kube::Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut wanted = object.clone();
    let finalizers = wanted.meta_mut().finalizers.get_or_insert_default();
    match action {
        Action::Nothing => return Ok(None),
        Action::Add => finalizers.push(finalizer.to_owned()),
        Action::Remove => finalizers.retain(|one| one != finalizer),
    }
    match api.replace(name(object.meta()), &PostParams::default(), &wanted).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
