//! Which resources there are.

use std::collections::HashSet;

use kube::Client;
use kube::core::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};

/// One resource in the version the server prefers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub resource: ApiResource,
    pub namespaced: bool,
    verbs: Vec<String>,
}

impl Found {
    /// Whether it offers a verb.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// `pods`, `deployments.apps`
    pub(crate) fn name(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// What the server says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Discovered {
    pub found: Vec<Found>,
    /// Group versions of aggregated servers that cannot say now what they serve, as `apiVersion` has them.
    pub failed: Vec<String>,
}

/// Asks the server: two requests.
pub(crate) async fn discover(client: &Client) -> Result<Discovered, kube::Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let others = client.list_api_groups_aggregated().await?;
    Ok(read(core.items.into_iter().chain(others.items)))
}

fn read(groups: impl Iterator<Item = APIGroupDiscovery>) -> Discovered {
    let mut all = Discovered::default();
    for group in groups {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        let mut seen = HashSet::new();
        for version in group.versions {
            let number = version.version.unwrap_or_default();
            let api_version = if name.is_empty() { number.clone() } else { format!("{name}/{number}") };
            if version.freshness.as_deref() == Some("Stale") {
                all.failed.push(api_version);
                continue;
            }
            for resource in version.resources {
                let found = found(resource, &name, &number, &api_version);
                // Of several versions the first is preferred.
                all.found.extend(found.filter(|found| seen.insert(found.resource.plural.clone())));
            }
        }
    }
    all
}

fn found(resource: APIResourceDiscovery, group: &str, version: &str, api_version: &str) -> Option<Found> {
    let kind = resource.response_kind.and_then(|kind| kind.kind)?;
    let (group, version, api_version) = (group.into(), version.into(), api_version.into());
    Some(Found {
        resource: ApiResource { group, version, api_version, kind, plural: resource.resource? },
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: resource.verbs,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn preferred_versions_and_failed_ones() {
        let resource = |name: &str, kind: &str| json!({"resource": name, "scope": "Namespaced", "verbs": ["get"], "responseKind": {"kind": kind}});
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(json!([
            {"versions": [{"version": "v1", "resources": [resource("pods", "Pod")], "freshness": "Current"}]},
            {"metadata": {"name": "g"}, "versions": [
                {"version": "v2", "resources": [resource("a", "A")]},
                {"version": "v1", "resources": [resource("a", "A"), resource("b", "B")]},
                {"version": "v0", "resources": [resource("c", "C")], "freshness": "Stale"},
            ]},
        ]))
        .unwrap();
        let all = read(groups.into_iter());
        let shown: Vec<_> = all.found.iter().map(|f| format!("{} {}", f.resource.api_version, f.name())).collect();
        assert_eq!(shown, ["v1 pods", "g/v2 a.g", "g/v1 b.g"]);
        assert_eq!(all.failed, ["g/v0"]);
        assert!(all.found[0].namespaced && all.found[0].can("get"));
    }
}
