//! Rules of an autoscaler's spec, in its `v2` form.

use crate::kinds::autoscaling::horizontal_pod_autoscaler::source_of;
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of, required};

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// In the order in which upstream looks: only the first is looked into.
const SOURCES: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];
const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;

/// A whole spec. `zero` is allowed as `minReplicas` where it was stored before.
pub(super) fn spec(spec: View, zero: bool, errors: &mut Errors) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    let least = i64::from(!zero);
    if min.int().is_some_and(|n| n < least) {
        errors.push(min.invalid(&format!("must be greater than or equal to {least}")));
    }
    let most = max.int().unwrap_or(0);
    if most < 1 {
        errors.push(FieldError::invalid(max.path(), most, "must be greater than 0"));
    }
    if min.int().is_some_and(|min| most < min) {
        errors.push(FieldError::invalid(max.path(), most, "must be greater than or equal to `minReplicas`"));
    }
    reference(spec.get("scaleTargetRef"), errors);
    let metrics = spec.get("metrics");
    let mut outside = false;
    for metric in metrics.items() {
        self::metric(metric, errors);
        outside |= matches!(metric.get("type").str(), "Object" | "External");
    }
    if min.int() == Some(0) && !outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(metrics.forbidden(detail));
    }
    let behavior = spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.get(direction);
        if rules.is_set() {
            scaling(rules, errors);
        }
    }
}

/// Something to scale or to measure.
fn reference(reference: View, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let part = reference.get(field);
        if required(part, errors) {
            checked(part, names::path_segment, errors);
        }
    }
    let version = reference.get("apiVersion");
    let parts = version.str().split('/').count();
    if parts > 2 {
        let detail = format!("unexpected GroupVersion string: {}", version.str());
        errors.push(version.invalid(&detail));
    }
}

fn metric(metric: View, errors: &mut Errors) {
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    one_of(kind, &TYPES, errors);
    let mut present = SOURCES.iter().map(|source| metric.get(source)).filter(View::is_set);
    if let Some(first) = present.next() {
        source(first, errors);
    }
    let expected = source_of(kind.str());
    match expected {
        Some(expected) if !metric.get(expected).is_set() => {
            let detail = "must populate information for the given metric source";
            errors.push(metric.get(expected).required(detail));
        }
        Some(_) => {}
        None => one_of(kind, &TYPES, errors),
    }
    let present = || SOURCES.iter().map(|source| (*source, metric.get(source))).filter(|(_, view)| view.is_set());
    if present().count() != 1 {
        for (_, view) in present().filter(|(source, _)| Some(*source) != expected) {
            errors.push(view.forbidden("must populate the given metric source only"));
        }
    }
}

fn source(source: View, errors: &mut Errors) {
    let path = source.path();
    let kind = path.rsplit('.').next().unwrap_or_default();
    let target = source.get("target");
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match kind {
        "object" => reference(source.get("describedObject"), errors),
        "containerResource" | "resource" => {
            let name = source.get("name");
            if name.is_empty() {
                errors.push(name.required("must specify a resource name"));
            }
            let container = source.get("container");
            if kind == "containerResource" && container.is_empty() {
                errors.push(container.required("must specify a container"));
            }
        }
        _ => {}
    }
    if matches!(kind, "object" | "external" | "pods") {
        identifier(source.get("metric"), errors);
    }
    metric_target(target, errors);
    match kind {
        "object" if !value.is_set() && !average.is_set() => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        "external" if !value.is_set() && !average.is_set() => {
            errors.push(average.required("must set either a target value for metric or a per-pod target"));
        }
        "external" if value.is_set() && average.is_set() => {
            errors.push(value.forbidden("may not set both a target value for metric and a per-pod target"));
        }
        "pods" if !average.is_set() => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        "resource" | "containerResource" if !utilization.is_set() && !average.is_set() => {
            errors.push(utilization.required("must set either a target raw value or a target utilization"));
        }
        "resource" | "containerResource" if utilization.is_set() && average.is_set() => {
            errors.push(average.forbidden("may not set both a target raw value and a target utilization"));
        }
        _ => {}
    }
}

fn identifier(metric: View, errors: &mut Errors) {
    let name = metric.get("name");
    if name.is_empty() {
        errors.push(name.required("must specify a metric name"));
    } else {
        checked(name, names::path_segment, errors);
    }
    labels::validate_selector(metric.get("selector"), errors);
}

fn metric_target(target: View, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        errors.push(kind.invalid_str("must be either Utilization, Value, or AverageValue"));
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.is_set() && Quantity::from_value(amount.value).is_ok_and(|amount| amount <= Quantity::ZERO) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}

fn scaling(rules: View, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int().is_some_and(|n| n < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|n| n > MAX_WINDOW_SECONDS) {
        errors.push(window.invalid(&format!("must be less than or equal to {MAX_WINDOW_SECONDS}")));
    }
    let select = rules.get("selectPolicy");
    if select.is_set() {
        one_of(select, &["Disabled", "Max", "Min"], errors);
    }
    let policies = rules.get("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        one_of(policy.get("type"), &["Percent", "Pods"], errors);
        for field in ["value", "periodSeconds"] {
            let number = policy.get(field).int().unwrap_or(0);
            if number <= 0 {
                let path = policy.get(field).path();
                errors.push(FieldError::invalid(path, number, "must be greater than zero"));
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|n| n > MAX_PERIOD_SECONDS) {
            errors.push(period.invalid(&format!("must be less than or equal to {MAX_PERIOD_SECONDS}")));
        }
    }
    let tolerance = rules.get("tolerance");
    if tolerance.is_set() && Quantity::from_value(tolerance.value).is_ok_and(Quantity::is_negative) {
        errors.push(tolerance.invalid("must be greater or equal to 0"));
    }
}
