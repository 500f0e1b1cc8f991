//! Parameters of policies: objects of any kind, by name or label.

use keelson_api::kind::Scope;
use keelson_api::selector::LabelSelector;
use serde_json::Value;

use crate::admission::Request;
use crate::admission::matching::namespace_of;
use crate::http::query::Query;
use crate::registry::Resource;
use crate::registry::lists;

/// `paramKind`
pub(super) struct ParamKind {
    group: String,
    version: String,
    kind: String,
}

impl ParamKind {
    pub(super) fn new(kind: &Value) -> Option<Self> {
        let text = |key: &str| kind[key].as_str().unwrap_or_default();
        let api_version = kind.is_object().then(|| text("apiVersion"))?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Some(Self { group: group.to_owned(), version: version.to_owned(), kind: text("kind").to_owned() })
    }

    fn resource(&self, request: &Request<'_>) -> Option<Resource> {
        let served = request.core.registry.served();
        let mut all = served.all().iter();
        let found =
            all.find(|r| r.kind.kind == self.kind && r.kind.group == self.group && r.kind.version == self.version);
        found.filter(|r| r.stored().is_some()).cloned()
    }
}

/// `paramRef`
pub(super) struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<LabelSelector, String>>,
    /// `parameterNotFoundAction: Deny`
    needed: bool,
}

impl ParamRef {
    pub(super) fn new(reference: &Value) -> Option<Self> {
        let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
        let selector = Some(&reference["selector"]).filter(|selector| selector.is_object());
        reference.is_object().then(|| Self {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.map(|s| LabelSelector::from_json(Some(s)).map_err(|error| error.to_string())),
            needed: reference["parameterNotFoundAction"] == "Deny",
        })
    }
}

/// The parameters that a policy is run with, once for each; one null when it has none. The error is upstream's.
pub(super) async fn collect(
    request: &Request<'_>,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
) -> Result<Vec<Value>, String> {
    let Some(kind) = kind else { return Ok(vec![Value::Null]) };
    let Some(resource) = kind.resource(request) else {
        let ParamKind { group, version, kind } = kind;
        return Err(format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"));
    };
    let Some(reference) = reference else { return Ok(vec![Value::Null]) };
    let own = namespace_of(request);
    let namespace = match (resource.kind.scope, reference.namespace.as_str()) {
        (Scope::Cluster, "") => "",
        (Scope::Cluster, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (Scope::Namespaced, "") if own.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (Scope::Namespaced, "") => own,
        (Scope::Namespaced, namespace) => namespace,
    };
    let mut found = Vec::new();
    match &reference.selector {
        None => {
            let cache = resource.cache().map_err(|status| status.message)?;
            let entry = cache.newest(namespace, &reference.name).await.map_err(|status| status.message)?;
            if let Some(entry) = entry {
                found.push(resource.decode(&entry).map_err(|status| status.message)?);
            }
        }
        Some(selector) => {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            let query = Query::parse("resourceVersion=0");
            let listed = lists::find(request.core, &resource, namespace, &query).await.map_err(|s| s.message)?;
            for entry in listed.entries.filter(|entry| selector.matches(&**entry)) {
                found.push(resource.decode(&entry).map_err(|status| status.message)?);
            }
        }
    }
    if found.is_empty() && reference.needed {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}
