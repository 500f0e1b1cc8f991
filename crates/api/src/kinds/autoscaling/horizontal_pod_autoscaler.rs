//! HorizontalPodAutoscaler: `v2`, which is stored, and `v1`, which is made from it.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Storage, Strategy, Write};
use crate::kinds::mutate::{child, make, set, set_status};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, count, items};
use crate::status::FieldError;
use crate::validation::{View, non_negative};

mod rules;
#[cfg(test)]
mod tests;
mod v1;

/// `v2` first: it is the preferred version.
pub(super) fn kinds() -> Vec<Kind> {
    let resource = "horizontalpodautoscalers";
    let kind = |version, strategy| {
        Kind::namespaced("autoscaling", version, "HorizontalPodAutoscaler", resource, strategy)
            .short("hpa")
            .category_all()
            .with_status()
            .columns(columns())
    };
    let storage = Storage {
        group: "autoscaling",
        version: "v2",
        resource,
        from_stored: v1::from_v2,
        to_stored: |object| {
            v1::to_v2(object);
            V2.default(object);
        },
    };
    vec![kind("v2", &V2), kind("v1", &V1).stored_as(storage)]
}

fn columns() -> Vec<Column> {
    vec![
        Column::string("Reference", "What it scales.", |object, _| {
            let target = &object["spec"]["scaleTargetRef"];
            let part = |field: &str| target[field].as_str().unwrap_or_default();
            format!("{}/{}", part("kind"), part("name")).into()
        }),
        Column::string("Targets", "Its metrics, as they are and as they should be.", |object, _| {
            let object = as_v2(object);
            metrics(&object["spec"]["metrics"], &object["status"]["currentMetrics"]).into()
        }),
        Column::string("MinPods", "Fewest pods.", |object, _| match object["spec"]["minReplicas"].as_i64() {
            Some(n) => n.to_string().into(),
            None => "<unset>".into(),
        }),
        Column::string("MaxPods", "Most pods.", |object, _| count(&object["spec"]["maxReplicas"])),
        Column::string("Replicas", "Pods there are.", |object, _| count(&object["status"]["currentReplicas"])),
        age(),
    ]
}

fn as_v2(object: &Value) -> Cow<'_, Value> {
    if object["apiVersion"] != "autoscaling/v1" {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    v1::to_v2(&mut object);
    Cow::Owned(object)
}

/// `cpu: 10%/80%, 3/5 (avg) + 1 more...`
fn metrics(specs: &Value, statuses: &Value) -> String {
    const SHOWN: usize = 2;
    let texts: Vec<_> = items(specs).enumerate().map(|(i, spec)| metric(spec, &statuses[i])).collect();
    match texts.len() {
        0 => "<none>".into(),
        n @ ..=SHOWN => texts[..n].join(", "),
        n => format!("{} + {} more...", texts[..SHOWN].join(", "), n - SHOWN),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let Some(source) = source_of(spec["type"].as_str().unwrap_or_default()) else { return "<unknown type>".into() };
    let (target, current) = (&spec[source]["target"], &status[source]["current"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let percent = |value: &Value| value.as_i64().map(|n| format!("{n}%"));
    let average = target["averageValue"].is_string();
    let now = |field: &str| text(&current[field]).unwrap_or_else(|| "<unknown>".into());
    match source {
        "resource" | "containerResource" => {
            let name = spec[source]["name"].as_str().unwrap_or_default();
            if average {
                let wanted = text(&target["averageValue"]).unwrap_or_default();
                return format!("{name}: {}/{wanted}", now("averageValue"));
            }
            let now = percent(&current["averageUtilization"]).unwrap_or_else(|| "<unknown>".into());
            let wanted = percent(&target["averageUtilization"]).unwrap_or_else(|| "<auto>".into());
            format!("{name}: {now}/{wanted}")
        }
        "pods" => format!("{}/{}", now("averageValue"), text(&target["averageValue"]).unwrap_or_default()),
        _ if average => {
            format!("{}/{} (avg)", now("averageValue"), text(&target["averageValue"]).unwrap_or_default())
        }
        _ => format!("{}/{}", now("value"), text(&target["value"]).unwrap_or_else(|| "0".into())),
    }
}

/// The field that holds a metric of this type.
fn source_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return None,
    })
}

#[derive(Debug)]
struct V2;

impl Strategy for V2 {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "minReplicas", 1);
        if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.insert("metrics".into(), v1::cpu(80));
        }
        if let Some(behavior) = child(spec, "behavior") {
            let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
            let up = json!([policy("Pods", 4), policy("Percent", 100)]);
            let down = json!([policy("Percent", 100)]);
            for (field, policies, window) in [("scaleUp", up, Some(0)), ("scaleDown", down, None)] {
                let Some(rules) = make(behavior, field) else { continue };
                set(rules, "selectPolicy", "Max");
                set(rules, "policies", policies);
                if let Some(seconds) = window {
                    set(rules, "stabilizationWindowSeconds", seconds);
                }
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        if write == Write::Create {
            set_status(object, json!({"desiredReplicas": 0}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        match write {
            Write::Subresource("status", _) => {
                let status = root.get("status");
                non_negative(status.get("currentReplicas"), &mut errors);
                non_negative(status.get("desiredReplicas"), &mut errors);
            }
            Write::Update(old) => rules::spec(root.get("spec"), old["spec"]["minReplicas"] == 0, &mut errors),
            _ => rules::spec(root.get("spec"), false, &mut errors),
        }
        errors
    }
}

/// Every step is taken in the form of `v2`.
#[derive(Debug)]
struct V1;

/// `step` with the object, and with the stored one that `write` brings, as `v2`.
fn in_v2<T>(object: &mut Value, write: Write<'_>, step: impl FnOnce(&mut Value, Write<'_>) -> T) -> T {
    let upgraded = |old: &Value| {
        let mut old = old.clone();
        v1::to_v2(&mut old);
        old
    };
    v1::to_v2(object);
    let result = match write {
        Write::Create => step(object, Write::Create),
        Write::Update(old) => step(object, Write::Update(&upgraded(old))),
        Write::Subresource(name, old) => step(object, Write::Subresource(name, &upgraded(old))),
    };
    v1::from_v2(object);
    result
}

impl Strategy for V1 {
    fn default(&self, object: &mut Value) {
        in_v2(object, Write::Create, |object, _| V2.default(object));
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        in_v2(object, write, |object, write| V2.prepare(object, write));
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        in_v2(&mut object.clone(), write, |object, write| V2.validate(object, write))
    }
}
