//! Empties namespaces that are being deleted, and lets them go when they are empty.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use keelson_client::{Backoff, Change, Key, SharedInformer, WorkQueue, clock, is_conflict, is_not_found, run_workers};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::json;

use super::plan::{self, Pass};
use crate::common::discovery::{Discovered, Found, discover};
use crate::common::objects::{is_deleting, name, namespace, uid};
use crate::common::patch;
use crate::context::{Context, objects};

const COMPONENT: &str = "namespace-controller";
/// The finalizer (in `spec`) that this controller removes.
const FINALIZER: &str = "kubernetes";
/// Pauses between looks at what remains when nothing tells of its end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// The `namespace-controller`.
pub async fn run(context: Context) {
    let namespaces = context.informers.get::<Namespace>();
    let pods = context.informers.get::<Pod>();
    if !context.synced(&namespaces).await || !context.synced(&pods).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_namespace = context.each(&namespaces, |change| {
        for object in objects(&change).filter(|object| is_deleting(&object.metadata)) {
            queue.add(Key::of(&**object));
        }
    });
    // Pods are what a namespace mostly waits for.
    let on_pod = context.each(&pods, |change| {
        if let Change::Deleted(pod) = &change {
            let key = Key::new(None, namespace(&pod.metadata));
            if namespaces.get_key(&key).is_some_and(|object| is_deleting(&object.metadata)) {
                queue.add(key);
            }
        }
    });
    let this = Arc::new(Controller {
        client: context.client.clone(),
        namespaces: namespaces.clone(),
        pauses: parking_lot::Mutex::default(),
    });
    let workers = context.config.concurrent_namespace_syncs;
    let work = run_workers(COMPONENT, queue.clone(), workers, context.shutdown.clone(), move |key: Key| {
        let this = this.clone();
        async move { this.sync(&key).await }
    });
    tokio::join!(on_namespace, on_pod, work);
}

struct Controller {
    client: kube::Client,
    namespaces: SharedInformer<Namespace>,
    pauses: parking_lot::Mutex<HashMap<Key, Backoff>>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(seen) = self.namespaces.get_key(key) else {
            self.pauses.lock().remove(key);
            return Ok(None);
        };
        if !is_deleting(&seen.metadata) || finalizers(&seen).is_empty() {
            return Ok(None);
        }
        let api = Api::<Namespace>::all(self.client.clone());
        // Conditions of the last pass may not be in the informer yet.
        let Some(live) = api.get_opt(key.name()).await? else { return Ok(None) };
        if uid(&live.metadata) != uid(&seen.metadata) || finalizers(&live).is_empty() {
            return Ok(None);
        }
        let pass = self.empty(key.name()).await;
        let mut wanted = live.clone();
        wanted.status = Some(plan::status(&live.status.clone().unwrap_or_default(), &pass, clock::now()));
        let live = match patch::write(&api, Some("status"), &live, &wanted).await {
            Ok(written) => written.unwrap_or(live),
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !pass.is_complete() {
            let mut pauses = self.pauses.lock();
            let pause = pauses.entry(key.clone()).or_insert_with(|| Backoff::new(FIRST_PAUSE, LAST_PAUSE));
            return Ok(Some(pause.next_delay()));
        }
        self.finalize(&live).await?;
        Ok(None)
    }

    /// One pass over all there is: pods, and once they are gone the rest.
    async fn empty(&self, namespace: &str) -> Pass {
        let mut pass = Pass::default();
        // What is known is deleted, whatever else there may be.
        let found = match discover(&self.client).await {
            Ok(Discovered { found, failed }) => {
                pass.failed_groups = failed;
                found
            }
            Err(error) => {
                pass.discovery_error = Some(error.to_string());
                return pass;
            }
        };
        let deletable = |found: &&Found| found.namespaced && found.can("list") && found.can("delete");
        let (pods, rest): (Vec<&Found>, Vec<&Found>) = found.iter().filter(deletable).partition(|f| f.name() == "pods");
        for found in pods {
            self.delete_all(namespace, found, &mut pass).await;
        }
        if pass.is_empty() {
            for found in rest {
                self.delete_all(namespace, found, &mut pass).await;
            }
        }
        pass
    }

    async fn delete_all(&self, namespace: &str, found: &Found, pass: &mut Pass) {
        if let Err(error) = self.try_delete_all(namespace, found, pass).await {
            // A resource may be listed by discovery and yet not be there (any more).
            if !is_not_found(&error) && !matches!(&error, kube::Error::Api(status) if status.code == 405) {
                pass.delete_errors.push(error.to_string());
            }
        }
    }

    async fn try_delete_all(&self, namespace: &str, found: &Found, pass: &mut Pass) -> Result<(), kube::Error> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &found.resource);
        let params = ListParams::default();
        let mut items: Vec<PartialObjectMeta<DynamicObject>> = api.list_metadata(&params).await?.items;
        if items.is_empty() {
            return Ok(());
        }
        let background = DeleteParams::background();
        if found.can("deletecollection") {
            api.delete_collection(&background, &params).await?;
        } else {
            for item in &items {
                let uid = Some(uid(&item.metadata).to_owned());
                let params = background.clone().preconditions(Preconditions { uid, resource_version: None });
                match api.delete(name(&item.metadata), &params).await {
                    Ok(_) => {}
                    Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        items = api.list_metadata(&params).await?.items;
        if !items.is_empty() {
            pass.remaining.insert(format!("{}.{}", found.resource.plural, found.resource.group), items.len());
        }
        for finalizer in items.iter().flat_map(|item| item.metadata.finalizers.iter().flatten()) {
            *pass.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        Ok(())
    }

    /// Takes our finalizer off; the server then removes the namespace.
    async fn finalize(&self, live: &Namespace) -> Result<(), kube::Error> {
        let rest: Vec<&String> = finalizers(live).iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": live.metadata, "spec": { "finalizers": rest },
        });
        let request = http::Request::put(format!("/api/v1/namespaces/{}/finalize", name(&live.metadata)))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<Namespace>(request).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}
