//! ClusterRoles that are the sum of others (`aggregationRule`), as `admin`, `edit` and `view` are.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use keelson_client::{Key, SharedInformer, WorkQueue, run_workers};
use kube::api::Api;

use crate::common::objects::{Labels, name};
use crate::common::patch;
use crate::context::{Context, objects};

/// The `clusterrole-aggregation-controller`.
pub async fn run(context: Context) {
    let roles = context.informers.get::<ClusterRole>();
    if !context.synced(&roles).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    // Any role may be part of any sum.
    let on_role = context.each(&roles, |change| {
        let sums = roles.list();
        let sums = sums.iter().filter(|sum| sum.aggregation_rule.is_some());
        for sum in sums
            .filter(|sum| objects(&change).any(|role| role.metadata.name == sum.metadata.name || is_part(sum, role)))
        {
            queue.add(Key::of(&**sum));
        }
    });
    let this = Arc::new((context.client.clone(), roles.clone()));
    let work = run_workers(
        "clusterrole-aggregation-controller",
        queue.clone(),
        1,
        context.shutdown.clone(),
        move |key: Key| {
            let this = this.clone();
            async move { sync(&this.0, &this.1, &key).await }
        },
    );
    tokio::join!(on_role, work);
}

fn is_part(sum: &ClusterRole, role: &ClusterRole) -> bool {
    let selectors = sum.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    selectors.map(Labels::of).any(|selector| selector.matches(&role.metadata))
        && name(&sum.metadata) != name(&role.metadata)
}

/// The rules of all parts, in order of their names, each once.
fn rules<'a>(sum: &ClusterRole, roles: impl Iterator<Item = &'a ClusterRole>) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in roles.filter(|role| is_part(sum, role)).flat_map(|role| role.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

async fn sync(
    client: &kube::Client,
    roles: &SharedInformer<ClusterRole>,
    key: &Key,
) -> Result<Option<Duration>, kube::Error> {
    let Some(sum) = roles.get_key(key).filter(|sum| sum.aggregation_rule.is_some()) else { return Ok(None) };
    let all = roles.list();
    let mut wanted = (*sum).clone();
    wanted.rules =
        Some(rules(&sum, all.iter().map(|role| &**role))).filter(|rules| !rules.is_empty() || sum.rules.is_some());
    patch::write(&Api::all(client.clone()), None, &*sum, &wanted).await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sum_is_made_of_its_parts_once_each() {
        let role = |value| serde_json::from_value::<ClusterRole>(value).unwrap();
        let rule = |verb: &str| json!({"verbs": [verb], "resources": ["pods"], "apiGroups": [""]});
        let roles = [
            role(json!({"metadata": {"name": "a", "labels": {"to": "view"}}, "rules": [rule("get"), rule("list")]})),
            role(json!({"metadata": {"name": "b", "labels": {"to": "view"}}, "rules": [rule("get"), rule("watch")]})),
            role(json!({"metadata": {"name": "c"}, "rules": [rule("delete")]})),
            role(json!({
                "metadata": {"name": "view", "labels": {"to": "view"}}, "rules": [rule("create")],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}
            })),
        ];
        let verbs: Vec<_> = rules(&roles[3], roles.iter()).into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(verbs, ["get", "list", "watch"]);
    }
}
