//! The end of a definition: its objects are deleted, with all that their finalizers ask for, and only then is it let go.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api::kinds::apiextensions::{FINALIZER, set_condition};
use keelson_api::status::Status;
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
const RETRY: Duration = Duration::from_secs(1);

/// Whether a deleted definition waits for its objects.
pub(super) fn is_due(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    !text(object, "deletionTimestamp").is_empty() && finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

/// Deletes the objects and lets the definition go; tries until it is gone or the server stops.
pub(super) async fn run(core: &Arc<Core>, name: &str, shared: Option<Arc<Shared>>) {
    loop {
        match attempt(core, name, shared.as_ref()).await {
            Ok(()) => return,
            Err(error) if error.code == 404 => return,
            Err(error) => tracing::info!(%error, definition = name, "custom resources are not deleted yet"),
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn attempt(core: &Core, name: &str, shared: Option<&Arc<Shared>>) -> Result<(), Status> {
    let Some(shared) = shared else {
        return finish(core, name, "NeverEstablished", "resource was never established").await;
    };
    say(core, name, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
    let resource = Resource::custom(shared.storage.clone(), shared.stored.clone(), shared.clone());
    let options = DeleteOptions::default();
    let user = WriteOptions::internal().user;
    let entries: Vec<Arc<Entry>> = shared.stored.snapshot().map.values().cloned().collect();
    let (resource, options, user) = (&resource, &options, &user);
    let results = futures::stream::iter(entries).map(|entry| async move {
        let namespace = match resource.kind.scope {
            keelson_api::kind::Scope::Namespaced => entry.namespace(),
            keelson_api::kind::Scope::Cluster => "",
        };
        delete(core, resource, namespace, entry.name(), options, user).await.map(|_| ())
    });
    let errors: Vec<Status> = results
        .buffer_unordered(CONCURRENCY)
        .filter_map(|result| async move { result.err().filter(|error| error.code != 404) })
        .collect()
        .await;
    if let Some(error) = errors.first() {
        let message = format!("could not issue all deletes: {}", error.message);
        say(core, name, true, "InstanceDeletionFailed", &message).await?;
        return Err(error.clone());
    }
    let mut changed = shared.stored.follow();
    let gone = async {
        while !shared.stored.snapshot().map.is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        let message = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
        say(core, name, true, "InstanceDeletionCheck", message).await?;
        return Err(Status::internal(message));
    }
    finish(core, name, "InstanceDeletionCompleted", "removed all instances").await
}

/// Sets the `Terminating` condition.
async fn say(core: &Core, name: &str, status: bool, reason: &str, message: &str) -> Result<(), Status> {
    let mut object = read(core, name)?;
    if set_condition(&mut object, "Terminating", status, reason, message, &now().into()) {
        set_status(core, &object).await?;
    }
    Ok(())
}

/// Takes the finalizer off.
async fn finish(core: &Core, name: &str, reason: &str, message: &str) -> Result<(), Status> {
    let mut object = read(core, name)?;
    set_condition(&mut object, "Terminating", false, reason, message, &now().into());
    if let Some(finalizers) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    set_status(core, &object).await
}

fn read(core: &Core, name: &str) -> Result<Value, Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let entry = resource.cache()?.get("", name).ok_or_else(|| resource.not_found(name))?;
    resource.decode(&entry)
}
