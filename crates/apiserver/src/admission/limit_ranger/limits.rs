//! One LimitRange: what it fills in, and what it has against an object.

use keelson_api::quantity::Quantity;
use keelson_api::quota::pods::spec_amounts;
use keelson_api::quota::{Amounts, amounts};
use serde_json::{Map, Value, json};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// A LimitRange.
#[derive(Debug)]
pub(in crate::admission) struct Limits(Vec<Limit>);

/// An item of it.
#[derive(Debug)]
struct Limit {
    /// `Pod`, `Container`, `PersistentVolumeClaim`
    kind: String,
    min: Amounts,
    max: Amounts,
    default: Amounts,
    default_request: Amounts,
    max_ratio: Amounts,
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

impl Limits {
    pub(in crate::admission) fn of(object: &Value) -> Self {
        let limit = |limit: &Value| Limit {
            kind: limit["type"].as_str().unwrap_or_default().to_owned(),
            min: amounts(&limit["min"]),
            max: amounts(&limit["max"]),
            default: amounts(&limit["default"]),
            default_request: amounts(&limit["defaultRequest"]),
            max_ratio: amounts(&limit["maxLimitRequestRatio"]),
        };
        Self(items(&object["spec"]["limits"]).map(limit).collect())
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Limit> {
        self.0.iter().filter(move |limit| limit.kind == kind)
    }

    /// Gives the containers of a pod the requests and limits that they do not state, and says so in an annotation.
    pub(super) fn fill_in(&self, pod: &mut Value) {
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        for limit in self.of_kind("Container") {
            requests.extend(limit.default_request.clone());
            limits.extend(limit.default.clone());
        }
        let mut told = Vec::new();
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)?.as_array_mut());
            for container in containers.into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                let set = [("limits", &limits), ("requests", &requests)]
                    .map(|(list, defaults)| fill(container, list, defaults));
                let [limits, requests] = set;
                for (names, which) in [(requests, "request"), (limits, "limit")] {
                    if !names.is_empty() {
                        told.push(format!("{} {which} for {what} {name}", names.join(", ")));
                    }
                }
            }
        }
        if told.is_empty() {
            return;
        }
        let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut);
        let annotations = metadata.map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.insert(ANNOTATION.into(), format!("LimitRanger plugin set: {}", told.join("; ")).into());
        }
    }

    /// What is wrong with a pod.
    pub(super) fn judge_pod(&self, pod: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let spec = &pod["spec"];
        for limit in &self.0 {
            match limit.kind.as_str() {
                "Container" => {
                    for container in items(&spec["containers"]).chain(items(&spec["initContainers"])) {
                        let resources = &container["resources"];
                        limit.judge(&amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut errors);
                    }
                }
                "Pod" => {
                    let [requests, limits] = ["requests", "limits"].map(|list| spec_amounts(spec, list));
                    limit.judge(&requests, &limits, &mut errors);
                }
                _ => {}
            }
        }
        errors
    }

    /// What is wrong with a volume claim.
    pub(super) fn judge_claim(&self, claim: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let requests = amounts(&claim["spec"]["resources"]["requests"]);
        for limit in self.of_kind("PersistentVolumeClaim") {
            limit.at_least(&requests, &Amounts::new(), &mut errors);
            for (name, max) in &limit.max {
                // The size of a claim is what it requests, there is no other limit to it.
                match requests.get(name) {
                    None => errors
                        .push(format!("maximum {name} usage per {} is {max}.  No request is specified", limit.kind)),
                    Some(request) if request > max => {
                        errors.push(format!(
                            "maximum {name} usage per {} is {max}, but request is {request}",
                            limit.kind
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        errors
    }
}

/// Adds what `list` lacks of the defaults; the names of what was added.
fn fill(container: &mut Value, list: &str, defaults: &Amounts) -> Vec<String> {
    let have = |container: &Value, name: &str| !container["resources"][list][name].is_null();
    let missing: Vec<(&String, &Quantity)> = defaults.iter().filter(|(name, _)| !have(container, name)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let entry = |map: &mut Map<String, Value>, key: &str| {
        let value = map.entry(key).or_insert_with(|| json!({}));
        if value.is_null() {
            *value = json!({});
        }
    };
    let Some(map) = container.as_object_mut() else { return Vec::new() };
    entry(map, "resources");
    let Some(resources) = map.get_mut("resources").and_then(Value::as_object_mut) else { return Vec::new() };
    entry(resources, list);
    let Some(amounts) = resources.get_mut(list).and_then(Value::as_object_mut) else { return Vec::new() };
    let set = missing.into_iter().map(|(name, amount)| {
        amounts.insert(name.clone(), amount.to_string().into());
        name.clone()
    });
    set.collect()
}

impl Limit {
    fn judge(&self, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
        self.at_least(requests, limits, errors);
        self.at_most(requests, limits, errors);
        self.in_ratio(requests, limits, errors);
    }

    fn at_least(&self, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
        for (name, min) in &self.min {
            let head = format!("minimum {name} usage per {} is {min}", self.kind);
            match (requests.get(name), limits.get(name)) {
                (None, _) => errors.push(format!("{head}.  No request is specified")),
                (Some(request), _) if request < min => errors.push(format!("{head}, but request is {request}")),
                (_, Some(limit)) if limit < min => errors.push(format!("{head}, but limit is {limit}")),
                _ => {}
            }
        }
    }

    fn at_most(&self, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
        for (name, max) in &self.max {
            let head = format!("maximum {name} usage per {} is {max}", self.kind);
            match (limits.get(name), requests.get(name)) {
                (None, _) => errors.push(format!("{head}.  No limit is specified")),
                (Some(limit), _) if limit > max => errors.push(format!("{head}, but limit is {limit}")),
                (_, Some(request)) if request > max => errors.push(format!("{head}, but request is {request}")),
                _ => {}
            }
        }
    }

    fn in_ratio(&self, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
        for (name, max) in &self.max_ratio {
            let head = format!("{name} max limit to request ratio per {} is {max}", self.kind);
            let set = |list: &Amounts| list.get(name).copied().filter(|amount| !amount.is_zero());
            let Some(request) = set(requests) else {
                errors.push(format!("{head}, but no request is specified or request is 0"));
                continue;
            };
            let Some(limit) = set(limits) else {
                errors.push(format!("{head}, but no limit is specified or limit is 0"));
                continue;
            };
            let ratio = limit.as_f64() / request.as_f64();
            if ratio > max.as_f64() {
                errors.push(format!("{head}, but provided ratio is {ratio:.6}"));
            }
        }
    }
}
