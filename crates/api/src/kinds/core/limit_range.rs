//! LimitRange

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::kind::{Kind, Strategy, Write};
use crate::kinds::mutate::{child, each, make, set};
use crate::kinds::pod_spec::{defaults::resource_list, resources};
use crate::kinds::prepare_plain;
use crate::kinds::print::created_at;
use crate::quantity::{Format, Quantity};
use crate::status::FieldError;
use crate::validation::{Errors, View, names};

#[cfg(test)]
mod tests;

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "LimitRange", "limitranges", &LimitRange).short("limits").columns(vec![created_at()])
}

#[derive(Debug)]
struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) else { return };
        for limit in each(spec, "limits") {
            for list in LISTS {
                if let Some(list) = child(limit, list) {
                    resource_list(list);
                }
            }
            if limit.get("type").is_none_or(|kind| kind != "Container") {
                continue;
            }
            // A container's limit is by default the most there may be; its request the limit, else the least.
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let Some(amounts) = limit.get(from).and_then(Value::as_object).cloned() else { continue };
                if let Some(target) = make(limit, to) {
                    amounts.into_iter().for_each(|(name, amount)| set(target, &name, amount));
                }
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let mut seen = HashSet::new();
        let spec = root.get("spec");
        for limit in spec.get("limits").items() {
            let kind = limit.get("type");
            type_name(kind, &mut errors);
            if !seen.insert(kind.str().to_string()) {
                errors.push(kind.duplicate());
            }
            self::limit(limit, &mut errors);
        }
        errors
    }
}

fn type_name(kind: View, errors: &mut Errors) {
    let complaints = names::qualified(kind.str());
    if !complaints.is_empty() {
        errors.extend(complaints.iter().map(|complaint| kind.invalid_str(complaint)));
    } else if !kind.str().contains('/') && !matches!(kind.str(), "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.push(kind.invalid("must be a standard limit type or fully qualified"));
    }
}

fn limit(limit: View, errors: &mut Errors) {
    let kind = limit.get("type").str();
    let mut keys = BTreeSet::new();
    for field in LISTS {
        let list = limit.get(field);
        if kind == "Pod" && matches!(field, "default" | "defaultRequest") {
            if !list.is_empty() {
                errors.push(list.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if field == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let has = |list: &'static str| limit.get(list).get("storage").is_set();
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(limit.get("limits").required(detail));
            }
        }
        for (name, amount) in list.entries() {
            if matches!(kind, "Pod" | "Container") {
                resources::container_name(name, &amount.path(), errors);
            } else {
                resources::name(name, &amount.path(), errors);
            }
            keys.insert(name);
        }
    }
    for key in keys {
        amounts(limit, kind, key, errors);
    }
}

/// The amounts of one resource fit each other.
fn amounts(limit: View, kind: &str, key: &str, errors: &mut Errors) {
    let get = |field: &'static str| {
        let defaults = matches!(field, "default" | "defaultRequest");
        if kind == "Pod" && defaults { None } else { Quantity::lookup(limit.get(field).value, key) }
    };
    let [max, min, default, request, ratio] = LISTS.map(get);
    let mut wrong = |field: &'static str, shown: Quantity, detail: String| {
        let path = format!("{}[{key}]", limit.get(field).path());
        errors.push(FieldError::invalid(path, shown.to_string(), &detail));
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some(request) = request {
        if let Some(min) = min.filter(|min| *min > request) {
            let detail = format!("min value {min} is greater than default request value {request}");
            wrong("defaultRequest", request, detail);
        }
        if let Some(max) = max.filter(|max| request > *max) {
            let detail = format!("default request value {request} is greater than max value {max}");
            wrong("defaultRequest", request, detail);
        }
        if let Some(default) = default.filter(|default| request > *default) {
            let detail = format!("default request value {request} is greater than default limit value {default}");
            wrong("defaultRequest", request, detail);
        }
    }
    if let Some(default) = default {
        if let Some(min) = min.filter(|min| *min > default) {
            wrong("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some(max) = max.filter(|max| default > *max) {
            wrong("default", max, format!("default value {default} is greater than max value {max}"));
        }
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::new(1, Format::DecimalSi) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
                wrong("maxLimitRequestRatio", ratio, detail);
            }
        }
    }
    if let (false, Some(default), Some(request)) = (resources::overcommits(key), default, request)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        wrong("defaultRequest", request, detail);
    }
}
