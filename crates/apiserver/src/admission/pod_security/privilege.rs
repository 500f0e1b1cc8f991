//! Privileged containers and ways to become one.

use super::checks::{Finding, Pod, failing, finding, named};
use super::policy::Version;

pub(super) fn privileged(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let bad = failing(pod, |container| container.security()["privileged"] == true);
    let detail = named("container", &bad).map(|who| format!("{who} must not set securityContext.privileged=true"));
    finding("privileged", detail)
}

pub(super) fn escalation(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if version.since(25) && pod.is_windows() {
        return None;
    }
    let bad = failing(pod, |container| container.security()["allowPrivilegeEscalation"] != false);
    let detail =
        named("container", &bad).map(|who| format!("{who} must set securityContext.allowPrivilegeEscalation=false"));
    finding("allowPrivilegeEscalation != false", detail)
}
