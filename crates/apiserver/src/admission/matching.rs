//! Which requests a webhook or policy is about: rules, and selectors of namespaces and objects.

use std::sync::Arc;

use keelson_api::kind::{Kind, Scope};
use keelson_api::selector::LabelSelector;
use keelson_api::status::Status;
use serde_json::Value;

use super::{Operation, Request};
use crate::registry::Resource;
use crate::registry::read::freshen;
use crate::subresource::is_namespace;

/// A `RuleWithOperations`, or one with resource names.
#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource; `*` is any.
    resources: Vec<(String, String)>,
    /// `None` is both.
    scope: Option<Scope>,
    /// Empty: all.
    names: Vec<String>,
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let resources = texts(rule, "resources").into_iter().map(|resource| match resource.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (resource, String::new()),
        });
        Self {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: resources.collect(),
            scope: match rule["scope"].as_str() {
                Some("Namespaced") => Some(Scope::Namespaced),
                Some("Cluster") => Some(Scope::Cluster),
                _ => None,
            },
            names: texts(rule, "resourceNames"),
        }
    }

    /// Whether the rule is about the request, taken as one for `kind`.
    fn matches(&self, request: &Request<'_>, kind: &Kind) -> bool {
        let listed = |list: &[String], value: &str| list.iter().any(|known| known == "*" || known == value);
        let named = |(resource, subresource): &(String, String)| {
            (resource == "*" || *resource == kind.resource)
                && (subresource == "*" || subresource == request.subresource)
        };
        self.resources.iter().any(named)
            && listed(&self.operations, request.operation.as_str())
            && listed(&self.groups, &kind.group)
            && listed(&self.versions, &kind.version)
            && self.scope.is_none_or(|scope| scope == kind.scope)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }
}

/// A label selector, or why it is none.
type Selector = Result<LabelSelector, String>;

fn selector(value: &Value) -> Selector {
    match value {
        Value::Null => Ok(LabelSelector::everything()),
        selector => LabelSelector::from_json(Some(selector)).map_err(|error| error.to_string()),
    }
}

/// What somebody is about.
#[derive(Debug)]
pub(crate) struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Without rules, everything is meant (bindings of policies).
    unruled: bool,
    /// `matchPolicy: Equivalent`
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

impl Matching {
    /// From a webhook.
    pub(crate) fn of_webhook(webhook: &Value) -> Self {
        Self { unruled: false, ..Self::new(webhook, "rules") }
    }

    /// From the `MatchResources` of a policy or binding.
    pub(crate) fn of_policy(resources: &Value) -> Self {
        Self::new(resources, "resourceRules")
    }

    fn new(value: &Value, rules: &str) -> Self {
        let list = |key: &str| value[key].as_array().into_iter().flatten().map(Rule::new).collect::<Vec<_>>();
        let rules = list(rules);
        Self {
            unruled: rules.is_empty(),
            rules,
            excluded: list("excludeResourceRules"),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
        }
    }

    /// The resource as which the rules know what the request is about.
    pub(crate) fn by_rules(&self, request: &Request<'_>) -> Option<Resource> {
        if self.found(&self.excluded, request).is_some() {
            return None;
        }
        if self.unruled { Some(request.resource.clone()) } else { self.found(&self.rules, request) }
    }

    fn found(&self, rules: &[Rule], request: &Request<'_>) -> Option<Resource> {
        if rules.iter().any(|rule| rule.matches(request, &request.resource.kind)) {
            return Some(request.resource.clone());
        }
        if rules.is_empty() || !self.equivalent {
            return None;
        }
        let served = request.core.registry.served();
        let equivalents: Vec<&Resource> = served.equivalents(request.resource).collect();
        let pairs = rules.iter().flat_map(|rule| equivalents.iter().map(move |resource| (rule, *resource)));
        pairs.into_iter().find(|(rule, resource)| rule.matches(request, &resource.kind)).map(|(_, found)| found.clone())
    }

    /// As [`Matching::by_rules`], with the selectors, which see the object as it is now.
    pub(crate) async fn find(&self, request: &Request<'_>, object: &Value) -> Result<Option<Resource>, Status> {
        let Some(resource) = self.by_rules(request) else { return Ok(None) };
        let in_namespace = self.in_namespace(request, object).await;
        if matches!(in_namespace, Ok(false)) || matches!(self.selects(request, object), Ok(false)) {
            return Ok(None);
        }
        in_namespace?;
        self.selects(request, object)?;
        Ok(Some(resource))
    }

    async fn in_namespace(&self, request: &Request<'_>, object: &Value) -> Result<bool, Status> {
        let selector = self.namespaces.as_ref().map_err(Status::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let namespace = namespace_of(request);
        if is_namespace(request.resource)
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
        {
            return Ok(selector.matches(&object["metadata"]["labels"]));
        }
        if namespace.is_empty() {
            return Ok(true);
        }
        Ok(selector.matches(&*find_namespace(request, namespace).await?))
    }

    fn selects(&self, request: &Request<'_>, object: &Value) -> Result<bool, Status> {
        let selector = self.objects.as_ref().map_err(Status::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let matches = |object: &Value| {
            let metadata = object.get("metadata").filter(|metadata| metadata.is_object());
            metadata.is_some_and(|metadata| selector.matches(&metadata["labels"]))
        };
        Ok(matches(object) || request.old.is_some_and(matches))
    }
}

/// The namespace as those who judge see it: a Namespace is in itself.
pub(crate) fn namespace_of<'a>(request: &Request<'a>) -> &'a str {
    if is_namespace(request.resource) { request.name } else { request.namespace }
}

/// A namespace; 404 for none.
pub(crate) async fn find_namespace(request: &Request<'_>, name: &str) -> Result<Arc<crate::cache::Entry>, Status> {
    let namespaces = request.core.registry.known("", "namespaces")?;
    if let Some(found) = namespaces.cache()?.get("", name) {
        return Ok(found);
    }
    // It may have been created elsewhere a moment ago.
    freshen(request.core, None).await?;
    namespaces.cache()?.get("", name).ok_or_else(|| namespaces.not_found(name))
}
