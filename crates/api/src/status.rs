//! Errors as Kubernetes says them: the `Status` object with its code, reason and causes. This is the only place that
//! knows which reason goes with which code.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A failed request. `code` is the HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (or, for validation errors, the kind).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
    /// `metadata.continue` of the whole `Status`: where a list may go on.
    #[serde(skip)]
    pub continue_token: String,
    /// `reason` of the whole `Status`, where somebody else made it up: an admission webhook, a policy.
    #[serde(skip)]
    pub own_reason: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// One reason of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A rule that one field breaks, with upstream's cause types and wording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueNotSupported`, `FieldValueDuplicate`,
    /// `FieldValueTooLong`, `FieldValueTooMany`, `FieldValueTypeInvalid`, `FieldValueNotFound`, `InternalError`
    pub reason: &'static str,
    /// `spec.containers[0].name`
    pub field: String,
    /// Everything after `field: ` in the message: `Required value: must name it`.
    pub message: String,
}

impl FieldError {
    /// A field that must be there is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self {
            reason: "FieldValueRequired",
            field: field.into(),
            message: with_detail("Required value".into(), detail),
        }
    }

    /// A value that is wrong in itself.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", show(&value.into())), detail);
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// `what`, one of `Invalid value` and `Duplicate value`, of a struct that upstream shows by its Go field names.
    pub fn of_struct(reason: &'static str, field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let what = if reason == "FieldValueDuplicate" { "Duplicate" } else { "Invalid" };
        Self { reason, field: field.into(), message: with_detail(format!("{what} value: {shown}"), detail) }
    }

    /// A value that this write may not set.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: with_detail("Forbidden".into(), detail) }
    }

    /// A value outside an enumeration.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", show(&value.into()), supported.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// The second of two equal values in a set.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Duplicate value: {}", show(&value.into()));
        Self { reason: "FieldValueDuplicate", field: field.into(), message }
    }

    /// A string or total size over its limit.
    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        let message = format!("Too long: may not be more than {max_bytes} bytes");
        Self { reason: "FieldValueTooLong", field: field.into(), message }
    }

    /// A list with more items than allowed.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {items}");
        Self { reason: "FieldValueTooMany", field: field.into(), message }
    }

    /// A value that refers to something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Not found: {}", show(&value.into()));
        Self { reason: "FieldValueNotFound", field: field.into(), message }
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

fn show(value: &Value) -> String {
    value.to_string()
}

/// `pods "a"`, `deployments.apps "a"`
fn subject(group: &str, resource: &str, name: &str) -> String {
    if group.is_empty() { format!("{resource} {name:?}") } else { format!("{resource}.{group} {name:?}") }
}

impl Status {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(code: u16, reason: &'static str, message: String, group: &str, kind: &str, name: &str) -> Self {
        let details = Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} not found", subject(group, resource, name));
        Self::about(404, "NotFound", message, group, resource, name)
    }

    /// 404 for a path that nothing serves.
    pub fn unknown_path() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(404, "NotFound", "the server could not find the requested resource")
        }
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} already exists", subject(group, resource, name));
        Self::about(409, "AlreadyExists", message, group, resource, name)
    }

    /// 409: somebody else wrote first, or a precondition failed.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = subject(group, resource, name);
        let message = format!("Operation cannot be fulfilled on {subject}: {why}");
        Self::about(409, "Conflict", message, group, resource, name)
    }

    /// 422 with one cause per broken rule.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for error in errors {
            let line = format!("{}: {}", error.field, error.message);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let list = match lines.as_slice() {
            [one] => one.clone(),
            _ => format!("[{}]", lines.join(", ")),
        };
        let message = format!("{} is invalid: {list}", subject(group, kind, name));
        let mut status = Self::about(422, "Invalid", message, group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = errors
                .iter()
                .map(|e| Cause { reason: e.reason.into(), message: e.message.clone(), field: e.field.clone() })
                .collect();
        }
        status
    }

    /// 403 by the authorizer: `pods "a" is forbidden: User … cannot …`
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let head = match (resource, name) {
            ("", _) => "forbidden".into(),
            (_, "") if group.is_empty() => format!("{resource} is forbidden"),
            (_, "") => format!("{resource}.{group} is forbidden"),
            _ => format!("{} is forbidden", subject(group, resource, name)),
        };
        Self::about(403, "Forbidden", format!("{head}: {why}"), group, resource, name)
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405
    pub fn method_not_allowed(group: &str, resource: &str, method: &str) -> Self {
        let message = format!(
            "{method} is not supported on resources of kind \"{resource}{}{group}\"",
            if group.is_empty() { "" } else { "." }
        );
        Self::about(405, "MethodNotAllowed", message, group, resource, "")
    }

    /// 410 for a page of a list whose revision is gone; `token` resumes it at the newest revision.
    pub fn expired_page(message: impl Into<String>, token: String) -> Self {
        let details = Details { continue_token: token, ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::expired(message) }
    }

    /// 410: the revision is compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(429, "TooManyRequests", message) }
    }

    /// 500
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        let cause =
            Cause { message: message.trim_start_matches("Internal error occurred: ").into(), ..Cause::default() };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(500, "InternalError", message) }
    }

    /// 503
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504; `what` did not happen in time.
    pub fn timeout(what: impl std::fmt::Display) -> Self {
        Self { details: Some(Box::default()), ..Self::new(504, "Timeout", format!("Timeout: {what}")) }
    }

    /// The wire form: a `v1 Status`.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            if !details.own_reason.is_empty() {
                value["reason"] = details.own_reason.as_str().into();
            }
            if details.continue_token.is_empty() {
                value["details"] = serde_json::to_value(details).unwrap_or_default();
            } else {
                value["metadata"]["continue"] = details.continue_token.as_str().into();
            }
        }
        value
    }
}
