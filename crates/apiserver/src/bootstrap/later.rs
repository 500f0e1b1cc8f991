//! What the server puts into the cluster once it is ready: the range of ClusterIPs, its own Service if that was not possible before, APIServices of its own groups, and
//! flow schemas with their priority levels. The last are kept: two of each must be as they are, the rest follows
//! upstream's suggestion unless an annotation says that somebody made it his own; deleted ones come back. So is the status of
//! flow schemas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api::kinds::{AUTO_UPDATE, local_services, mandatory_flow_control, suggested_flow_control};
use keelson_api::selector::Labels as _;
use keelson_api::status::Status;
use keelson_api::validation::same;
use keelson_client::Backoff;
use serde_json::{Value, json};

use super::{CONCURRENCY, Reconcile, Wanted, ensure, objects};
use crate::aggregator::{self, AUTOMANAGED};
use crate::cache::resource::ResourceCache;
use crate::core::Core;
use crate::flow;
use crate::registry::create::{now, text};
use crate::registry::delete::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::update::{Target, update};

const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
/// The name of the range that the server was started with.
const SERVICE_CIDR: &str = "kubernetes";

/// Pauses after something could not be written.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Puts them there, and keeps those that are kept.
pub(crate) async fn run(core: Arc<Core>) {
    let cached = |resource| core.cache.resource(FLOW_CONTROL, resource);
    let (Some(schemas), Some(levels)) = (cached("flowschemas"), cached("prioritylevelconfigurations")) else { return };
    let kept = flow_control();
    let (mut schemas_changed, mut levels_changed) = (schemas.follow(), levels.follow());
    let mut once = api_services(&core);
    let served: BTreeSet<String> = once.iter().map(|wanted| text(&wanted.object, "name").to_owned()).collect();
    let mut at_start = managed_at_start(&core);
    once.push(service_cidr(&core));
    once.push(objects::kubernetes_service(&core.config));
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        schemas_changed.borrow_and_update();
        levels_changed.borrow_and_update();
        let cache_of = |wanted: &Wanted| if wanted.resource == "flowschemas" { &schemas } else { &levels };
        let missing = kept.iter().filter(|wanted| !is_settled(cache_of(wanted), wanted)).cloned();
        let batch: Vec<Wanted> = missing.chain(std::mem::take(&mut once)).collect();
        let work = batch.into_iter().map(async |wanted| (ensure(&core, wanted.clone()).await, wanted));
        let mut work = futures::stream::iter(work).buffer_unordered(CONCURRENCY);
        let mut failed = false;
        while let Some((result, wanted)) = work.next().await {
            if let Err(error) = result {
                tracing::warn!(%error, "an object of the cluster's own could not be written");
                failed = true;
                if matches!(wanted.reconcile, Reconcile::Keep | Reconcile::Managed) {
                    once.push(wanted);
                }
            }
        }
        flow::status::write(&core).await;
        if let Err(error) = retire(&core, &served, &mut at_start).await {
            tracing::warn!(%error, "APIServices of group versions that are served no more could not be removed");
            failed = true;
        }
        if let Err(error) = service_cidr_is_ready(&core).await {
            tracing::warn!(%error, "the ServiceCIDR could not be marked ready");
            failed = true;
        }
        if !failed {
            backoff.reset();
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            more = schemas_changed.changed() => if more.is_err() { return },
            more = levels_changed.changed() => if more.is_err() { return },
            () = backoff.wait(), if failed => {}
        }
    }
}

fn flow_control() -> Vec<Wanted> {
    let wanted = |object: Value, reconcile| {
        let schema = object.get("kind").is_some_and(|kind| kind == "FlowSchema");
        let resource = if schema { "flowschemas" } else { "prioritylevelconfigurations" };
        Wanted { group: FLOW_CONTROL, resource, object, reconcile }
    };
    let mandatory = mandatory_flow_control().into_iter().map(|object| wanted(object, Reconcile::Replace));
    let suggested = suggested_flow_control().into_iter().map(|object| wanted(object, Reconcile::Suggest));
    mandatory.chain(suggested).collect()
}

