//! `/healthz`, `/livez`, `/readyz`: whether the server answers, and (ready) whether the store does and the cache is loaded.
//! Each check also has its own path; with `?verbose`, or when one fails, all are listed.

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
pub(super) fn serve(core: &Core, path: &str, verbose: bool) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').split('/');
    let endpoint = parts.next()?;
    let checks = match endpoint {
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
    if failed.is_empty() && !verbose {
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
    let (code, verdict) = if failed.is_empty() { (200, "passed") } else { (500, "failed") };
    Some(reply::text(code, format!("{lines}{endpoint} check {verdict}\n")))
}
