//! How pods are measured.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Amounts, Scope, amounts, one};
use crate::kinds::{is_extended, is_native, qos_class, together};
use crate::quantity::Quantity;

const COUNT: &str = "count/pods";

/// Amounts that are quota'd as requests and as limits.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What every container must state when a quota limits it. Upstream came to regret this, and added no more.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(super) fn counts(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let extended = name.strip_prefix("requests.").is_some_and(|_| !is_native(name));
    name == COUNT
        || name == "pods"
        || COMPUTE.contains(&bare)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || extended
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What a pod uses. One that is over uses nothing but its place.
pub(super) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    let mut usage = Amounts::from([(COUNT.to_owned(), one())]);
    if is_charged(pod, now) {
        compute(&requests(pod), &limits(pod), &mut usage);
    }
    usage
}

/// Amounts by the names under which quotas know them.
fn compute(requests: &Amounts, limits: &Amounts, usage: &mut Amounts) {
    usage.insert("pods".into(), one());
    for name in COMPUTE {
        if let Some(request) = requests.get(name) {
            usage.insert(name.into(), *request);
            usage.insert(format!("requests.{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with("hugepages-") {
            usage.insert(name.clone(), *request);
        }
        if name.starts_with("hugepages-") || is_extended(name) {
            usage.insert(format!("requests.{name}"), *request);
        }
    }
}

/// Pods that have ended use nothing, nor do those that should be gone (their node may be lost).
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, metadata["deletionGracePeriodSeconds"].as_i64()) else { return true };
    now.duration_since(deleted) <= SignedDuration::from_secs(grace)
}

/// What a pod requests, overhead included.
pub fn requests(pod: &Value) -> Amounts {
    let mut total = containers_amounts(pod, "requests");
    for (name, overhead) in amounts(&pod["spec"]["overhead"]) {
        *total.entry(name).or_default() += overhead;
    }
    total
}

/// What a pod may use; overhead is added where there is a limit.
pub fn limits(pod: &Value) -> Amounts {
    let mut total = containers_amounts(pod, "limits");
    for (name, overhead) in amounts(&pod["spec"]["overhead"]) {
        if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit += overhead;
        }
    }
    total
}

/// `requests` or `limits` of a pod without its overhead. What is said for the whole pod wins over what its containers say,
/// and while a resize is under way the larger of old and new counts.
fn containers_amounts(pod: &Value, list: &str) -> Amounts {
    amounts_with(&pod["spec"], &Statuses::of(pod), list)
}

/// `requests` or `limits` of a pod's spec without its overhead, whatever its containers have been given.
pub fn spec_amounts(spec: &Value, list: &str) -> Amounts {
    amounts_with(spec, &Statuses::default(), list)
}

fn amounts_with(spec: &Value, statuses: &Statuses<'_>, list: &str) -> Amounts {
    let all = || items(&spec["containers"]).chain(items(&spec["initContainers"]));
    let names: BTreeSet<String> = all().flat_map(|container| statuses.names(container, list)).collect();
    let mut total: Amounts = names
        .into_iter()
        .map(|name| {
            let amount = together(spec, |container| statuses.amount(container, list, &name));
            (name, amount)
        })
        .collect();
    for (name, amount) in amounts(&spec["resources"][list]) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.insert(name, amount);
        }
    }
    total
}

/// What containers have been given, by name.
#[derive(Default)]
struct Statuses<'a> {
    by_name: BTreeMap<&'a str, &'a Value>,
    /// The node cannot give what the spec asks for, so that what there is stays.
    infeasible: bool,
}

impl<'a> Statuses<'a> {
    fn of(pod: &'a Value) -> Self {
        let status = &pod["status"];
        let all = items(&status["containerStatuses"]).chain(items(&status["initContainerStatuses"]));
        let given = all.filter(|one| one["resources"].is_object() || one["allocatedResources"].is_object());
        let by_name = given.filter_map(|status| Some((status["name"].as_str()?, status))).collect();
        let infeasible = items(&status["conditions"])
            .any(|condition| condition["type"] == "PodResizePending" && condition["reason"] == "Infeasible");
        Self { by_name, infeasible }
    }

    /// The lists that say something about a container.
    fn lists<'b>(&'b self, container: &'b Value, list: &'b str) -> impl Iterator<Item = &'b Value> {
        let status = container["name"].as_str().and_then(|name| self.by_name.get(name).copied());
        let own = (!self.infeasible || status.is_none()).then_some(&container["resources"][list]);
        let given = status.map(|status| &status["resources"][list]);
        let allocated = status.filter(|_| list == "requests").map(|status| &status["allocatedResources"]);
        [own, given, allocated].into_iter().flatten()
    }

    fn names<'b>(&'b self, container: &'b Value, list: &'b str) -> impl Iterator<Item = String> {
        self.lists(container, list).filter_map(Value::as_object).flat_map(|list| list.keys().cloned())
    }

    fn amount(&self, container: &Value, list: &str, name: &str) -> Quantity {
        let amounts = self.lists(container, list).filter_map(|list| Quantity::lookup(list, name));
        amounts.max().unwrap_or_default()
    }
}

/// What a quota of these names demands that containers do not state. Where the pod as a whole states something, nothing.
pub(super) fn missing<'a>(names: impl Iterator<Item = &'a str>, pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    if ["requests", "limits"].iter().any(|list| spec["resources"][*list].as_object().is_some_and(|l| !l.is_empty())) {
        return None;
    }
    let required: BTreeSet<&str> = names.filter(|name| REQUIRED.contains(name)).collect();
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in items(&spec["containers"]).chain(items(&spec["initContainers"])) {
        for name in &required {
            let (list, bare) = match name.strip_prefix("limits.") {
                Some(bare) => ("limits", bare),
                None => ("requests", name.strip_prefix("requests.").unwrap_or(name)),
            };
            if Quantity::lookup(&container["resources"][list], bare).is_none() {
                by_name.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    let texts = by_name.into_iter().map(|(name, containers)| {
        let containers: Vec<_> = containers.into_iter().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

/// Whether it ends by itself: it has a deadline.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

pub(super) fn is_in(scope: &Scope, pod: &Value) -> bool {
    let spec = &pod["spec"];
    match scope.name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => qos_class(spec) == "BestEffort",
        "NotBestEffort" => qos_class(spec) != "BestEffort",
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            scope.selects(class.as_slice())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let rules = &affinity[*kind];
        let preferred = items(&rules[PREFERRED]).map(|weighted| &weighted["podAffinityTerm"]);
        items(&rules[REQUIRED])
            .chain(preferred)
            .any(|term| items(&term["namespaces"]).next().is_some() || term["namespaceSelector"].is_object())
    })
}