/// Whether an object is there and as it should be.
fn is_settled(cache: &ResourceCache, wanted: &Wanted) -> bool {
    let Some(Ok(there)) = cache.get("", text(&wanted.object, "name")).map(|entry| entry.decode()) else { return false };
    let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
    let follows = wanted.reconcile == Reconcile::Replace || follows_suggestion(&there);
    !follows || same(&spec(&there), &spec(&wanted.object))
}

/// Whether an object is to follow upstream's suggestion: its annotation says so, or nobody has changed it yet.
pub(super) fn follows_suggestion(object: &Value) -> bool {
    let annotation =
        object.pointer("/metadata/annotations").and_then(|all| all.get(AUTO_UPDATE)).and_then(Value::as_str);
    match annotation {
        Some(text) => text == "true",
        None => object.pointer("/metadata/generation").is_some_and(|generation| generation == 1),
    }
}

/// One for each group version that the server is built with.
fn api_services(core: &Core) -> Vec<Wanted> {
    let served = core.registry.served();
    let versions = served.all().iter().map(|resource| (resource.kind.group.as_ref(), resource.kind.version.as_ref()));
    let wanted = |object| Wanted {
        group: "apiregistration.k8s.io",
        resource: "apiservices",
        object,
        reconcile: Reconcile::Managed,
    };
    local_services(versions).into_iter().map(wanted).collect()
}

/// APIServices that this server, or an earlier version of it, has made for its own group versions.
fn managed_at_start(core: &Core) -> Vec<String> {
    let Some(cache) = core.cache.resource(aggregator::GROUP, aggregator::RESOURCE) else { return Vec::new() };
    let snapshot = cache.snapshot();
    let managed = snapshot.map.values().filter(|entry| entry.label(AUTOMANAGED) == Some("onstart"));
    managed.map(|entry| entry.name().to_owned()).collect()
}

/// Removes those whose group versions are not served any more, once.
async fn retire(core: &Core, served: &BTreeSet<String>, at_start: &mut Vec<String>) -> Result<(), Status> {
    let resource = core.registry.known(aggregator::GROUP, aggregator::RESOURCE)?;
    let options = WriteOptions::internal();
    while let Some(name) = at_start.last() {
        let there = resource.cache()?.get("", name);
        if !served.contains(name) && there.is_some_and(|entry| entry.label(AUTOMANAGED) == Some("onstart")) {
            match delete(core, resource, "", name, &DeleteOptions::default(), options.asked()).await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        at_start.pop();
    }
    Ok(())
}

fn service_cidr(core: &Core) -> Wanted {
    let object = json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": SERVICE_CIDR},
        "spec": {"cidrs": [core.config.service_cidr.trunc().to_string()]},
    });
    Wanted { group: NETWORKING, resource: "servicecidrs", object, reconcile: Reconcile::Keep }
}

async fn service_cidr_is_ready(core: &Core) -> Result<(), Status> {
    let resource = core.registry.known(NETWORKING, "servicecidrs")?;
    let is_ready = |object: &Value| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|condition| condition.get("type").is_some_and(|kind| kind == "Ready"))
    };
    match resource.cache()?.get("", SERVICE_CIDR) {
        Some(entry) if !is_ready(&entry.decode()?) => {}
        _ => return Ok(()),
    }
    let target = Target { resource, namespace: "", name: SERVICE_CIDR, subresource: "status" };
    let ready = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": now(),
    }]});
    let change = |old: &Value| {
        let mut new = old.clone();
        if let Some(map) = new.as_object_mut() {
            map.insert("status".into(), ready.clone());
        }
        Ok(new)
    };
    update(core, target, &WriteOptions::internal(), change).await.map(|_| ())
}
