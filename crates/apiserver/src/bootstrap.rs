//! What the server itself puts into a cluster and keeps there: namespaces, RBAC policy, priority classes, the `kubernetes`
//! Service and its endpoints, and a lease by which it is known. Everything is created if missing and reconciled if somebody took away what must be there.

pub(crate) mod aggregation;
pub(crate) mod endpoints;
pub(crate) mod event_ttl;
pub(crate) mod identity;
pub(crate) mod later;
mod objects;
mod policy;
mod reconcile;
#[cfg(test)]
mod tests;
pub(crate) mod trust;

use std::sync::Arc;

use futures::StreamExt;
use keelson_api::status::Status;
use serde_json::Value;

use crate::Error;
use crate::authz::index::GROUP;
use crate::core::Core;
use crate::registry::create::{create, text};
use crate::registry::delete::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::read::freshen;
use crate::registry::update::{Target, update};

use self::policy::Removed;

pub(crate) use policy::node_rules;

/// Writes under way at once; they share fsyncs.
const CONCURRENCY: usize = 64;

/// Attempts at an object that another server is making, and the pause between them.
const ATTEMPTS: usize = 40;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// How an object that is there already is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reconcile {
    /// It is left alone.
    Keep,
    /// Missing rules, labels and annotations are added (unless it is annotated `autoupdate: false`).
    Role,
    /// Missing subjects are added, likewise.
    Binding,
    /// Its content is set.
    Replace,
    /// Its content is set unless somebody has made it his own.
    Suggest,
    /// Its content is set if it is labelled as the server's own.
    Managed,
}

#[derive(Clone)]
struct Wanted {
    group: &'static str,
    resource: &'static str,
    object: Value,
    reconcile: Reconcile,
}

/// Makes everything that must be there.
pub(crate) async fn run(core: &Arc<Core>) -> Result<(), Error> {
    // Namespaces first, then what lives in them.
    for batch in [objects::namespaces(), policy::all().into_iter().chain(objects::others()).collect()] {
        let mut work =
            futures::stream::iter(batch.into_iter().map(|wanted| ensure(core, wanted))).buffer_unordered(CONCURRENCY);
        while let Some(result) = work.next().await {
            result?;
        }
    }
    match ensure(core, objects::kubernetes_service(&core.config)).await {
        // A server that ended in the midst of this may have left its address reserved. It will be freed.
        Err(error) if core.store.is_shared() => tracing::warn!(%error, "the kubernetes Service is not there yet"),
        outcome => outcome?,
    }
    let trusted = core.authenticator.trusted.current();
    trust::write(core, &trusted).await.map_err(|status| failed("extension-apiserver-authentication", &status))?;
    for removed in policy::removed() {
        remove(core, removed).await?;
    }
    aggregation::reconcile(core).await.map_err(|status| failed("aggregated ClusterRoles", &status))
}

fn failed(object: &str, status: &Status) -> Error {
    Error::Bootstrap { object: object.to_owned(), why: status.message.clone() }
}

async fn ensure(core: &Core, wanted: Wanted) -> Result<(), Error> {
    let Wanted { group, resource, object, reconcile } = wanted;
    let (namespace, name) = (text(&object, "namespace").to_owned(), text(&object, "name").to_owned());
    let result = async {
        let resource = core.registry.known(group, resource)?;
        let options = WriteOptions::internal();
        let mut old = resource.cache()?.get(&namespace, &name);
        let mut attempts = ATTEMPTS;
        while old.is_none() && attempts > 0 {
            attempts -= 1;
            match create(core, resource, &namespace, object.clone(), &options).await {
                // Another server was faster.
                Err(status) if status.reason == "AlreadyExists" => attempts = 0,
                // It has the Service's address, and will have the Service.
                Err(status) if status.reason == "Invalid" && core.store.is_shared() && attempts > 0 => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome.map(|_| ()),
            }
            freshen(core, None).await?;
            old = resource.cache()?.get(&namespace, &name);
        }
        let Some(old) = old else { return Ok(()) };
        if reconcile == Reconcile::Keep {
            return Ok(());
        }
        if reconcile::must_be_made_anew(&old.decode()?, &object, reconcile) {
            delete(core, resource, &namespace, &name, &DeleteOptions::default(), options.asked()).await?;
            return create(core, resource, &namespace, object, &options).await.map(|_| ());
        }
        let target = Target { resource, namespace: &namespace, name: &name, subresource: "" };
        update(core, target, &options, |old| Ok(reconcile::reconciled(old, &object, reconcile))).await.map(|_| ())
    };
    result.await.map_err(|status| failed(&format!("{resource} {namespace}/{name}"), &status))
}

/// Takes away what is no longer part of the policy, where it is.
async fn remove(core: &Core, removed: Removed) -> Result<(), Error> {
    let options = WriteOptions::internal();
    match removed {
        Removed::RoleBinding { namespace, name } => {
            let result = async {
                let resource = core.registry.known(GROUP, "rolebindings")?;
                match resource.cache()?.get(namespace, name).map(|old| old.decode()).transpose()? {
                    Some(old) if !reconcile::is_protected(&old) => {
                        delete(core, resource, namespace, name, &DeleteOptions::default(), options.asked())
                            .await
                            .map(|_| ())
                    }
                    _ => Ok(()),
                }
            };
            result.await.map_err(|status| failed(&format!("rolebindings {namespace}/{name}"), &status))
        }
        Removed::Subject { cluster_role_binding: name, subject } => {
            let result = async {
                let resource = core.registry.known(GROUP, "clusterrolebindings")?;
                let old = resource.cache()?.get("", name).map(|old| old.decode()).transpose()?;
                if !old.is_some_and(|old| reconcile::is_bound(&old, &subject)) {
                    return Ok(());
                }
                let target = Target { resource, namespace: "", name, subresource: "" };
                update(core, target, &options, |old| Ok(reconcile::unbound(old, &subject))).await.map(|_| ())
            };
            result.await.map_err(|status| failed(&format!("clusterrolebindings {name}"), &status))
        }
    }
}
