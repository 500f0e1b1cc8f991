//! Profiles that confine containers: AppArmor, SELinux, seccomp, and the masks over `/proc`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Finding, Pod, failing, finding, named, plural, quoted, setters};
use super::policy::Version;

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The type of a profile, if one is set.
fn profile<'a>(security: &'a Value, field: &str) -> Option<&'a str> {
    let profile = security.get(field).filter(|profile| !profile.is_null())?;
    Some(profile["type"].as_str().unwrap_or_default())
}

fn is_confined(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

/// Who sets a profile that does not confine, and which.
fn unconfined<'a>(pod: Pod<'a>, field: &str) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
    let mut types = BTreeSet::new();
    let mut is_bad = |security: &'a Value| {
        let bad = profile(security, field).filter(|profile| !is_confined(profile));
        bad.map(|profile| types.insert(profile)).is_some()
    };
    let whole = is_bad(pod.security());
    let containers = failing(pod, |container| is_bad(container.security()));
    (whole, containers, types)
}

pub(super) fn app_armor(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let (whole, containers, types) = unconfined(pod, "appArmorProfile");
    let is_bad = |key: &str, value: &str| {
        let allowed = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
    };
    let annotations = pod.annotations().filter(|(key, value)| is_bad(key, value));
    let annotations: BTreeSet<_> = annotations.map(|(key, value)| format!("{key}={value:?}")).collect();
    let mut who: Vec<_> = setters(whole, &containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(format!("annotation{}", plural(annotations.len())));
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<_> = types.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values.into_iter()));
    finding(reason, Some(detail))
}

pub(super) fn seccomp_baseline(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if !version.since(19) {
        return seccomp_annotations(pod);
    }
    let (whole, containers, types) = unconfined(pod, "seccompProfile");
    finding("seccompProfile", seccomp_detail(whole, &containers, types))
}

fn seccomp_detail(whole: bool, containers: &[&str], types: BTreeSet<&str>) -> Option<String> {
    let who = setters(whole, containers)?;
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(types.into_iter())))
}

fn seccomp_annotations(pod: Pod<'_>) -> Option<Finding> {
    let keys: BTreeSet<_> =
        pod.containers().map(|container| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", container.name())).collect();
    let counts = |key: &str| key == SECCOMP_POD_ANNOTATION || keys.contains(key);
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let bad = pod.annotations().filter(|(key, value)| counts(key) && !allowed(value));
    let bad: BTreeSet<_> = bad.map(|(key, value)| format!("{key}={value:?}")).collect();
    let texts = bad.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let detail = (!bad.is_empty()).then(|| format!("forbidden annotation{} {texts}", plural(bad.len())));
    finding("seccompProfile", detail)
}

pub(super) fn seccomp_restricted(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if version.since(25) && pod.is_windows() {
        return None;
    }
    let (whole, containers, types) = unconfined(pod, "seccompProfile");
    if let Some(detail) = seccomp_detail(whole, &containers, types) {
        return finding("seccompProfile", Some(detail));
    }
    if profile(pod.security(), "seccompProfile").is_some() {
        return None;
    }
    let silent = failing(pod, |container| profile(container.security(), "seccompProfile").is_none());
    let detail = named("container", &silent).map(|who| {
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    });
    finding("seccompProfile", detail)
}

pub(super) fn selinux(pod: Pod<'_>, version: Version) -> Option<Finding> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |security: &Value| {
        let text = |field: &str| security["seLinuxOptions"][field].as_str().unwrap_or_default();
        let allowed = match text("type") {
            "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
            "container_engine_t" => version.since(31),
            _ => false,
        };
        if !allowed {
            types.insert(text("type").to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !allowed || !text("user").is_empty() || !text("role").is_empty()
    };
    let whole = is_bad(pod.security());
    let containers = failing(pod, |container| is_bad(container.security()));
    let who = setters(whole, &containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("type{} {}", plural(types.len()), quoted(types.iter().map(String::as_str))));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    finding("seLinuxOptions", Some(format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "))))
}

pub(super) fn proc_mount_baseline(pod: Pod<'_>, version: Version) -> Option<Finding> {
    if version.since(35) && pod.has_own_users() {
        return None;
    }
    proc_mount_restricted(pod, version)
}

pub(super) fn proc_mount_restricted(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let mut types = BTreeSet::new();
    let bad = failing(pod, |container| {
        let other = container.security()["procMount"].as_str().filter(|kind| *kind != "Default");
        other.map(|kind| types.insert(kind)).is_some()
    });
    let detail = named("container", &bad)
        .map(|who| format!("{who} must not set securityContext.procMount to {}", quoted(types.into_iter())));
    finding("procMount", detail)
}
