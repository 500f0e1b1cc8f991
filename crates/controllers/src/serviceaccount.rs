//! A ServiceAccount called `default` in every namespace, so that pods that name none have one.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{Key, WorkQueue, is_already_exists, is_namespace_terminating, is_not_found, run_workers};
use kube::api::{Api, PostParams};

use crate::common::objects::{is_deleting, namespace};
use crate::context::{Context, objects};

const DEFAULT: &str = "default";

/// The `serviceaccount-controller`.
pub async fn run(context: Context) {
    let namespaces = context.informers.get::<Namespace>();
    let accounts = context.informers.select::<ServiceAccount>(None, Some("metadata.name=default"));
    if !context.synced(&namespaces).await || !context.synced(&accounts).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_namespace =
        context.each(&namespaces, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let on_account = context.each(&accounts, |change| {
        objects(&change).for_each(|account| queue.add(Key::new(None, namespace(&account.metadata))));
    });
    let workers = context.config.concurrent_serviceaccount_syncs;
    let client = context.client.clone();
    let (all, there) = (namespaces.clone(), accounts.clone());
    let work =
        run_workers("serviceaccount-controller", queue.clone(), workers, context.shutdown.clone(), move |key: Key| {
            let wanted = all.get_key(&key).is_some_and(|namespace| is_active(&namespace));
            let missing = wanted && there.get(Some(key.name()), DEFAULT).is_none();
            let client = client.clone();
            async move { if missing { create(client, &key).await } else { Ok(None) } }
        });
    tokio::join!(on_namespace, on_account, work);
}

/// Whether things may be made in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    phase != Some("Terminating") && !is_deleting(&namespace.metadata)
}

async fn create(client: kube::Client, key: &Key) -> Result<Option<Duration>, kube::Error> {
    let api = Api::<ServiceAccount>::namespaced(client, key.name());
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(DEFAULT.into()),
            namespace: Some(key.name().into()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match api.create(&PostParams::default(), &account).await {
        Ok(_) => Ok(None),
        Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) || is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
