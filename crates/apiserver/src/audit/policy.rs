//! The audit policy (`audit.k8s.io/v1 Policy`): how much of a request is written down, and at which stages. The first rule
//! that matches decides; a request that no rule matches is not audited.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::UserInfo;
use crate::http::path::RequestInfo;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) enum Level {
    None,
    /// Who asked for what, and what came of it.
    Metadata,
    /// With the request's body.
    Request,
    /// With the response's body too.
    RequestResponse,
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Stage {
    RequestReceived,
    /// Long-running requests only.
    ResponseStarted,
    ResponseComplete,
    /// Known to upstream's policies; this server does not go on after a panic, so there is no such event.
    Panic,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    pub(crate) level: Level,
    pub(crate) omit_stages: &'a [Stage],
    pub(crate) omit_managed_fields: bool,
}

/// A policy, ready for use.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
const RULE_FIELDS: &[&str] = &[
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

impl Policy {
    /// Reads a policy in YAML or JSON. The error says what is wrong with it. Fields that are not known are warned of.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|e| format!("failed decoding: {e}"))?;
        for field in unknown_fields(&value) {
            tracing::warn!(field, "the audit policy has a field that is not known; it is ignored");
        }
        let document: Document = serde_json::from_value(value).map_err(|e| format!("failed decoding: {e}"))?;
        let Document { api_version, kind, mut rules, omit_stages, omit_managed_fields } = document;
        if (api_version.as_str(), kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("it is {kind:?} of {api_version:?}, and must be Policy of audit.k8s.io/v1"));
        }
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        for (at, rule) in rules.iter_mut().enumerate() {
            rule.check().map_err(|why| format!("rules[{at}]: {why}"))?;
            rule.omit_stages.extend_from_slice(&omit_stages);
            rule.omit_managed_fields.get_or_insert(omit_managed_fields);
        }
        Ok(Self { rules })
    }

    /// What is to be written of a request; `None` for nothing. Without a user, authentication failed.
    pub(crate) fn verdict(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Option<Verdict<'_>> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, info))?;
        if rule.level == Level::None {
            return None;
        }
        let omit_managed_fields = rule.omit_managed_fields == Some(true);
        Some(Verdict { level: rule.level, omit_stages: &rule.omit_stages, omit_managed_fields })
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let by_resource = !self.resources.is_empty() || !self.namespaces.is_empty();
        if by_resource && !self.non_resource_urls.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for url in self.non_resource_urls.iter().filter(|url| *url != "*") {
            if !url.starts_with('/') {
                return Err(format!("nonResourceURLs: {url:?}: must begin with a '/' character"));
            }
            if url.trim_end_matches('*').len() + 1 < url.len() || url.trim_end_matches('*').contains('*') {
                return Err(format!("nonResourceURLs: {url:?}: wildcards '*' must be the final character of the path"));
            }
        }
        for resources in &self.resources {
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                return Err("resourceNames: using resourceNames requires at least one resource".into());
            }
            if resources.group.contains('/') {
                return Err(format!("group: {:?} is no API group (it may not contain a version)", resources.group));
            }
        }
        Ok(())
    }

    fn matches(&self, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
        let among = |list: &[String], value: &str| list.iter().any(|item| item == value);
        if !self.users.is_empty() && !user.is_some_and(|user| among(&self.users, &user.name)) {
            return false;
        }
        let in_group = |user: &UserInfo| user.groups.iter().any(|group| among(&self.user_groups, group));
        if !self.user_groups.is_empty() && !user.is_some_and(in_group) {
            return false;
        }
        if !self.verbs.is_empty() && !among(&self.verbs, &info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let Some(target) = &info.target else { return false };
            if !self.namespaces.is_empty() && !among(&self.namespaces, &target.namespace) {
                return false;
            }
            return self.resources.is_empty()
                || self.resources.iter().any(|of_group| {
                    of_group.group == target.group
                        && of_group.cover(&target.resource, &target.subresource, &target.name)
                });
        }
        if !self.non_resource_urls.is_empty() {
            return info.target.is_none() && self.non_resource_urls.iter().any(|url| covers(url, &info.path));
        }
        true
    }
}

impl GroupResources {
    fn cover(&self, resource: &str, subresource: &str, name: &str) -> bool {
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|one| one == name) {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (subresource.is_empty() && pattern == resource),
            Some(("*", of)) => !subresource.is_empty() && of == subresource,
            Some((of, "*")) => of == resource,
            Some((of, sub)) => !subresource.is_empty() && of == resource && sub == subresource,
        })
    }
}

/// Whether a pattern of non-resource URLs covers a path: itself, or all that begins with what is before its `*`.
fn covers(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

fn unknown_fields(policy: &Value) -> Vec<String> {
    let outside = |value: &Value, known: &'static [&str]| -> Vec<String> {
        let keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
        keys.filter(|key| !known.contains(&key.as_str())).cloned().collect()
    };
    let rules = policy.get("rules").and_then(Value::as_array).into_iter().flatten();
    let in_rules = rules
        .enumerate()
        .flat_map(|(at, rule)| outside(rule, RULE_FIELDS).into_iter().map(move |field| format!("rules[{at}].{field}")));
    outside(policy, FIELDS).into_iter().chain(in_rules).collect()
}

#[cfg(test)]
mod tests;
