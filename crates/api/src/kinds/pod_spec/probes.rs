//! Probes and life-cycle hooks.

use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, non_negative, one_of, port, positive, required};

/// `livenessProbe`, `readinessProbe` or `startupProbe`, as `field` says.
pub(super) fn validate(probe: View, field: &str, errors: &mut Errors) {
    handler(probe, None, errors);
    for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe.get(number), errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    positive(grace, errors);
    if field == "readinessProbe" {
        if grace.is_set() {
            errors.push(grace.invalid("must not be set for readinessProbes"));
        }
    } else if probe.get("successThreshold").int().is_some_and(|n| n != 1) {
        errors.push(probe.get("successThreshold").invalid("must be 1"));
    }
}

/// The one action of a probe, or of a hook (which may sleep up to `grace_seconds`).
pub(super) fn handler(view: View, grace_seconds: Option<i64>, errors: &mut Errors) {
    let kinds: &[&str] = match grace_seconds {
        Some(_) => &["exec", "httpGet", "tcpSocket", "sleep"],
        None => &["exec", "httpGet", "tcpSocket", "grpc"],
    };
    let mut count = 0;
    for kind in kinds {
        let action = view.get(kind);
        if !action.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" => drop(required(action.get("command"), errors)),
            "httpGet" => http_get(action, errors),
            "tcpSocket" => port_or_name(action.get("port"), errors),
            "grpc" => port(action.get("port"), errors),
            _ => sleep(action, grace_seconds.unwrap_or(0), errors),
        }
    }
    if count == 0 {
        errors.push(view.required("must specify a handler type"));
    }
}

fn http_get(action: View, errors: &mut Errors) {
    required(action.get("path"), errors);
    port_or_name(action.get("port"), errors);
    one_of(action.get("scheme"), &["HTTP", "HTTPS"], errors);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").str();
        let complaints = names::http_header(name);
        errors.extend(complaints.iter().map(|c| FieldError::invalid(headers.path(), name, c)));
    }
}

/// A port number, or the name of one.
pub(crate) fn port_or_name(view: View, errors: &mut Errors) {
    if view.value.is_string() { checked(view, names::port_name, errors) } else { port(view, errors) }
}

fn sleep(action: View, grace_seconds: i64, errors: &mut Errors) {
    let n = action.get("seconds").int().unwrap_or(0);
    if n < 0 || n > grace_seconds {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        errors.push(FieldError::invalid(action.path(), n, &detail));
    }
}
