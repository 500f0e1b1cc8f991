//! Aggregated ClusterRoles: a role with an `aggregationRule` has the rules of all roles that its selectors match.

use std::sync::Arc;

use keelson_api::selector::LabelSelector;
use keelson_api::status::Status;
use serde_json::Value;

use crate::authz::index::GROUP;
use crate::cache::resource::Snapshot;
use crate::core::Core;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

/// Rounds that one change may need: admin gets its rules from edit, which gets them from view.
const ROUNDS: usize = 8;

/// Brings all aggregated roles up to date.
pub(crate) async fn reconcile(core: &Core) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, "clusterroles")?;
    let cache = resource.cache()?;
    for _ in 0..ROUNDS {
        let snapshot = cache.snapshot();
        let mut changed = false;
        for entry in snapshot.map.values() {
            let role = entry.decode()?;
            let Some(rules) = aggregated(&role, &snapshot)? else { continue };
            if role.get("rules") == Some(&rules) || (role.get("rules").is_none() && rules == Value::Array(Vec::new())) {
                continue;
            }
            changed = true;
            let target = Target { resource, namespace: "", name: entry.name(), subresource: "" };
            let options = WriteOptions::internal();
            let result = update(core, target, &options, |old| {
                let mut new = old.clone();
                if let Some(map) = new.as_object_mut() {
                    map.insert("rules".into(), rules.clone());
                }
                Ok(new)
            });
            match result.await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        if !changed {
            break;
        }
    }
    Ok(())
}

/// The rules a role should have; `None` for a role that aggregates nothing.
fn aggregated(role: &Value, all: &Snapshot) -> Result<Option<Value>, Status> {
    let Some(selectors) = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array) else {
        return Ok(None);
    };
    let own = crate::registry::create::text(role, "name");
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_json(Some(selector)) else { continue };
        for entry in all.map.values().filter(|entry| entry.name() != own && selector.matches(&***entry)) {
            let other = entry.decode()?;
            for rule in other.get("rules").and_then(Value::as_array).into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok(Some(rules.into()))
}

/// Follows changes of ClusterRoles.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(cache) = core.cache.resource(GROUP, "clusterroles") else { return };
    let mut changed = cache.follow();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            more = changed.changed() => if more.is_err() { return },
        }
        if let Err(error) = reconcile(&core).await {
            tracing::warn!(%error, "ClusterRoles could not be aggregated");
        }
    }
}
