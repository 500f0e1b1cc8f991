//! `/healthz`, `/livez`, `/readyz`: whether the server answers, and (ready) whether the store does, the cache is loaded, and
//! the server is not about to stop. Each check also has its own path; with `?verbose`, or when one fails, all are listed;
//! `?exclude=` leaves some out. Names and texts are upstream's.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response};

use crate::Body;
use crate::core::Core;
use crate::http::query::Query;
use crate::http::reply;

/// How long the store may take (`--etcd-healthcheck-timeout`).
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Asked of the store; there is nothing under it.
const PROBE_KEY: &str = "/registry/health";

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// That there is an answer.
    Ping,
    /// That logging does not block; it writes to a pipe or file from the threads that serve.
    Log,
    Store,
    /// That the store takes writes.
    StoreReady,
    /// Objects that every cluster has are there: the server begins to answer only then.
    Bootstrapped(&'static str),
    InformerSync,
    Shutdown,
}

const LIVE: &[Check] = &[Check::Ping, Check::Log, Check::Store, RBAC_ROLES, PRIORITY_CLASSES, FLOW_CONTROL];
const READY: &[Check] = &[
    Check::Ping,
    Check::Log,
    Check::Store,
    Check::StoreReady,
    Check::InformerSync,
    RBAC_ROLES,
    PRIORITY_CLASSES,
    FLOW_CONTROL,
    Check::Shutdown,
];
const RBAC_ROLES: Check = Check::Bootstrapped("poststarthook/rbac/bootstrap-roles");
const PRIORITY_CLASSES: Check = Check::Bootstrapped("poststarthook/scheduling/bootstrap-system-priority-classes");
const FLOW_CONTROL: Check = Check::Bootstrapped("poststarthook/priority-and-fairness-config-consumer");

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Log => "log",
            Self::Store => "etcd",
            Self::StoreReady => "etcd-readiness",
            Self::Bootstrapped(name) => name,
            Self::InformerSync => "informer-sync",
            Self::Shutdown => "shutdown",
        }
    }

    /// The error says what is wrong.
    async fn run(self, core: &Core) -> Result<(), String> {
        match self {
            Self::Ping | Self::Log | Self::Bootstrapped(_) => Ok(()),
            Self::Store => match tokio::time::timeout(STORE_TIMEOUT, core.store.get(PROBE_KEY)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("the store does not answer: {error}")),
                Err(_) => Err(format!("the store did not answer within {}s", STORE_TIMEOUT.as_secs())),
            },
            Self::StoreReady => core.store.health().await.map_err(|error| error.to_string()),
            Self::InformerSync if core.cache.is_broken() => Err("the watch cache does not follow the store".into()),
            Self::InformerSync => Ok(()),
            Self::Shutdown if core.stopping.is_cancelled() => Err("process is shutting down".into()),
            Self::Shutdown => Ok(()),
        }
    }
}

/// The answer, for a health path.
pub(super) async fn serve(core: &Core, path: &str, query: &Query) -> Option<Response<Body>> {
    let path = path.strip_prefix('/')?;
    let (endpoint, one) = path.split_once('/').map_or((path, None), |(endpoint, one)| (endpoint, Some(one)));
    let checks = match endpoint {
        "livez" | "healthz" => LIVE,
        "readyz" => READY,
        _ => return None,
    };
    if let Some(one) = one.filter(|one| !one.is_empty()) {
        let check = checks.iter().find(|check| check.name() == one)?;
        return Some(match check.run(core).await {
            Ok(()) => reply::text(200, "ok"),
            Err(why) => error(format!("internal server error: {why}\n")),
        });
    }
    Some(all(core, endpoint, checks, query).await)
}

async fn all(core: &Core, endpoint: &str, checks: &[Check], query: &Query) -> Response<Body> {
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    excluded.sort_unstable();
    excluded.dedup();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name();
        if let Some(at) = excluded.iter().position(|excluded| *excluded == name) {
            excluded.remove(at);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let outcome = check.run(core).await;
        core.metrics.health(name, endpoint, outcome.is_ok());
        match outcome {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::warn!(endpoint, check = name, why, "a health check fails");
                failed = true;
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    if failed {
        return error(format!("{lines}{endpoint} check failed\n"));
    }
    let text = match query.get("verbose") {
        None => "ok".to_owned(),
        Some(_) => format!("{lines}{endpoint} check passed\n"),
    };
    plain(200, text)
}

fn error(text: String) -> Response<Body> {
    plain(500, text)
}

fn plain(code: u16, text: String) -> Response<Body> {
    let mut response = reply::text(code, text);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(HeaderName::from_static("x-content-type-options"), nosniff);
    response
}
