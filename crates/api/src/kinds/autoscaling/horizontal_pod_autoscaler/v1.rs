//! `v1` and `v2` of an autoscaler, each made from the other. What `v1` has no fields for is in annotations, as JSON.

use serde_json::{Map, Value, json};

use super::source_of;
use crate::kinds::mutate::{Object, child, make};
use crate::kinds::print::items;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

const SPEC_PERCENT: &str = "targetCPUUtilizationPercentage";
const STATUS_PERCENT: &str = "currentCPUUtilizationPercentage";

/// The metric that `targetCPUUtilizationPercentage` stands for.
pub(super) fn cpu(percent: i64) -> Value {
    json!([{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }])
}

/// From `v1`. Annotations that cannot be read are dropped.
pub(super) fn to_v2(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.insert("apiVersion".into(), "autoscaling/v2".into());
    let [metrics, current, conditions, behavior] = take_annotations(map);
    if let Some(spec) = make(map, "spec") {
        let percent = spec.remove(SPEC_PERCENT).and_then(|percent| percent.as_i64());
        let mut all: Vec<_> = metrics.iter().flat_map(items).map(|m| metric_to_v2(m, &SPEC)).collect();
        if let Some(Value::Array(one)) = percent.map(cpu) {
            all.extend(one);
        }
        spec.insert("metrics".into(), if all.is_empty() { cpu(80) } else { all.into() });
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior_to_v2(&behavior));
        }
    }
    if let Some(status) = child(map, "status")
        && let Some(percent) = status.remove(STATUS_PERCENT).and_then(|percent| percent.as_i64())
    {
        let current = json!({"averageUtilization": percent});
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
        status.insert("currentMetrics".into(), metric);
    }
    restore_status(map, current, conditions);
}

fn restore_status(map: &mut Object, current: Option<Value>, conditions: Option<Value>) {
    if current.is_none() && conditions.is_none() {
        return;
    }
    let Some(status) = make(map, "status") else { return };
    if let Some(current) = current {
        let current: Vec<_> = items(&current).map(|metric| metric_to_v2(metric, &STATUS)).collect();
        status.insert("currentMetrics".into(), current.into());
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".into(), conditions);
    }
}

/// Takes the annotations away and parses them.
fn take_annotations(map: &mut Object) -> [Option<Value>; 4] {
    let Some(meta) = child(map, "metadata") else { return Default::default() };
    let Some(annotations) = child(meta, "annotations") else { return Default::default() };
    let taken = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].map(|name| {
        let text = annotations.remove(name)?;
        let value: Value = serde_json::from_str(text.as_str()?).ok()?;
        (value.is_array() || (name == BEHAVIOR && value.is_object())).then_some(value)
    });
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    taken
}

/// To `v1`.
pub(super) fn from_v2(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.insert("apiVersion".into(), "autoscaling/v1".into());
    take_annotations(map);
    let mut annotations = Map::new();
    let mut keep = |name: &str, value: Value| {
        annotations.insert(name.into(), value.to_string().into());
    };
    if let Some(spec) = child(map, "spec") {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let mut percent = None;
        let mut others = Vec::new();
        for metric in items(&metrics) {
            match cpu_percent(metric, "target") {
                Some(target) => drop(percent.get_or_insert(target)),
                None => others.push(metric_to_v1(metric, &SPEC)),
            }
        }
        if let Some(percent) = percent {
            spec.insert(SPEC_PERCENT.into(), percent.into());
        }
        if !others.is_empty() {
            keep(METRICS, others.into());
        }
        if let Some(behavior) = spec.remove("behavior").filter(Value::is_object) {
            keep(BEHAVIOR, behavior_to_v1(&behavior));
        }
    }
    if let Some(status) = child(map, "status") {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        if let Some(percent) = items(&metrics).find_map(|metric| cpu_percent(metric, "current")) {
            status.insert(STATUS_PERCENT.into(), percent.into());
        }
        if items(&metrics).len() > 0 {
            let metrics: Vec<_> = items(&metrics).map(|metric| metric_to_v1(metric, &STATUS)).collect();
            keep(CURRENT_METRICS, metrics.into());
        }
        if let Some(conditions) = status.remove("conditions").filter(|list| items(list).len() > 0) {
            keep(CONDITIONS, conditions);
        }
    }
    if !annotations.is_empty()
        && let Some(own) = make(map, "metadata").and_then(|meta| make(meta, "annotations"))
    {
        own.extend(annotations);
    }
}

/// The percentage of a metric that `v1` has a field for.
fn cpu_percent(metric: &Value, part: &str) -> Option<i64> {
    let resource = &metric["resource"];
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    is_cpu.then(|| resource[part]["averageUtilization"].as_i64()).flatten()
}

/// What the parts of a metric are called: in a spec, and in a status.
struct Names {
    /// The map in `v2`.
    part: &'static str,
    value: &'static str,
    average: &'static str,
    utilization: &'static str,
}

