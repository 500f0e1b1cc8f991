//! Resource names and amounts: requests and limits of containers and pods.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use crate::kinds::print::items;
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, names};

/// `resources` of a container. `claims` are the names of the pod's resource claims.
pub(crate) fn requirements(resources: View, claims: &HashSet<&str>, errors: &mut Errors) {
    checked(resources, container_name, errors);
    self::claims(resources.get("claims"), claims, errors);
}

/// `resources` of a pod: only cpu, memory and huge pages.
pub(crate) fn pod_level(spec: View, errors: &mut Errors) {
    let resources = spec.get("resources");
    if !resources.is_set() {
        return;
    }
    let claims = resources.get("claims");
    if claims.is_set() {
        errors.push(claims.forbidden("claims cannot be set for Resources at pod-level"));
    }
    let supported = |resource: &str, path: &str, errors: &mut Errors| {
        if name(resource, path, errors)
            && resource != "cpu"
            && resource != "memory"
            && !resource.starts_with("hugepages-")
        {
            errors.push(FieldError::not_supported(path, resource, &["cpu", "hugepages-", "memory"]));
        }
    };
    checked(resources, supported, errors);
    let requests = resources.get("requests");
    for (name, sum) in pod_requests(spec.value) {
        let wanted = Quantity::lookup(requests.value, name).unwrap_or_default();
        if sum > wanted {
            let path = format!("{}[{name}]", requests.path());
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(path, wanted.to_string(), &detail));
        }
    }
    let limits = resources.get("limits");
    for (index, container) in spec.get("containers").items().enumerate() {
        let own = container.get("resources");
        for (name, amount) in own.get("limits").entries() {
            let limit = Quantity::from_value(amount.value);
            if let (Ok(limit), Some(most)) = (limit, Quantity::lookup(limits.value, name))
                && limit > most
            {
                let path = format!("{}.containers[{index}][{name}].limits", resources.path());
                let detail = format!("must be less than or equal to pod limits of {most}");
                errors.push(FieldError::invalid(path, limit.to_string(), &detail));
            }
        }
    }
}

/// What the containers of a pod request, as the scheduler counts it: all containers and sidecars together, or the init
/// container that needs most beside the sidecars before it.
pub(super) fn pod_requests(spec: &Value) -> BTreeMap<&str, Quantity> {
    let containers = || items(&spec["containers"]).chain(items(&spec["initContainers"]));
    let requests = containers().filter_map(|container| container["resources"]["requests"].as_object());
    let names: BTreeSet<&str> = requests.flat_map(|requests| requests.keys().map(String::as_str)).collect();
    names.into_iter().map(|name| (name, pod_request(spec, name))).collect()
}

fn pod_request(spec: &Value, name: &str) -> Quantity {
    together(spec, |container| Quantity::lookup(&container["resources"]["requests"], name).unwrap_or_default())
}

/// What the containers of a pod come to: all containers and sidecars together, or the init container that needs most beside
/// the sidecars before it.
pub(crate) fn together(spec: &Value, amount: impl Fn(&Value) -> Quantity) -> Quantity {
    let mut sum = items(&spec["containers"]).map(&amount).fold(Quantity::ZERO, |sum, one| sum + one);
    let (mut sidecars, mut most) = (Quantity::ZERO, Quantity::ZERO);
    for container in items(&spec["initContainers"]) {
        if container["restartPolicy"] == "Always" {
            sidecars += amount(container);
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars + amount(container));
        }
    }
    sum += sidecars;
    sum.max(most)
}

