//! ResourceQuota: what a request adds to a namespace fits into the namespace's quotas, and is charged to their status before
//! the object is written. Requests of one namespace are charged in [`turns`]: all that wait at once, with one write per quota
//! ([`charge`]), so that many creates at once cost few writes. The write is a compare-and-swap on the quota, which several API
//! servers share. A charge whose object is then not written (its request has timed out, say) is given back by the quota
//! controller, which counts anew.

mod charge;
mod limited;
mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use keelson_api::quota::{Amounts, Evaluator, Quota, amounts};
use keelson_api::status::Status;
use keelson_client::clock;
use serde_json::{Map, Value};

use super::{Judges, Operation, Request};
use crate::core::Core;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};
use charge::{Charge, serve};
pub(super) use limited::Limited;
pub(super) use turns::Turns;

/// How long a request waits to be charged.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a charge was not made.
#[derive(Clone, Debug)]
enum Denied {
    /// In upstream's words.
    Exceeded(String),
    /// The quota could not be written.
    Failed(Status),
}

pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) || request.namespace.is_empty() {
        return Ok(());
    }
    let quotas = request.core.admission.namespaces.quotas(request.namespace);
    if quotas.is_empty() && request.core.admission.limited.is_empty() {
        return Ok(());
    }
    let kind = &request.resource.kind;
    // A namespace may get a new quota however full it is, and events come and go by themselves.
    let ignored = matches!((&*kind.group, &*kind.resource), ("" | "events.k8s.io", "events"));
    let evaluator = Evaluator::of(&kind.group, &kind.resource);
    if ignored || !evaluator.handles(request.subresource, object, request.old) {
        return Ok(());
    }
    let Some(charge) = measure(request, &evaluator, &quotas, object)? else { return Ok(()) };
    let core = request.core;
    let (me, namespace) = (core.me.clone(), request.namespace.to_owned());
    let serve = move |waiting| {
        let (me, namespace) = (me.clone(), namespace.clone());
        async move {
            if let Some(core) = me.upgrade() {
                serve(&core, &namespace, waiting).await;
            }
        }
    };
    let charged = core.admission.turns.charge(&core.requests, request.namespace, charge, serve);
    match tokio::time::timeout(PATIENCE, charged).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Denied::Exceeded(why))) => Err(request.forbidden(&why)),
        Ok(Err(Denied::Failed(status))) => Err(status),
        Err(_) => Err(Status::internal("resource quota evaluation timed out")),
    }
}

/// What the request is to be charged; `None` for nothing.
fn measure(
    request: &Request<'_>,
    evaluator: &Evaluator,
    quotas: &[Arc<Quota>],
    object: &Value,
) -> Result<Option<Charge>, Status> {
    let limited = &request.core.admission.limited;
    let mut matching = Vec::new();
    let mut covered = BTreeSet::new();
    for quota in quotas.iter().filter(|quota| quota.matches(evaluator, object)) {
        let names = || quota.hard.keys().map(String::as_str).filter(|name| evaluator.counts(name));
        if let Some(why) = evaluator.missing(names(), object) {
            return Err(request.forbidden(&format!("failed quota: {}: {why}", quota.name)));
        }
        if names().any(|name| !quota.used.contains_key(name)) {
            let names: Vec<_> = names().collect();
            let why = format!("status unknown for quota: {}, resources: {}", quota.name, names.join(","));
            return Err(request.forbidden(&why));
        }
        covered.extend(names());
        matching.push(quota);
    }
    if matching.is_empty() && limited.is_empty() {
        return Ok(None);
    }
    let now = clock::now();
    let usage = evaluator.usage(object, now);
    let negative: Vec<_> = usage.iter().filter(|(_, q)| q.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(request.forbidden(&format!("quota usage is negative for resource(s): {}", negative.join(","))));
    }
    let more = request.old.map(|old| added(&usage, &evaluator.usage(old, now)));
    let mut charge =
        Charge { by_quota: Vec::new(), enforced: request.subresource != "status", dry_run: request.is_dry_run() };
    let is_something = |delta: &Amounts| delta.values().any(|q| !q.is_zero());
    let mut uses_more = matching.is_empty() && is_something(more.as_ref().unwrap_or(&usage));
    for quota in matching {
        // What the quota has not counted so far is new to it as a whole.
        let delta = match (&more, request.old) {
            (Some(more), Some(old)) if quota.matches(evaluator, old) => more,
            _ => &usage,
        };
        uses_more |= is_something(delta);
        let delta: Amounts = delta
            .iter()
            .filter(|(name, q)| !q.is_zero() && quota.hard.contains_key(*name))
            .map(|(n, q)| (n.clone(), *q))
            .collect();
        if !delta.is_empty() {
            charge.by_quota.push((quota.name.clone(), delta));
        }
    }
    if uses_more && !limited.is_empty() {
        limited.check(request, evaluator, object, &usage, (quotas, &covered))?;
    }
    Ok((!charge.by_quota.is_empty()).then_some(charge))
}

/// What is used beyond what was used before; less of something is not taken off until it is counted anew.
fn added(usage: &Amounts, before: &Amounts) -> Amounts {
    let more = usage.iter().filter_map(|(name, amount)| {
        let before = before.get(name).copied().unwrap_or_default();
        (*amount > before).then(|| (name.clone(), *amount - before))
    });
    more.collect()
}

/// Writes what `used` makes of a quota's use; `Ok(false)` if the quota is gone. Boxed, for that write is judged in turn.
fn write<'a>(
    core: &'a Core,
    namespace: &'a str,
    name: &'a str,
    mut used: impl FnMut(Quota) -> Amounts + Send + 'a,
) -> BoxFuture<'a, Result<bool, Status>> {
    Box::pin(async move {
        let resource = core.registry.known("", "resourcequotas")?;
        let target = Target { resource, namespace, name, subresource: "status" };
        let options = WriteOptions { judges: Judges::Nobody, ..WriteOptions::internal() };
        let change = |old: &Value| {
            let used = used(Quota::of(old));
            let mut object = old.clone();
            if used != amounts(&old["status"]["used"]) {
                let used: Map<String, Value> = used.into_iter().map(|(name, q)| (name, q.to_string().into())).collect();
                object["status"]["used"] = used.into();
            }
            Ok(object)
        };
        match update(core, target, &options, change).await {
            Ok(_) => Ok(true),
            Err(status) if status.code == 404 => Ok(false),
            Err(status) => Err(status),
        }
    })
}