const SPEC: Names = Names {
    part: "target",
    value: "targetValue",
    average: "targetAverageValue",
    utilization: "targetAverageUtilization",
};
const STATUS: Names = Names {
    part: "current",
    value: "currentValue",
    average: "currentAverageValue",
    utilization: "currentAverageUtilization",
};

fn put(map: &mut Object, field: &str, value: &Value) {
    if !value.is_null() {
        map.insert(field.into(), value.clone());
    }
}

fn metric_to_v2(metric: &Value, names: &Names) -> Value {
    let kind = metric["type"].as_str().unwrap_or_default();
    let mut out = Map::new();
    put(&mut out, "type", &metric["type"]);
    if let Some(source) = source_of(kind) {
        out.insert(source.into(), source_to_v2(source, &metric[source], names));
    }
    out.into()
}

fn source_to_v2(source: &str, old: &Value, names: &Names) -> Value {
    let mut out = Map::new();
    let mut amounts = Map::new();
    match source {
        "resource" | "containerResource" => {
            put(&mut out, "name", &old["name"]);
            put(&mut out, "container", &old["container"]);
            put(&mut amounts, "averageUtilization", &old[names.utilization]);
            put(&mut amounts, "averageValue", &old[names.average]);
        }
        _ => {
            let selector = if source == "external" { "metricSelector" } else { "selector" };
            let mut metric = Map::new();
            put(&mut metric, "name", &old["metricName"]);
            put(&mut metric, "selector", &old[selector]);
            out.insert("metric".into(), metric.into());
            let average = if source == "object" { "averageValue" } else { names.average };
            put(&mut amounts, "averageValue", &old[average]);
            let unset = old[names.value] == "0" && !old[average].is_null();
            if source != "pods" && !unset {
                put(&mut amounts, "value", &old[names.value]);
            }
            if source == "object" {
                put(&mut out, "describedObject", &old["target"]);
            }
        }
    }
    if names.part == "target" {
        let has = |field: &str| amounts.contains_key(field);
        let kind = match source {
            "resource" | "containerResource" if has("averageUtilization") => "Utilization",
            "object" if !has("averageValue") => "Value",
            "external" if has("value") => "Value",
            _ => "AverageValue",
        };
        amounts.insert("type".into(), kind.into());
    }
    out.insert(names.part.into(), amounts.into());
    out.into()
}

fn metric_to_v1(metric: &Value, names: &Names) -> Value {
    let mut out = Map::new();
    put(&mut out, "type", &metric["type"]);
    if let Some(source) = source_of(metric["type"].as_str().unwrap_or_default()) {
        out.insert(source.into(), source_to_v1(source, &metric[source], names));
    }
    out.into()
}

fn source_to_v1(source: &str, new: &Value, names: &Names) -> Value {
    let mut out = Map::new();
    let amounts = &new[names.part];
    match source {
        "resource" | "containerResource" => {
            put(&mut out, "name", &new["name"]);
            put(&mut out, "container", &new["container"]);
            put(&mut out, names.utilization, &amounts["averageUtilization"]);
            put(&mut out, names.average, &amounts["averageValue"]);
        }
        _ => {
            let selector = if source == "external" { "metricSelector" } else { "selector" };
            put(&mut out, "metricName", &new["metric"]["name"]);
            put(&mut out, selector, &new["metric"]["selector"]);
            let average = if source == "object" { "averageValue" } else { names.average };
            put(&mut out, average, &amounts["averageValue"]);
            put(&mut out, names.value, &amounts["value"]);
            if source == "object" {
                put(&mut out, "target", &new["describedObject"]);
                // It has no way to say that there is none.
                out.entry(names.value).or_insert_with(|| "0".into());
            }
        }
    }
    out.into()
}

/// Upstream writes its internal form into the annotation: fields by their Go names, all of them.
fn behavior_to_v1(behavior: &Value) -> Value {
    let rules = |field: &str| {
        let rules = &behavior[field];
        if !rules.is_object() {
            return Value::Null;
        }
        let policies = items(&rules["policies"]);
        let policies = policies
            .map(|p| json!({"Type": p["type"], "Value": p["value"], "PeriodSeconds": p["periodSeconds"]}))
            .collect::<Vec<_>>();
        json!({
            "StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
            "SelectPolicy": rules["selectPolicy"],
            "Policies": if rules["policies"].is_array() { policies.into() } else { Value::Null },
            "Tolerance": rules["tolerance"],
        })
    };
    json!({"ScaleUp": rules("scaleUp"), "ScaleDown": rules("scaleDown")})
}

/// Go reads field names in any case.
fn behavior_to_v2(behavior: &Value) -> Value {
    const FIELDS: [&str; 9] = [
        "scaleUp",
        "scaleDown",
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "tolerance",
        "type",
        "value",
        "periodSeconds",
    ];
    match behavior {
        Value::Object(map) => {
            let known = |key: &str| FIELDS.iter().find(|field| field.eq_ignore_ascii_case(key));
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.filter_map(|(key, value)| Some(((*known(key)?).to_owned(), behavior_to_v2(value))));
            Value::Object(fields.collect())
        }
        Value::Array(list) => list.iter().map(behavior_to_v2).collect(),
        other => other.clone(),
    }
}
