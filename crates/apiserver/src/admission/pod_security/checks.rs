//! The checks of the Pod Security Standards, in the order in which their findings are told. Which hold is a matter of level
//! and version; what each looks at is in the files beside.

use serde_json::Value;

use super::policy::{Level, Standard, Version};
use super::{capabilities, host, identity, privilege, profiles, volumes};

/// A pod, or a template of pods.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    pub(crate) metadata: &'a Value,
    pub(crate) spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// All containers: initial ones first, then the pod's own, then ephemeral ones.
    pub(super) fn containers(self) -> impl Iterator<Item = Container<'a>> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().filter_map(move |list| self.spec[list].as_array()).flatten().map(Container)
    }

    /// `spec.securityContext`, null without one.
    pub(super) fn security(self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Whether its users are not the host's.
    pub(super) fn has_own_users(self) -> bool {
        self.spec["hostUsers"] == false
    }

    pub(super) fn is_windows(self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    pub(super) fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.metadata["annotations"].as_object();
        annotations.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Container<'a>(pub(super) &'a Value);

impl<'a> Container<'a> {
    pub(super) fn name(self) -> &'a str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub(super) fn security(self) -> &'a Value {
        &self.0["securityContext"]
    }
}

/// What a check has against a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `hostPort`
    pub(crate) reason: &'static str,
    /// `container "a" uses hostPort 80`
    pub(crate) detail: String,
}

type Check = fn(Pod<'_>, Version) -> Option<Finding>;

struct Checked {
    level: Level,
    /// The first 1.x that has it.
    since: u32,
    /// Under a stricter level another check asks for more, from that 1.x on.
    replaced_since: Option<u32>,
    check: Check,
}

const fn baseline(since: u32, replaced_since: Option<u32>, check: Check) -> Checked {
    Checked { level: Level::Baseline, since, replaced_since, check }
}

const fn restricted(since: u32, check: Check) -> Checked {
    Checked { level: Level::Restricted, since, replaced_since: None, check }
}

const CHECKS: [Checked; 19] = [
    baseline(0, None, profiles::app_armor),
    baseline(0, Some(22), capabilities::baseline),
    baseline(0, None, host::namespaces),
    baseline(0, Some(0), volumes::host_paths),
    baseline(0, None, host::ports),
    baseline(34, None, host::probes),
    baseline(0, None, privilege::privileged),
    baseline(0, Some(35), profiles::proc_mount_baseline),
    baseline(0, None, profiles::selinux),
    baseline(0, Some(19), profiles::seccomp_baseline),
    baseline(0, None, host::sysctls),
    baseline(0, None, host::windows_process),
    restricted(8, privilege::escalation),
    restricted(22, capabilities::restricted),
    restricted(35, profiles::proc_mount_restricted),
    restricted(0, volumes::restricted),
    restricted(0, identity::non_root),
    restricted(23, identity::user),
    restricted(19, profiles::seccomp_restricted),
];

/// Everything that speaks against the pod under a standard.
pub(crate) fn evaluate(standard: Standard, pod: Pod<'_>) -> Vec<Finding> {
    let Standard { level, version } = standard;
    let holds = |checked: &&Checked| {
        let replaced = checked.replaced_since.is_some_and(|since| level > checked.level && version.since(since));
        level >= checked.level && version.since(checked.since) && !replaced
    };
    CHECKS.iter().filter(holds).filter_map(|checked| (checked.check)(pod, version)).collect()
}

/// `privileged, hostPort`
pub(crate) fn reasons(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.reason).collect::<Vec<_>>().join(", ")
}

/// `privileged (container "a" must …), hostPort (…)`
pub(crate) fn details(findings: &[Finding]) -> String {
    let texts = findings.iter().map(|finding| format!("{} ({})", finding.reason, finding.detail));
    texts.collect::<Vec<_>>().join(", ")
}

/// A finding, unless nobody is to blame.
pub(super) fn finding(reason: &'static str, detail: Option<String>) -> Option<Finding> {
    Some(Finding { reason, detail: detail? })
}

/// Who it is about: `pod`, `container "a"`, `pod and containers "a", "b"`; `None` for nobody.
pub(super) fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let containers = named("container", containers);
    match (pod, containers) {
        (true, Some(containers)) => Some(format!("pod and {containers}")),
        (true, None) => Some("pod".into()),
        (false, containers) => containers,
    }
}

/// `container "a"`, `containers "a", "b"`; `None` for none.
pub(super) fn named(what: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{what}{} {}", plural(names.len()), quoted(names.iter().copied())))
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `uses` for one, `use` for many.
pub(super) fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// `"a", "b"`
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Names of the containers that fail a test.
pub(super) fn failing<'a>(pod: Pod<'a>, mut fails: impl FnMut(Container<'a>) -> bool) -> Vec<&'a str> {
    pod.containers().filter(|container| fails(*container)).map(Container::name).collect()
}
