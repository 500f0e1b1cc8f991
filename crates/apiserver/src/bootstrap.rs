//! What the server itself puts into a cluster and keeps there: namespaces, RBAC policy, priority classes, the `kubernetes`
//! Service and its endpoints. Everything is created if missing and reconciled if somebody took away what must be there.

pub(crate) mod aggregation;
pub(crate) mod event_ttl;
pub(crate) mod later;
mod objects;
mod policy;
#[cfg(test)]
mod tests;
pub(crate) mod trust;

use std::sync::Arc;

use futures::StreamExt;
use keelson_api::status::Status;
use serde_json::Value;

use crate::Error;
use crate::core::Core;
use crate::registry::create::{create, text};
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

pub(crate) use policy::node_rules;

/// Writes under way at once; they share fsyncs.
const CONCURRENCY: usize = 64;

/// How an object that is there already is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reconcile {
    /// It is left alone.
    Keep,
    /// Missing rules and labels are added (unless it is annotated `autoupdate: false`).
    Role,
    /// Missing subjects are added, likewise.
    Binding,
    /// Its content is set.
    Replace,
    /// Its content is set unless somebody has made it his own.
    Suggest,
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
    for batch in [objects::namespaces(), policy::all().into_iter().chain(objects::others(&core.config)).collect()] {
        let mut work =
            futures::stream::iter(batch.into_iter().map(|wanted| ensure(core, wanted))).buffer_unordered(CONCURRENCY);
        while let Some(result) = work.next().await {
            result?;
        }
    }
    let trusted = core.authenticator.trusted.current();
    trust::write(core, &trusted).await.map_err(|status| failed("extension-apiserver-authentication", &status))?;
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
        if resource.cache()?.get(&namespace, &name).is_none() {
            return create(core, resource, &namespace, object, &options).await.map(|_| ());
        }
        if reconcile == Reconcile::Keep {
            return Ok(());
        }
        let target = Target { resource, namespace: &namespace, name: &name, subresource: "" };
        update(core, target, &options, |old| Ok(policy::reconciled(old, &object, reconcile))).await.map(|_| ())
    };
    result.await.map_err(|status| failed(&format!("{resource} {namespace}/{name}"), &status))
}
