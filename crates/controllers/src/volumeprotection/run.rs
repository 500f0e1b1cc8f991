//! Observes claims, volumes and pods, and writes finalizers.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use keelson_client::{Change, Key, SharedInformer, WorkQueue, is_not_found, run_workers};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{self, Action, CLAIM_FINALIZER, CLASS_FINALIZER, VOLUME_FINALIZER};
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

/// The `volumeattributesclass-protection-controller`.
pub async fn run_attributes_classes(context: Context) {
    let classes = context.informers.get::<VolumeAttributesClass>();
    let claims = context.informers.get::<PersistentVolumeClaim>();
    let volumes = context.informers.get::<PersistentVolume>();
    if !context.synced(&classes).await || !context.synced(&claims).await || !context.synced(&volumes).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_class = context.each(&classes, |change| match &change {
        Change::Deleted(_) => {}
        change => objects(change).for_each(|class| queue.add(Key::of(&**class))),
    });
    // Who changes or goes may have let go of the class that it had.
    let on_claim = context.each(&claims, |change| {
        if let Change::Updated(old, _) | Change::Deleted(old) = &change {
            plan::classes_of_claim(old).for_each(|class| queue.add(Key::new(None, class)));
        }
    });
    let on_volume = context.each(&volumes, |change| {
        if let Change::Updated(old, _) | Change::Deleted(old) = &change {
            plan::class_of_volume(old).into_iter().for_each(|class| queue.add(Key::new(None, class)));
        }
    });
    let (client, all) = (context.client.clone(), (classes.clone(), claims.clone(), volumes.clone()));
    let component = "volumeattributesclass-protection-controller";
    let work = run_workers(component, queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
        let (client, (classes, claims, volumes)) = (client.clone(), all.clone());
        async move {
            let Some(class) = classes.get_key(&key) else { return Ok(None) };
            let used = || {
                let by_claim =
                    || claims.list().iter().any(|one| plan::classes_of_claim(one).any(|of| of == key.name()));
                volumes.list().iter().any(|one| plan::class_of_volume(one) == Some(key.name())) || by_claim()
            };
            let action = plan::decide(&class.metadata, CLASS_FINALIZER, used);
            // The informers may be behind here too.
            if action == Action::Remove && is_named(&client, key.name()).await? {
                return Ok(None);
            }
            write(&Api::<VolumeAttributesClass>::all(client), &*class, action, CLASS_FINALIZER).await
        }
    });
    tokio::join!(on_class, on_claim, on_volume, work);
}

/// Whether the server knows of a volume or claim of an attributes class.
async fn is_named(client: &Client, class: &str) -> Result<bool, kube::Error> {
    let params = ListParams::default();
    let claims = Api::<PersistentVolumeClaim>::all(client.clone()).list(&params).await?.items;
    if claims.iter().any(|claim| plan::classes_of_claim(claim).any(|of| of == class)) {
        return Ok(true);
    }
    let volumes = Api::<PersistentVolume>::all(client.clone()).list(&params).await?.items;
    Ok(volumes.iter().any(|volume| plan::class_of_volume(volume) == Some(class)))
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
