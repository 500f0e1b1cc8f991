//! Bootstrap tokens: those whose time is over are deleted, and each signs the cluster's address in `kube-public/cluster-info`,
//! so that a machine that has a token can tell that the address is not forged. (Upstream has both off; kubeadm turns them on.)

mod signatures;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keelson_client::{Key, SharedInformer, WorkQueue, is_conflict, is_not_found, run_workers};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::common::objects::{is_deleting, namespace};
use crate::context::{Context, objects};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const OF_TYPE: &str = "type=bootstrap.kubernetes.io/token";

/// One value of a token's Secret, as text.
fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

/// When a token ends; `Some(None)` when that cannot be read, which ends it at once.
fn expiration(secret: &Secret) -> Option<Option<jiff::Timestamp>> {
    let at = text(secret, "expiration");
    (!at.is_empty()).then(|| at.parse().ok())
}

/// How long a token is still good: for ever, for some time, or not at all.
fn left(secret: &Secret, now: jiff::Timestamp) -> Option<Duration> {
    let at = expiration(secret)?;
    Some(at.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or_default())
}

fn tokens(context: &Context) -> SharedInformer<Secret> {
    context.informers.select::<Secret>(None, Some(OF_TYPE))
}

/// The `token-cleaner-controller`.
pub async fn run_cleaner(context: Context) {
    let secrets = tokens(&context);
    if !context.synced(&secrets).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_secret = context.each(&secrets, |change| {
        let of_system = objects(&change).filter(|secret| namespace(&secret.metadata) == SYSTEM);
        of_system.for_each(|secret| queue.add(Key::of(&**secret)));
    });
    let (client, known) = (context.client.clone(), secrets.clone());
    let work = run_workers("token-cleaner-controller", queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
        let (client, secret) = (client.clone(), known.get_key(&key));
        async move {
            let Some(secret) = secret.filter(|secret| !is_deleting(&secret.metadata)) else { return Ok(None) };
            match left(&secret, keelson_client::clock::now()) {
                None => Ok(None),
                Some(left) if !left.is_zero() => Ok(Some(left)),
                Some(_) => delete(client, &key, &secret).await,
            }
        }
    });
    tokio::join!(on_secret, work);
}

async fn delete(client: kube::Client, key: &Key, secret: &Secret) -> Result<Option<Duration>, kube::Error> {
    let preconditions =
        Preconditions { uid: secret.metadata.uid.clone(), resource_version: secret.metadata.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match Api::<Secret>::namespaced(client, SYSTEM).delete(key.name(), &params).await {
        // Somebody gave it more time, or was faster.
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error),
        _ => Ok(None),
    }
}

/// The `bootstrap-signer-controller`.
pub async fn run_signer(context: Context) {
    let secrets = tokens(&context);
    let maps = context.informers.select::<ConfigMap>(None, Some("metadata.name=cluster-info"));
    if !context.synced(&secrets).await || !context.synced(&maps).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let key = || Key::new(Some(PUBLIC), CLUSTER_INFO);
    let on_secret = context.each(&secrets, |_| queue.add(key()));
    let on_map = context.each(&maps, |_| queue.add(key()));
    let this = Arc::new((context.client.clone(), secrets.clone(), maps.clone()));
    let work =
        run_workers("bootstrap-signer-controller", queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
            let this = this.clone();
            async move {
                let (client, secrets, maps) = &*this;
                let Some(map) = maps.get_key(&key) else { return Ok(None) };
                let Some(signed) = signatures::signed(&map, &secrets.list_in(SYSTEM), keelson_client::clock::now())
                else {
                    return Ok(None);
                };
                let api = Api::<ConfigMap>::namespaced(client.clone(), PUBLIC);
                match api.replace(CLUSTER_INFO, &PostParams::default(), &signed).await {
                    Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error),
                    _ => Ok(None),
                }
            }
        });
    tokio::join!(on_secret, on_map, work);
}
