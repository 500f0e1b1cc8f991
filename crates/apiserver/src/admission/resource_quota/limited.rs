//! What may be used only where a quota covers it (`limitedResources` of the plugin's configuration).

use std::collections::BTreeSet;

use keelson_api::quota::{Amounts, Evaluator, Quota, Scope};
use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::admission::Request;

/// Kinds of the configuration, by version.
const KINDS: [(&str, &str); 3] = [
    ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
    ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
    ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
];
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// The configuration.
#[derive(Debug, Default)]
pub(in crate::admission) struct Limited {
    resources: Vec<Resource>,
}

#[derive(Debug)]
struct Resource {
    group: String,
    resource: String,
    /// Names of what is used that have this in them.
    contains: Vec<String>,
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    limited_resources: Vec<LimitedResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitedResource {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    match_contains: Vec<String>,
    #[serde(default)]
    match_scopes: Vec<Requirement>,
}

#[derive(Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Requirement {
    scope_name: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Limited {
    /// Reads a configuration; an error names the field.
    pub(in crate::admission) fn parse(configuration: &Value) -> Result<Self, String> {
        let file: File = serde_json::from_value(configuration.clone()).map_err(|error| error.to_string())?;
        if !KINDS.contains(&(&file.api_version, &file.kind)) {
            return Err(format!("no kind {:?} in {:?} is known here", file.kind, file.api_version));
        }
        let resources = file.limited_resources.into_iter().enumerate().map(|(i, limited)| {
            let LimitedResource { api_group: group, resource, match_contains: contains, match_scopes } = limited;
            if resource.is_empty() {
                return Err(format!("limitedResources[{i}].resource: Required value"));
            }
            let scopes = match_scopes.into_iter().enumerate().map(|(j, requirement)| {
                if !OPERATORS.contains(&requirement.operator.as_str()) {
                    let operator = &requirement.operator;
                    return Err(format!(
                        "limitedResources[{i}].matchScopes[{j}].operator: Invalid value: {operator:?}"
                    ));
                }
                serde_json::to_value(requirement).map(|value| Scope::of(&value)).map_err(|error| error.to_string())
            });
            Ok(Resource { group, resource, contains, scopes: scopes.collect::<Result<_, _>>()? })
        });
        Ok(Self { resources: resources.collect::<Result<_, _>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Refuses what is limited of a request and covered by no quota. Quotas that count it have `covered` those names.
    pub(super) fn check(
        &self,
        request: &Request<'_>,
        evaluator: &Evaluator,
        object: &Value,
        usage: &Amounts,
        (quotas, covered): (&[std::sync::Arc<Quota>], &BTreeSet<&str>),
    ) -> Result<(), Status> {
        let kind = &request.resource.kind;
        let own =
            self.resources.iter().filter(|limited| limited.group == kind.group && limited.resource == kind.resource);
        let mut names = BTreeSet::new();
        for limited in own {
            let is_limited = |name: &str| limited.contains.iter().any(|part| name.contains(part.as_str()));
            let used = usage.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
            names
                .extend(used.map(|(name, _)| name.as_str()).filter(|name| is_limited(name) && !covered.contains(name)));
        }
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().collect();
            return Err(request.forbidden(&format!("insufficient quota to consume: {}", names.join(","))));
        }
        // As upstream, scopes count whatever resource they were named for.
        let scopes = self.resources.iter().flat_map(|limited| evaluator.scopes_of(&limited.scopes, object));
        let is_covered = |scope: &Scope| {
            let mut all = quotas.iter().flat_map(|quota| evaluator.scopes_of(quota.scopes(), object));
            all.any(|other| other.name() == scope.name())
        };
        let uncovered: Vec<_> = scopes.filter(|scope| !is_covered(scope)).map(Scope::to_string).collect();
        match uncovered.as_slice() {
            [] => Ok(()),
            // No status upstream, but a bare error.
            all => Err(Status::new(500, "", format!("insufficient quota to match these scopes: [{}]", all.join(" ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_read_or_refused_by_field() {
        let file = |kind: (&str, &str), resources: Value| {
            Limited::parse(&json!({"apiVersion": kind.0, "kind": kind.1, "limitedResources": resources}))
        };
        for kind in KINDS {
            assert!(file(kind, json!([])).unwrap().is_empty());
        }
        let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["a", "b"]});
        let pods = json!([{"resource": "pods", "matchContains": ["cpu"], "matchScopes": [scope]}]);
        let limited = file(KINDS[0], pods).unwrap();
        assert_eq!(limited.resources[0].scopes[0].to_string(), "{PriorityClass In [a b]}");
        for (resources, expected) in [
            (json!([{"matchContains": ["cpu"]}]), "limitedResources[0].resource: Required value"),
            (
                json!([{"resource": "pods", "matchScopes": [{"scopeName": "x", "operator": "Is"}]}]),
                "matchScopes[0].operator",
            ),
            (json!([{"resource": "pods", "max": 1}]), "unknown field `max`"),
        ] {
            let error = file(KINDS[0], resources).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        file(("apiserver.config.k8s.io/v1", "Configuration"), json!([])).unwrap_err();
    }
}
