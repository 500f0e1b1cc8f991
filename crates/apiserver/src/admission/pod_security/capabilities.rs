//! Linux capabilities.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Container, Finding, Pod, failing, finding, named, quoted};
use super::policy::Version;

/// What container runtimes give by default, without `NET_RAW`.
const DEFAULTS: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn list<'a>(container: Container<'a>, field: &str) -> impl Iterator<Item = &'a str> {
    let list = container.security()["capabilities"][field].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn adding_others(pod: Pod<'_>, allowed: &[&str]) -> Option<String> {
    let mut others = BTreeSet::new();
    let bad = failing(pod, |container| {
        let before = list(container, "add").filter(|capability| !allowed.contains(capability));
        before.map(|capability| others.insert(capability)).count() > 0
    });
    let who = named("container", &bad)?;
    Some(format!("{who} must not include {} in securityContext.capabilities.add", quoted(others.into_iter())))
}

pub(super) fn baseline(pod: Pod<'_>, _: Version) -> Option<Finding> {
    finding("non-default capabilities", adding_others(pod, &DEFAULTS))
}

pub(super) fn restricted(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if version.since(25) && pod.is_windows() {
        return None;
    }
    let keeping = failing(pod, |container| !list(container, "drop").any(|capability| capability == "ALL"));
    let keeping =
        named("container", &keeping).map(|who| format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    let details: Vec<_> = [keeping, adding_others(pod, &["NET_BIND_SERVICE"])].into_iter().flatten().collect();
    finding("unrestricted capabilities", (!details.is_empty()).then(|| details.join("; ")))
}
