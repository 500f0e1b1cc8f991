//! `/healthz`, `/livez`, `/readyz`: whether the server answers, and (ready) whether the store does and the cache is loaded.
//! Each check also has its own path; `?verbose` is not told apart: a failing check is always named.

use http::Response;

use crate::Body;
use crate::core::Core;
use crate::http::reply;

/// A named check.
type Check = (&'static str, fn(&Core) -> bool);

const LIVE: &[Check] = &[("ping", |_| true)];
const READY: &[Check] = &[
    ("ping", |_| true),
    ("etcd", |core| !core.cache.is_broken()),
    ("informer-sync", |core| core.cache.revision() > 0 || !core.cache.is_broken()),
    ("shutdown", |core| !core.shutdown.is_cancelled()),
];

/// The answer, for a health path.
pub(super) fn serve(core: &Core, path: &str) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').split('/');
    let checks = match parts.next()? {
        "livez" => LIVE,
        "readyz" | "healthz" => READY,
        _ => return None,
    };
    if let Some(one) = parts.next() {
        let (_, check) = checks.iter().find(|(name, _)| *name == one)?;
        return Some(if check(core) {
            reply::text(200, "ok")
        } else {
            reply::text(500, "internal server error: check failed")
        });
    }
    let failed: Vec<_> = checks.iter().filter(|(_, check)| !check(core)).map(|(name, _)| *name).collect();
    if failed.is_empty() {
        return Some(reply::text(200, "ok"));
    }
    let mut lines = String::new();
    for (name, _) in checks {
        let line = if failed.contains(name) {
            format!("[-]{name} failed: reason withheld\n")
        } else {
            format!("[+]{name} ok\n")
        };
        lines.push_str(&line);
    }
    Some(reply::text(500, lines + "check failed\n"))
}
