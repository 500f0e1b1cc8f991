//! Paths of the kubelet's API and what it takes to be allowed on them.

use http::{Method, StatusCode};

/// A container, or for port-forwarding a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: Option<String>,
    pub(super) container: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Healthz,
    /// A check of its own: `ping`, `log` or `syncloop`.
    Health(String),
    Configz,
    Pods,
    RunningPods,
    /// Below the node's log directory.
    NodeLogs(String),
    Metrics,
    MetricsResource,
    MetricsCadvisor,
    MetricsProbes,
    StatsSummary,
    Logs(Target),
    Exec(Target),
    Attach(Target),
    PortForward(Target),
}

impl Route {
    /// Whether it is served only with `enableDebuggingHandlers`.
    pub(super) fn is_for_debugging(&self) -> bool {
        match self {
            Route::Configz | Route::RunningPods | Route::NodeLogs(_) => true,
            Route::Logs(_) | Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => true,
            Route::Healthz | Route::Health(_) | Route::Pods | Route::StatsSummary => false,
            Route::Metrics | Route::MetricsResource | Route::MetricsCadvisor | Route::MetricsProbes => false,
        }
    }

    /// Reads a path; 404 or 405 when there is nothing there.
    pub(super) fn of(method: &Method, path: &str) -> Result<Route, StatusCode> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let target = |uid: Option<&str>, namespace: &str, pod: &str, container: &str| Target {
            namespace: namespace.into(),
            pod: pod.into(),
            uid: uid.map(str::to_string),
            container: container.into(),
        };
        let read = matches!(*method, Method::GET | Method::HEAD);
        let stream = matches!(*method, Method::GET | Method::POST);
        let (route, allowed) = match parts.as_slice() {
            ["healthz"] => (Route::Healthz, read),
            ["healthz", check] => (Route::Health((*check).into()), read),
            ["configz"] => (Route::Configz, read),
            ["pods"] => (Route::Pods, read),
            ["runningpods"] => (Route::RunningPods, read),
            ["logs", below @ ..] => (Route::NodeLogs(below.join("/")), read),
            ["metrics"] => (Route::Metrics, read),
            ["metrics", "resource"] => (Route::MetricsResource, read),
            ["metrics", "cadvisor"] => (Route::MetricsCadvisor, read),
            ["metrics", "probes"] => (Route::MetricsProbes, read),
            ["stats", "summary"] => (Route::StatsSummary, stream),
            ["containerLogs", ns, pod, container] => (Route::Logs(target(None, ns, pod, container)), read),
            ["exec", ns, pod, container] => (Route::Exec(target(None, ns, pod, container)), stream),
            ["exec", ns, pod, uid, container] => (Route::Exec(target(Some(uid), ns, pod, container)), stream),
            ["attach", ns, pod, container] => (Route::Attach(target(None, ns, pod, container)), stream),
            ["attach", ns, pod, uid, container] => (Route::Attach(target(Some(uid), ns, pod, container)), stream),
            ["portForward", ns, pod] => (Route::PortForward(target(None, ns, pod, "")), stream),
            ["portForward", ns, pod, uid] => (Route::PortForward(target(Some(uid), ns, pod, "")), stream),
            _ => return Err(StatusCode::NOT_FOUND),
        };
        if allowed { Ok(route) } else { Err(StatusCode::METHOD_NOT_ALLOWED) }
    }
}

/// Subresources of `nodes`, any of which allows the path.
pub(super) fn subresources(path: &str) -> &'static [&'static str] {
    match path.split('/').nth(1).unwrap_or_default() {
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "spec" => &["spec"],
        "checkpoint" => &["checkpoint"],
        _ => &["proxy"],
    }
}

/// The API verb of a method.
pub(super) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let target = |uid: Option<&str>, container: &str| Target {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: uid.map(str::to_string),
            container: container.into(),
        };
        for (method, path, expected) in [
            (Method::GET, "/healthz", Ok(Route::Healthz)),
            (Method::POST, "/healthz", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "/pods/", Ok(Route::Pods)),
            (Method::GET, "/healthz/ping", Ok(Route::Health("ping".into()))),
            (Method::GET, "/configz", Ok(Route::Configz)),
            (Method::GET, "/runningpods/", Ok(Route::RunningPods)),
            (Method::GET, "/logs/", Ok(Route::NodeLogs(String::new()))),
            (Method::GET, "/logs/pods/x", Ok(Route::NodeLogs("pods/x".into()))),
            (Method::POST, "/logs/", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "/metrics/resource", Ok(Route::MetricsResource)),
            (Method::GET, "/metrics/other", Err(StatusCode::NOT_FOUND)),
            (Method::POST, "/stats/summary", Ok(Route::StatsSummary)),
            (Method::GET, "/containerLogs/ns/p/c", Ok(Route::Logs(target(None, "c")))),
            (Method::POST, "/exec/ns/p/c", Ok(Route::Exec(target(None, "c")))),
            (Method::GET, "/attach/ns/p/u/c", Ok(Route::Attach(target(Some("u"), "c")))),
            (Method::POST, "/portForward/ns/p", Ok(Route::PortForward(target(None, "")))),
            (Method::DELETE, "/exec/ns/p/c", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "/exec/ns", Err(StatusCode::NOT_FOUND)),
            (Method::GET, "/", Err(StatusCode::NOT_FOUND)),
        ] {
            assert_eq!(Route::of(&method, path), expected, "{method} {path}");
        }
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        for (path, expected) in [
            ("/exec/a/b/c", "proxy"),
            ("/stats/summary", "stats"),
            ("/metrics/cadvisor", "metrics"),
            ("/logs/", "log"),
            ("/logsome", "proxy"),
        ] {
            assert_eq!(subresources(path), [expected], "{path}");
        }
    }
}
