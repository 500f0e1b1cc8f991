//! What a request is about, read from its method, path and query: upstream's RequestInfo. Authorization and dispatch both
//! work on this value and nothing else, so they cannot disagree.

use http::Method;
use keelson_api::selector::{FieldRequirement, FieldSelector};

use super::query::Query;

/// A request, classified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, … for resources; the lower-case method otherwise.
    pub(crate) verb: String,
    /// The whole path.
    pub(crate) path: String,
    /// `None` for paths outside `/api/v1/…` and `/apis/g/v/…`.
    pub(crate) target: Option<Target>,
}

/// The resource part of a path. Absent parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What the field selector of a list, watch or deletion of a collection demands.
    pub(crate) fields: Vec<FieldRequirement>,
    /// Its label selector, as written.
    pub(crate) labels: String,
    /// What follows the subresource (`proxy/<rest>`), with its leading slash if it has one.
    pub(crate) rest: String,
}

impl RequestInfo {
    /// Classifies a request. Every path has a classification; whether it exists is decided later.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let plain = || Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), target: None };
        let Some((mut target, deprecated_watch)) = parse_target(path) else { return plain() };
        if target.resource.is_empty() {
            return plain();
        }
        let verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let mut verb = if deprecated_watch { "watch" } else { verb };
        if verb == "get" && target.name.is_empty() {
            verb = if query.flag("watch") { "watch" } else { "list" };
        } else if verb == "delete" && target.name.is_empty() {
            verb = "deletecollection";
        }
        let selects = matches!(verb, "list" | "watch" | "deletecollection") && !deprecated_watch;
        if let Some(selector) = query.text("fieldSelector").filter(|_| selects) {
            target.fields = FieldSelector::parse(selector).unwrap_or_default().requirements;
        }
        if let Some(selector) = query.text("labelSelector").filter(|_| selects) {
            target.labels = selector.to_owned();
        }
        // A list or watch of one object by field selector is authorized by that name. Others are not: what they do must not
        // pass for less than it is.
        if matches!(verb, "list" | "watch")
            && !deprecated_watch
            && target.name.is_empty()
            && let Some(term) = target.fields.iter().find(|term| term.equal && term.field == "metadata.name")
            && !term.value.contains(['/', '%'])
            && !matches!(term.value.as_str(), "." | "..")
        {
            target.name = term.value.clone();
        }
        Self { verb: verb.into(), path: path.to_owned(), target: Some(target) }
    }

    /// The group version that the request is about: that of its resource, or the one whose own path it is.
    pub(crate) fn group_version(&self) -> Option<(String, String)> {
        if let Some(target) = &self.target {
            return Some((target.group.clone(), target.version.clone()));
        }
        let path = self.path.strip_suffix('/').unwrap_or(&self.path);
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["", "api", version] => Some((String::new(), decoded(version))),
            ["", "apis", group, version] => Some((decoded(group), decoded(version))),
            _ => None,
        }
    }

    /// Whether it may go on for as long as both sides want: a watch, or a stream to a kubelet, pod or service.
    pub(crate) fn is_long_running(&self) -> bool {
        self.target.as_ref().is_some_and(|target| {
            let streams = ["attach", "exec", "proxy", "log", "portforward"];
            self.verb == "watch" || streams.contains(&target.subresource.as_str())
        })
    }
}

fn parse_target(path: &str) -> Option<(Target, bool)> {
    let mut parts = path.strip_prefix('/')?.split('/').peekable();
    let mut target = Target::default();
    match parts.next()? {
        "api" => target.version = decoded(parts.next()?),
        "apis" => {
            target.group = decoded(parts.next()?);
            target.version = decoded(parts.next()?);
        }
        _ => return None,
    }
    if target.version.is_empty() {
        return None;
    }
    let mut deprecated_watch = false;
    let mut next = parts.next().unwrap_or_default();
    if next == "watch" {
        deprecated_watch = true;
        next = parts.next().unwrap_or_default();
    }
    if next == "namespaces" {
        let namespace = decoded(parts.next().unwrap_or_default());
        match parts.peek().copied() {
            None | Some("" | "status" | "finalize") => {
                target.resource = "namespaces".into();
                target.namespace.clone_from(&namespace);
                target.name = namespace;
            }
            Some(_) => {
                target.namespace = namespace;
                target.resource = decoded(parts.next().unwrap_or_default());
                target.name = decoded(parts.next().unwrap_or_default());
            }
        }
    } else {
        target.resource = decoded(next);
        target.name = decoded(parts.next().unwrap_or_default());
    }
    target.subresource = decoded(parts.next().unwrap_or_default());
    for part in parts {
        target.rest.push('/');
        target.rest.push_str(part);
    }
    Some((target, deprecated_watch))
}

fn decoded(part: &str) -> String {
    super::query::percent_decode(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, expected: &str) {
        let (method, uri) = request.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
        let shown = match info.target {
            None => format!("{} {}", info.verb, info.path),
            Some(t) => {
                [info.verb, t.group, t.version, t.namespace, t.resource, t.name, t.subresource, t.rest].join("|")
            }
        };
        assert_eq!(shown, expected, "{request}");
    }

    #[test]
    fn requests_are_classified() {
        check("GET /api/v1/namespaces", "list||v1||namespaces|||");
        check("GET /api/v1/namespaces/a", "get||v1|a|namespaces|a||");
        check("PUT /api/v1/namespaces/a/finalize", "update||v1|a|namespaces|a|finalize|");
        check("GET /api/v1/namespaces/a/pods", "list||v1|a|pods|||");
        check("GET /api/v1/namespaces/a/pods/p/log", "get||v1|a|pods|p|log|");
        check("GET /api/v1/pods?watch=true", "watch||v1||pods|||");
        check("GET /api/v1/watch/pods", "watch||v1||pods|||");
        check("DELETE /api/v1/namespaces/a/pods", "deletecollection||v1|a|pods|||");
        check("GET /api/v1/pods?fieldSelector=metadata.name%3Dx", "list||v1||pods|x||");
        check("GET /api/v1/pods?watch=1&fieldSelector=metadata.name%3Dx", "watch||v1||pods|x||");
        check("GET /api/v1/watch/pods?fieldSelector=metadata.name%3Dx", "watch||v1||pods|||");
        check("DELETE /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx", "deletecollection||v1|a|pods|||");
        check("POST /apis/apps/v1/namespaces/a/deployments", "create|apps|v1|a|deployments|||");
        check("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn,metadata.name%3D%3Dx", "list||v1||pods|x||");
        check("GET /api/v1/pods?fieldSelector=metadata.name%21%3Dx", "list||v1||pods|||");
        check("GET /api/v1/namespaces/a/pods/p?watch=1", "get||v1|a|pods|p||");
        check("GET /api/v1/watch/namespaces/a/pods/p", "watch||v1|a|pods|p||");
        check("GET /api/v1/nodes/n/proxy/metrics/cadvisor", "get||v1||nodes|n|proxy|/metrics/cadvisor");
        check("GET /api/v1/namespaces/a/services/s:http/proxy/", "get||v1|a|services|s:http|proxy|/");
        check(
            "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab",
            "get|rbac.authorization.k8s.io|v1||clusterroles|a:b||",
        );
        check("GET /version", "get /version");
        check("GET /apis/apps", "get /apis/apps");
        check("GET /api/v1", "get /api/v1");
        check("GET /", "get /");
    }
}
