//! Types of what ValidatingAdmissionPolicies look at: for each new version of a policy its status tells what its expressions
//! would not find in the kinds that it names. Policies act whatever is found. Upstream has this in its controller manager;
//! here it is where the schemas are.

use std::sync::Arc;

use keelson_api::kind::Kind;
use keelson_api::schema;
use keelson_api::status::Status;
use keelson_cel::admission::{Typed, type_check};
use keelson_cel::{Decl, declare, declare_builtin};
use serde_json::{Value, json};

use crate::admission::expressions::costly_place;
use crate::core::Core;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

const GROUP: &str = "admissionregistration.k8s.io";
const RESOURCE: &str = "validatingadmissionpolicies";
const MANAGER: &str = "validatingadmissionpolicy-status-controller";
/// Kinds looked at for one rule.
const MAX_KINDS: usize = 10;

/// Follows the policies.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(cache) = core.cache.resource(GROUP, RESOURCE) else { return };
    let mut changed = cache.follow();
    loop {
        if let Err(error) = reconcile(&core).await {
            tracing::warn!(%error, "policies could not be checked");
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            more = changed.changed() => if more.is_err() { return },
        }
    }
}

async fn reconcile(core: &Arc<Core>) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let entries: Vec<_> = resource.cache()?.snapshot().map.values().cloned().collect();
    for entry in entries {
        let policy = entry.decode()?;
        let generation = policy["metadata"]["generation"].as_i64().unwrap_or(0);
        if policy["status"]["observedGeneration"].as_i64().unwrap_or(0) >= generation {
            continue;
        }
        let found = check(core.clone(), policy["spec"].clone()).await?;
        let warnings = found.into_iter().map(|(place, warning)| json!({"fieldRef": place, "warning": warning}));
        let warnings: Vec<Value> = warnings.collect();
        let mut checking = json!({});
        if !warnings.is_empty() {
            checking["expressionWarnings"] = warnings.into();
        }
        let target = Target { resource, namespace: "", name: entry.name(), subresource: "status" };
        let options = WriteOptions { manager: MANAGER.into(), ..WriteOptions::internal() };
        let written = update(core, target, &options, |old| {
            let mut new = old.clone();
            new["status"]["observedGeneration"] = generation.into();
            new["status"]["typeChecking"] = checking.clone();
            Ok(new)
        });
        match written.await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong with a policy's expressions, and where; found beside what serves others.
async fn check(core: Arc<Core>, spec: Value) -> Result<Vec<(String, String)>, Status> {
    let place = costly_place().await;
    let work = move || {
        let _place = place;
        type_check(&spec, &kinds(&core, &spec), params(&core, &spec))
    };
    tokio::task::spawn_blocking(work).await.map_err(Status::internal)
}

/// The kinds that the policy's rules name without wildcards, in order.
fn kinds(core: &Core, spec: &Value) -> Vec<Typed> {
    let served = core.registry.served();
    let mut found: Vec<&Kind> = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let list =
            |key: &str| -> Vec<&str> { rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = list("resources");
        let named = |kind: &&Kind| {
            groups.contains(&kind.group.as_ref())
                && versions.contains(&kind.version.as_ref())
                && resources.contains(&kind.resource.as_ref())
        };
        found.extend(served.all().iter().map(|resource| &*resource.kind).filter(named).take(MAX_KINDS));
    }
    found.sort_by_key(|kind| (&kind.group, &kind.version, &kind.kind));
    found.dedup_by_key(|kind| (&kind.group, &kind.version, &kind.kind));
    found.into_iter().filter_map(typed).collect()
}

/// A kind with its type.
fn typed(kind: &Kind) -> Option<Typed> {
    let decl = declared(kind)?;
    Some(Typed { name: format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind), decl })
}

fn declared(kind: &Kind) -> Option<Arc<Decl>> {
    match &kind.custom {
        Some(custom) => declare(&custom.schema, true, &kind.kind),
        None => schema::builtin(&kind.schema).map(declare_builtin),
    }
}

fn params(core: &Core, spec: &Value) -> Option<Arc<Decl>> {
    let wanted = spec.get("paramKind").filter(|kind| kind.is_object())?;
    let served = core.registry.served();
    let found =
        served.all().iter().find(|r| wanted["kind"] == *r.kind.kind && wanted["apiVersion"] == r.kind.api_version());
    declared(&found?.kind)
}
