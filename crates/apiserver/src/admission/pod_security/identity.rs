//! As which user containers run. In a user namespace of the pod's own, root is nobody on the node.

use serde_json::Value;

use super::checks::{Finding, Pod, failing, finding, named, setters};
use super::policy::Version;

fn is_relaxed(pod: Pod<'_>, version: Version) -> bool {
    version.since(35) && pod.has_own_users()
}

pub(super) fn non_root(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if is_relaxed(pod, version) {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let own = |security: &Value| security["runAsNonRoot"].as_bool();
    let whole = own(pod.security());
    let roots = failing(pod, |container| own(container.security()) == Some(false));
    if let Some(who) = setters(whole == Some(false), &roots) {
        return finding(REASON, Some(format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    if whole == Some(true) {
        return None;
    }
    let silent = failing(pod, |container| own(container.security()).is_none());
    finding(
        REASON,
        named("container", &silent).map(|who| format!("pod or {who} must set securityContext.runAsNonRoot=true")),
    )
}

pub(super) fn user(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if is_relaxed(pod, version) {
        return None;
    }
    let is_root = |security: &Value| security["runAsUser"].as_i64() == Some(0);
    let roots = failing(pod, |container| is_root(container.security()));
    let detail = setters(is_root(pod.security()), &roots).map(|who| format!("{who} must not set runAsUser=0"));
    finding("runAsUser=0", detail)
}
