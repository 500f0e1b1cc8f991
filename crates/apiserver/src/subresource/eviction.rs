//! `pods/eviction`: a delete that asks the pod's disruption budget first. What a budget allows is in
//! [`keelson_api::kinds::eviction_rules`].

use bytes::Bytes;
use keelson_api::kinds::eviction_rules::{disrupt, is_free, is_ready, mark, spares_unhealthy, unsettled};
use keelson_api::selector::LabelSelector;
use keelson_api::status::Status;
use serde_json::Value;

use super::binding::done;
use crate::admission::{self, Asked, Judges, Operation, Request};
use crate::dispatch::Call;
use crate::http::reply::Reply;
use crate::registry::body::{Strictness, decode};
use crate::registry::create::text;
use crate::registry::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::render;
use crate::registry::update::{Target, update};

/// Deletes tried against others' writes to the pod, where its version counts.
const ATTEMPTS: usize = 16;

pub(super) async fn serve(call: &Call, body: Bytes) -> Reply {
    let Call { core, resource, target, query, .. } = call;
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let kind = core.registry.body("policy", "Eviction")?;
    let mut eviction = decode(kind, &call.media_type(), &body, &mut strictness)?;
    let name = text(&eviction, "name");
    if !name.is_empty() && *name != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut delete_options = match eviction.get("deleteOptions") {
        Some(options) => DeleteOptions::from_request(Some(options.clone()), query)?,
        None => DeleteOptions::default(),
    };
    if options.dry_run {
        delete_options.dry_run = vec!["All".into()];
    }
    let at = (target.namespace.as_str(), target.name.as_str(), "eviction");
    let pod = pod(call)?;
    let request = Request::write(core, resource, Operation::Create, at, &options);
    keelson_api::validation::meta::set_type(kind, &mut eviction);
    admission::mutate(&request, &mut eviction).await?;
    admission::validate(&Request { old: Some(&pod), ..request }, &eviction).await?;
    evict(call, &delete_options).await?;
    render::document(201, &done(201), call.accepted()?.encoding)
}

/// The pod as it is now.
fn pod(call: &Call) -> Result<Value, Status> {
    let Call { resource, target, .. } = call;
    let entry = resource.cache()?.get(&target.namespace, &target.name);
    resource.decode(&*entry.ok_or_else(|| resource.not_found(&target.name))?)
}

async fn evict(call: &Call, options: &DeleteOptions) -> Result<(), Status> {
    let any_version = version(options).is_none();
    for _ in 0..ATTEMPTS {
        let pod = pod(call)?;
        if !is_free(&pod) {
            return evict_counted(call, options, &pod).await;
        }
        // One that is on its way out can only go further; any other may be about to become healthy.
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let ends = matches!(phase, "Succeeded" | "Failed") || pod["metadata"]["deletionTimestamp"].is_string();
        let pinned = if any_version && !ends { at_version(options, &pod) } else { options.clone() };
        match mark_and_delete(call, &pinned).await {
            Err(error) if error.code == 409 && any_version => {}
            result => return result,
        }
    }
    Err(call.resource.conflict(&call.target.name, crate::registry::update::MODIFIED))
}

/// Evicts a running pod, if its budget has a disruption left.
async fn evict_counted(call: &Call, options: &DeleteOptions, pod: &Value) -> Result<(), Status> {
    let budgets = budgets(call, pod)?;
    let [budget] = budgets.as_slice() else {
        if budgets.is_empty() {
            return mark_and_delete(call, options).await;
        }
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "", why));
    };
    let name = text(budget, "name");
    if !is_ready(pod) && spares_unhealthy(budget) {
        // It must not have become healthy since.
        let any_version = version(options).is_none();
        return match mark_and_delete(call, &at_version(options, pod)).await {
            Err(error) if error.code == 409 && any_version => Err(unsettled(name)),
            result => result,
        };
    }
    let resource = call.core.registry.known("policy", "poddisruptionbudgets")?;
    let target = Target { resource, namespace: &call.target.namespace, name, subresource: "status" };
    let write = WriteOptions { dry_run: options.is_dry_run(), ..WriteOptions::internal() };
    let now = keelson_client::clock::now();
    let taken = update(&call.core, target, &write, |old| {
        let mut budget = old.clone();
        disrupt(&mut budget, &call.target.name, now)?;
        Ok(budget)
    });
    taken.await.map_err(|error| match error.code {
        409 => Status::timeout(format!("Timeout: couldn't update PodDisruptionBudget {name:?} due to conflicts")),
        _ => error,
    })?;
    mark_and_delete(call, options).await
}

/// The budgets that count the pod.
fn budgets(call: &Call, pod: &Value) -> Result<Vec<Value>, Status> {
    let labels = &pod["metadata"]["labels"];
    if labels.as_object().is_none_or(|labels| labels.is_empty()) {
        return Ok(Vec::new());
    }
    let resource = call.core.registry.known("policy", "poddisruptionbudgets")?;
    let cache = resource.cache()?;
    let mut found = Vec::new();
    for entry in cache.snapshot().range(&cache.namespace_prefix(&call.target.namespace), "") {
        let budget = resource.decode(entry)?;
        // One with a selector that cannot be read counts nothing.
        if LabelSelector::from_json(budget["spec"].get("selector")).is_ok_and(|selector| selector.matches(labels)) {
            found.push(budget);
        }
    }
    Ok(found)
}

fn version(options: &DeleteOptions) -> Option<&str> {
    options.preconditions.as_ref()?.resource_version.as_deref().filter(|version| !version.is_empty())
}

/// The options, for this version of the pod only.
fn at_version(options: &DeleteOptions, pod: &Value) -> DeleteOptions {
    let mut options = options.clone();
    let preconditions = options.preconditions.get_or_insert_default();
    preconditions.resource_version = Some(text(pod, "resourceVersion").to_owned());
    options
}

/// Says in the pod's status why it goes, and deletes it.
async fn mark_and_delete(call: &Call, options: &DeleteOptions) -> Result<(), Status> {
    let Call { core, resource, target, .. } = call;
    let mut options = options.clone();
    if !options.is_dry_run() {
        let now = keelson_client::clock::now();
        let on = Target { resource, namespace: &target.namespace, name: &target.name, subresource: "status" };
        let write = WriteOptions::internal();
        let written = update(core, on, &write, |old| {
            delete::check_preconditions(resource, &target.name, old, &options)?;
            let mut pod = old.clone();
            mark(&mut pod, now);
            Ok(pod)
        });
        let written = written.await?;
        // This write is our own.
        if version(&options).is_some() {
            options = at_version(&options, &written.object);
        }
    }
    // The eviction has been judged.
    let asked = Asked { judges: Judges::Nobody, ..call.asked() };
    delete::delete(core, resource, &target.namespace, &target.name, &options, asked).await?;
    Ok(())
}
