//! Options of writes, from the query string or a `DeleteOptions` body.

use std::sync::Arc;

use keelson_api::apply;
use keelson_api::kind::Propagation;
use keelson_api::status::{FieldError, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::UserInfo;
use crate::admission::{Asked, Judges, Notes, Operation};
use crate::dispatch::Call;
use crate::http::query::Query;

/// `fieldValidation`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How a write is to be done, and by whom.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) user: Arc<UserInfo>,
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Who writes, as managed fields name it.
    pub(crate) manager: String,
    /// Whether an apply takes fields over from other managers.
    pub(crate) force: bool,
    /// Whether managed fields are to follow the write. If not, the new object brings them.
    pub(crate) tracked: bool,
    /// What the client said itself, for those who judge the write.
    pub(crate) said: Said,
    pub(crate) judges: Judges,
    pub(crate) notes: Arc<Notes>,
}

/// Which options the client named.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub(crate) manager: bool,
    pub(crate) field_validation: bool,
}

/// Whether the media type is that of an applied configuration.
pub(crate) fn is_apply(media_type: &str) -> bool {
    matches!(media_type, APPLY_YAML | APPLY_CBOR)
}

pub(crate) const APPLY_YAML: &str = "application/apply-patch+yaml";
pub(crate) const APPLY_CBOR: &str = "application/apply-patch+cbor";

impl WriteOptions {
    /// A write of the server itself.
    pub(crate) fn internal() -> Self {
        let user = UserInfo::new("system:apiserver", [crate::user::MASTERS]);
        Self {
            user: Arc::new(user),
            dry_run: false,
            field_validation: FieldValidation::Ignore,
            manager: "kube-apiserver".into(),
            force: false,
            tracked: true,
            said: Said::default(),
            judges: Judges::Plugins,
            notes: Arc::default(),
        }
    }

    /// Of a request; 422 for what upstream does not know. `options_kind` is `CreateOptions`, `UpdateOptions` or
    /// `PatchOptions`.
    pub(crate) fn of(call: &Call, options_kind: &str) -> Result<Self, Status> {
        let (query, mut errors) = (&call.query, Vec::new());
        if options_kind == "PatchOptions" {
            let forced = query.text("force").is_some();
            match is_apply(&call.media_type()) {
                true if query.text("fieldManager").is_none() => {
                    errors.push(FieldError::required("fieldManager", "is required for apply patch"));
                }
                false if forced => {
                    errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
                }
                _ => {}
            }
        }
        let mut options = Self::parse(query, &call.user, errors, options_kind)?;
        options.notes = call.notes.clone();
        if options.manager.is_empty() {
            options.manager = apply::manager_name(call.header("user-agent").unwrap_or_default());
        }
        Ok(options)
    }

    fn parse(
        query: &Query,
        user: &Arc<UserInfo>,
        mut errors: Vec<FieldError>,
        options_kind: &str,
    ) -> Result<Self, Status> {
        let manager = query.get("fieldManager").unwrap_or_default().to_owned();
        errors.extend(apply::validate_field_manager(&manager));
        let dry_run: Vec<String> = query.all("dryRun").filter(|v| !v.is_empty()).map(str::to_owned).collect();
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", options_kind, "", &errors));
        }
        let force = query.flag("force");
        let dry_run = !dry_run.is_empty();
        let said = Said {
            manager: !manager.is_empty(),
            field_validation: query.text("fieldValidation").is_some_and(|text| !text.is_empty()),
        };
        let (user, judges, notes) = (user.clone(), Judges::All, Arc::default());
        Ok(Self { user, dry_run, field_validation, manager, force, tracked: true, said, judges, notes })
    }

    /// Who asks.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { user: &self.user, judges: self.judges, notes: &self.notes }
    }

    /// `CreateOptions` or `UpdateOptions`, as those who judge see them.
    pub(crate) fn to_value(&self, operation: Operation) -> Value {
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if self.said.manager {
            value["fieldManager"] = self.manager.as_str().into();
        }
        if self.said.field_validation {
            value["fieldValidation"] = format!("{:?}", self.field_validation).into();
        }
        value
    }
}

/// `All` is the only value there is. Upstream shows all that were sent.
fn check_dry_run(values: &[String], errors: &mut Vec<FieldError>) {
    if values.iter().any(|value| value != "All") {
        errors.push(FieldError::not_supported("dryRun", Value::from(values), &["All"]));
    }
}

/// `meta.k8s.io/v1 DeleteOptions`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) orphan_dependents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) dry_run: Vec<String>,
}

/// What must still hold when the delete happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// From a request's body (a JSON object, or nothing) and query; the query counts only without a body.
    pub(crate) fn from_request(body: Option<Value>, query: &Query) -> Result<Self, Status> {
        let options = match body {
            Some(body) => serde_json::from_value(body)
                .map_err(|e| Status::bad_request(format!("couldn't get version/kind; json parse error: {e}")))?,
            None => Self {
                grace_period_seconds: query.number("gracePeriodSeconds")?,
                preconditions: None,
                orphan_dependents: query.optional_flag("orphanDependents"),
                propagation_policy: query.text("propagationPolicy").map(str::to_owned),
                dry_run: query.all("dryRun").filter(|v| !v.is_empty()).map(str::to_owned).collect(),
            },
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Status> {
        let mut errors = Vec::new();
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", self.propagation_policy.clone(), detail));
        }
        let policies = ["Background", "Foreground", "Orphan"];
        if let Some(policy) = self.propagation_policy.as_deref().filter(|p| !policies.contains(p)) {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                policy,
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        check_dry_run(&self.dry_run, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors)) }
    }

    /// The policy that the options name.
    pub(crate) fn propagation(&self) -> Option<Propagation> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(_), _) | (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        }
    }

    /// The options as those who judge see them.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("kind".into(), "DeleteOptions".into());
            map.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        }
        value
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }
}
