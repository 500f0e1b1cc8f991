//! The end of a definition: its objects are deleted, with all that their finalizers ask for, and only then is it let go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api::kinds::apiextensions::{FINALIZER, condition, set_condition};
use keelson_api::status::Status;
use keelson_client::Backoff;
use parking_lot::Mutex;
use serde_json::Value;

use super::{GROUP, RESOURCE, Shared, set_status};
use crate::cache::Entry;
use crate::core::Core;
use crate::registry::Resource;
use crate::registry::create::{now, text};
use crate::registry::delete::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};

/// Deletes under way at once.
const CONCURRENCY: usize = 32;
/// How long the objects may take before the definition's status says that they do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between two attempts.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Whether a deleted definition waits for its objects.
pub(super) fn is_due(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    !text(object, "deletionTimestamp").is_empty() && finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

/// What the resources of each definition share now.
pub(super) type SharedByName = Arc<Mutex<HashMap<String, Arc<Shared>>>>;

/// One deleted definition. Others may have its name later.
#[derive(Clone, Copy)]
pub(super) struct Doomed<'a> {
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) shared: &'a SharedByName,
}

/// Deletes the objects and lets the definition go; tries until it is gone or the server stops.
pub(super) async fn run(core: &Arc<Core>, doomed: Doomed<'_>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        match attempt(core, doomed).await {
            Ok(()) => return,
            Err(error) if error.code == 404 => return,
            Err(error) => tracing::info!(%error, definition = doomed.name, "custom resources are not deleted yet"),
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = backoff.wait() => {}
        }
    }
}

/// The definition may change between two attempts, and its resources with it.
async fn attempt(core: &Core, doomed: Doomed<'_>) -> Result<(), Status> {
    let object = doomed.read(core)?;
    if !is_due(&object) {
        return Ok(());
    }
    let shared = doomed.shared.lock().get(doomed.name).cloned();
    let Some(shared) = shared else {
        if condition(&object, "Established").is_some_and(|condition| condition["status"] == "True") {
            return Err(Status::unavailable("the custom resources are not served yet"));
        }
        return doomed.finish(core, "NeverEstablished", "resource was never established").await;
    };
    doomed.say(core, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
    let resource = Resource::custom(shared.storage.clone(), shared.stored.clone(), shared.clone());
    let options = DeleteOptions::default();
    let internal = WriteOptions::internal();
    let entries: Vec<Arc<Entry>> = shared.stored.snapshot().map.values().cloned().collect();
    let (resource, options, asked) = (&resource, &options, internal.asked());
    let results = futures::stream::iter(entries).map(|entry| async move {
        let namespace = match resource.kind.scope {
            keelson_api::kind::Scope::Namespaced => entry.namespace(),
            keelson_api::kind::Scope::Cluster => "",
        };
        delete(core, resource, namespace, entry.name(), options, asked).await.map(|_| ())
    });
    let errors: Vec<Status> = results
        .buffer_unordered(CONCURRENCY)
        .filter_map(|result| async move { result.err().filter(|error| error.code != 404) })
        .collect()
        .await;
    // What is said of the resources is said of those of now.
    shared.stored.check_current()?;
    if let Some(error) = errors.first() {
        let message = format!("could not issue all deletes: {}", error.message);
        doomed.say(core, true, "InstanceDeletionFailed", &message).await?;
        return Err(error.clone());
    }
    let mut changed = shared.stored.follow();
    let gone = async {
        while !shared.stored.is_over() && !shared.stored.snapshot().map.is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, gone).await;
    shared.stored.check_current()?;
    if outcome.is_err() {
        let message = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
        doomed.say(core, true, "InstanceDeletionCheck", message).await?;
        return Err(Status::internal(message));
    }
    doomed.finish(core, "InstanceDeletionCompleted", "removed all instances").await
}

impl Doomed<'_> {
    /// Sets the `Terminating` condition.
    async fn say(&self, core: &Core, status: bool, reason: &str, message: &str) -> Result<(), Status> {
        let mut object = self.read(core)?;
        if set_condition(&mut object, "Terminating", status, reason, message, &now().into()) {
            set_status(core, &object).await?;
        }
        Ok(())
    }

    /// Takes the finalizer off.
    async fn finish(&self, core: &Core, reason: &str, message: &str) -> Result<(), Status> {
        let mut object = self.read(core)?;
        set_condition(&mut object, "Terminating", false, reason, message, &now().into());
        if let Some(finalizers) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        set_status(core, &object).await
    }

    /// The definition as it is; 404 when it is gone, also when another has its name.
    fn read(&self, core: &Core) -> Result<Value, Status> {
        let resource = core.registry.known(GROUP, RESOURCE)?;
        let gone = || resource.not_found(self.name);
        let object = resource.decode(&*resource.cache()?.get("", self.name).ok_or_else(gone)?)?;
        if text(&object, "uid") == self.uid { Ok(object) } else { Err(gone()) }
    }
}
