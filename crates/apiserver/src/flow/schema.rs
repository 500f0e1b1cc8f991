//! FlowSchemas as they are matched: who and what a request is decides which one it belongs to.

use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;

use super::meters::Meters;
use crate::UserInfo;
use crate::http::path::RequestInfo;

/// A FlowSchema.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    /// Lower ones are tried first.
    pub(super) precedence: i32,
    /// The name of its priority level.
    pub(super) level: String,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
    /// Of requests that belong to it.
    pub(super) meters: Arc<Meters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Distinguisher {
    ByUser,
    ByNamespace,
}

/// The parts of the object that matter.
#[derive(Deserialize)]
pub(super) struct View {
    metadata: super::Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    priority_level_configuration: Reference,
    matching_precedence: i32,
    distinguisher_method: Option<Method>,
    rules: Vec<Rule>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            priority_level_configuration: Reference::default(),
            matching_precedence: 1000,
            distinguisher_method: None,
            rules: Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
struct Reference {
    name: String,
}

#[derive(Deserialize)]
struct Method {
    #[serde(rename = "type")]
    kind: Distinguisher,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<UrlRule>,
}

/// One of the three, as its kind says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    user: Option<Name>,
    group: Option<Name>,
    service_account: Option<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Name {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UrlRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

impl From<View> for Schema {
    fn from(View { metadata, spec }: View) -> Self {
        Self {
            name: metadata.name,
            uid: super::header(&metadata.uid),
            precedence: spec.matching_precedence,
            level: spec.priority_level_configuration.name,
            distinguisher: spec.distinguisher_method.map(|method| method.kind),
            rules: spec.rules,
            meters: Arc::default(),
        }
    }
}

impl Schema {
    /// Whether a request belongs to it, if it belongs to none before it.
    pub(super) fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.covers(info) && rule.subjects.iter().any(|subject| subject.is(user)))
    }

    /// What tells the flows of one schema apart.
    pub(super) fn flow<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            None => "",
            Some(Distinguisher::ByUser) => &user.name,
            Some(Distinguisher::ByNamespace) => info.target.as_ref().map_or("", |target| &target.namespace),
        }
    }
}

impl Rule {
    fn covers(&self, info: &RequestInfo) -> bool {
        let Some(target) = &info.target else {
            return self.non_resource_rules.iter().any(|rule| {
                among(&rule.verbs, &info.verb) && rule.non_resource_urls.iter().any(|url| covers_path(url, &info.path))
            });
        };
        self.resource_rules.iter().any(|rule| {
            let in_place = match target.namespace.as_str() {
                "" => rule.cluster_scope,
                namespace => among(&rule.namespaces, namespace),
            };
            in_place
                && among(&rule.verbs, &info.verb)
                && among(&rule.api_groups, &target.group)
                && rule.resources.iter().any(|resource| names(resource, &target.resource, &target.subresource))
        })
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        if let Some(Name { name }) = &self.user {
            return name == "*" || *name == user.name;
        }
        if let Some(Name { name }) = &self.group {
            return name == "*" || user.in_group(name);
        }
        let Some(account) = &self.service_account else { return false };
        user.as_service_account().is_some_and(|(namespace, name)| {
            namespace == account.namespace && (account.name == "*" || account.name == name)
        })
    }
}

fn among(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

/// `pods`, `pods/status` or `*`.
fn names(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (subresource.is_empty() && pattern == resource),
        Some((of, sub)) => !subresource.is_empty() && of == resource && sub == subresource,
    }
}

/// The path itself, all paths (`*`), or all below one (`/healthz/*`).
fn covers_path(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || (pattern.ends_with("/*") && path.starts_with(pattern.trim_end_matches('*')))
}