/// Names and amounts of limits and requests; requests are within their limits.
fn checked(resources: View, name_rule: impl Fn(&str, &str, &mut Errors), errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut huge_pages = false;
    for (list, are_requests) in [(limits, false), (requests, true)] {
        for (name, amount) in list.entries() {
            name_rule(name, &amount.path(), errors);
            self::amount(name, amount, errors);
            if let Some(size) = name.strip_prefix("hugepages-") {
                huge_pages = true;
                multiple_of(name, size, amount, errors);
            }
            if are_requests {
                against_limit(name, limits, requests, amount, errors);
            }
        }
    }
    let has = |name| limits.get(name).is_set() || requests.get(name).is_set();
    if huge_pages && !has("cpu") && !has("memory") {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

fn multiple_of(name: &str, size: &str, amount: View, errors: &mut Errors) {
    let (Ok(quantity), Ok(size)) = (Quantity::from_value(amount.value), size.parse::<Quantity>()) else { return };
    let pages = size.is_integer() && size.value() > 0 && quantity.value() % size.value() == 0;
    if !pages {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(amount.path(), quantity.to_string(), &detail));
    }
}

/// Claims of a pod that an error lists; of more it lists none.
const MAX_SHOWN_CLAIMS: usize = 100;

/// `claims`: each one of the pod's, once.
fn claims(claims: View, known: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    // What stands before the slash in each of them.
    let mut names = HashSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name"), claim.get("request").str());
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        let shown = if request.is_empty() { name.str().to_owned() } else { format!("{}/{request}", name.str()) };
        let clash = if request.is_empty() {
            names.contains(name.str())
        } else {
            seen.contains(name.str()) || seen.contains(&shown)
        };
        if clash {
            errors.push(FieldError::duplicate(claim.path(), shown));
        } else {
            names.insert(shown.split('/').next().unwrap_or_default().to_owned());
            seen.insert(shown);
        }
        if !known.contains(name.str()) {
            let mut error = name.not_found();
            error.message.push_str(": must be one of the names in pod.spec.resourceClaims");
            let mut sorted: Vec<&str> = known.iter().copied().take(MAX_SHOWN_CLAIMS + 1).collect();
            sorted.sort_unstable();
            if sorted.is_empty() {
                error.message.push_str(" which is empty");
            } else if sorted.len() <= MAX_SHOWN_CLAIMS {
                error.message.push_str(&format!(": {}", sorted.join(", ")));
            }
            errors.push(error);
        }
    }
}

/// A plain resource list.
pub(crate) fn list(list: View, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        container_name(name, &amount.path(), errors);
        self::amount(name, amount, errors);
    }
}

fn against_limit(name: &str, limits: View, requests: View, amount: View, errors: &mut Errors) {
    let Ok(request) = Quantity::from_value(amount.value) else { return };
    let overcommit = overcommits(name);
    match Quantity::lookup(limits.value, name) {
        Some(limit) if !overcommit && request != limit => {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(requests.path(), request.to_string(), &detail));
        }
        Some(limit) if overcommit && request > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(requests.path(), request.to_string(), &detail));
        }
        None if !overcommit => {
            errors.push(limits.required("Limit must be set for non overcommitable resources"));
        }
        _ => {}
    }
}

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Objects that a quota counts.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether more of it may be promised than there is.
pub(crate) fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// A resource that is not Kubernetes' own: `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified(&format!("requests.{name}")).is_empty()
}

/// Whether amounts of it are whole numbers.
pub(crate) fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

fn is_quota_compute(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    COMPUTE.contains(&bare) || name == "requests.storage"
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Whether Kubernetes itself gives the name a meaning in a quota.
pub(crate) fn is_standard_quota(name: &str) -> bool {
    COUNTED.contains(&name) || is_quota_compute(name) || is_huge_pages(name)
}

/// The name of a resource: one of Kubernetes' own, or qualified. Whether it is well formed.
pub(crate) fn name(name: &str, path: &str, errors: &mut Errors) -> bool {
    let complaints = names::qualified(name);
    errors.extend(complaints.iter().map(|complaint| FieldError::invalid(path, name, complaint)));
    if !complaints.is_empty() {
        return false;
    }
    let standard = name.contains('/') || name == "storage" || is_standard_quota(name);
    if !standard {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
    standard
}

/// The name of a resource that containers can have.
pub(crate) fn container_name(resource: &str, path: &str, errors: &mut Errors) {
    name(resource, path, errors);
    if !resource.contains('/') {
        if !COMPUTE.contains(&resource) && !resource.starts_with("hugepages-") {
            errors.push(FieldError::invalid(path, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.push(FieldError::invalid(path, resource, "doesn't follow extended resource name standard"));
    }
}

/// The name of a resource that a quota can limit.
pub(crate) fn quota_name(resource: &str, path: &str, errors: &mut Errors) {
    name(resource, path, errors);
    if !resource.contains('/') && !is_standard_quota(resource) {
        errors.push(FieldError::invalid(path, resource, "must be a standard resource for quota"));
    }
}

/// An amount that fits what the name counts.
fn amount(name: &str, amount: View, errors: &mut Errors) {
    if let Some(quantity) = quantity(amount, errors)
        && is_counted(name)
        && !quantity.is_integer()
    {
        errors.push(FieldError::invalid(amount.path(), quantity.to_string(), "must be an integer"));
    }
}

/// A quantity that is not negative.
pub(crate) fn quantity(view: View, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::from_value(view.value) {
        Ok(amount) if amount.is_negative() => {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(view.path(), amount.to_string(), detail));
            None
        }
        Ok(amount) => Some(amount),
        Err(error) => {
            errors.push(view.invalid(&error.to_string()));
            None
        }
    }
}
