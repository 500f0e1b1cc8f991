//! `AuthorizationConfiguration` (`--authorization-config`): which authorizers are asked, in which order. It is checked as a
//! whole, in upstream's words; one that is wrong anywhere is not used at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_api::status::FieldError;
use keelson_api::validation::names;
use serde::Deserialize;

use super::chain::Step;
use super::conditions::Condition;
use super::webhook::{Settings, WebhookAuthorizer};
use crate::Error;
use crate::webhook::Webhook;
use crate::webhook::kubeconfig::read;
use keelson_api::time::parse_duration;

/// Largest file.
pub(super) const MAX_FILE_BYTES: u64 = 3 << 20;
const MAX_CONDITIONS: usize = 64;
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Authorizer {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    webhook: Option<Configured>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Configured {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    match_conditions: Vec<MatchCondition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MatchCondition {
    #[serde(default)]
    expression: String,
}

/// The kubeconfig files that a configuration names, even one that is wrong elsewhere.
pub(super) fn named(text: &[u8]) -> Vec<PathBuf> {
    let config = keelson_api::codec::yaml::decode(text).map(|decoded| decoded.value).unwrap_or_default();
    let all = config["authorizers"].as_array().into_iter().flatten();
    all.filter_map(|one| one["webhook"]["connectionInfo"]["kubeConfigFile"].as_str()).map(PathBuf::from).collect()
}

/// The steps that the file says.
pub(super) fn load(path: &Path) -> Result<Vec<Step>, Error> {
    let bad = |why: String| Error::Configuration { path: path.display().to_string(), why };
    let bytes = read(path, MAX_FILE_BYTES)?;
    let decoded = keelson_api::codec::yaml::decode(&bytes).map_err(|e| bad(e.to_string()))?;
    let file: File = serde_json::from_value(decoded.value).map_err(|e| bad(e.to_string()))?;
    if file.kind != "AuthorizationConfiguration" || !VERSIONS.contains(&file.api_version.as_str()) {
        let (kind, version) = (file.kind, file.api_version);
        return Err(bad(format!("{kind:?} of {version:?} is no AuthorizationConfiguration of {:?}", VERSIONS[0])));
    }
    let mut errors = Vec::new();
    let found = steps(file.authorizers, &mut errors);
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        return Err(bad(all.join("; ")));
    }
    Ok(found)
}

fn steps(authorizers: Vec<Authorizer>, errors: &mut Vec<FieldError>) -> Vec<Step> {
    if authorizers.is_empty() {
        errors.push(FieldError::required("authorizers", "at least one authorization mode must be defined"));
    }
    let mut steps = Vec::new();
    let (mut kinds, mut seen) = (Vec::new(), Vec::new());
    for (index, Authorizer { kind, name, webhook }) in authorizers.into_iter().enumerate() {
        let at = |field: &str| format!("authorizers[{index}].{field}");
        match kind.as_str() {
            "" => errors.push(FieldError::required(at("type"), "")),
            "Node" | "RBAC" | "Webhook" => {}
            other => errors.push(FieldError::not_supported(at("type"), other, &["Node", "RBAC", "Webhook"])),
        }
        if !matches!(kind.as_str(), "Node" | "RBAC" | "Webhook") {
            continue;
        }
        if kind != "Webhook" && kinds.contains(&kind) {
            errors.push(FieldError::duplicate(at("type"), kind.as_str()));
            continue;
        }
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(at("name"), name.as_str()));
        } else if let [first, ..] = names::subdomain(&name).as_slice() {
            let why = format!("authorizer name is invalid: {first}");
            errors.push(FieldError::invalid(at("name"), name.as_str(), &why));
        }
        match (kind.as_str(), webhook) {
            ("Webhook", None) => errors.push(FieldError::required(at("webhook"), "required when type=Webhook")),
            ("Webhook", Some(webhook)) => {
                let webhook = webhook.build(&format!("authorizers[{index}]"), errors);
                steps.extend(webhook.map(|webhook| Step::Webhook(Box::new(webhook))));
            }
            (_, Some(_)) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(at("webhook"), "non-null", why));
            }
            ("Node", None) => steps.push(Step::Node),
            (_, None) => steps.push(Step::Rbac),
        }
        kinds.push(kind);
        seen.push(name);
    }
    steps
}

impl Configured {
    /// The webhook, if nothing is wrong with it, and its kubeconfig file.
    fn build(self, path: &str, errors: &mut Vec<FieldError>) -> Option<WebhookAuthorizer> {
        let before = errors.len();
        let timeout = span(path, "timeout", self.timeout.as_deref(), None, errors);
        if timeout > MAX_TIMEOUT {
            let shown = self.timeout.unwrap_or_default();
            errors.push(FieldError::invalid(format!("{path}.timeout"), shown, "must be > 0s and <= 30s"));
        }
        let authorized = span(path, "authorizedTTL", self.authorized_ttl.as_deref(), Some(300), errors);
        let unauthorized = span(path, "unauthorizedTTL", self.unauthorized_ttl.as_deref(), Some(30), errors);
        one_of(path, "subjectAccessReviewVersion", &self.subject_access_review_version, &["v1", "v1beta1"], errors);
        let matched = "matchConditionSubjectAccessReviewVersion";
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => {
                let why = "required if match conditions are specified";
                errors.push(FieldError::required(format!("{path}.{matched}"), why));
            }
            version => one_of(path, matched, version, &["v1"], errors),
        }
        one_of(path, "failurePolicy", &self.failure_policy, &["NoOpinion", "Deny"], errors);
        let file = self.connection_info.judge(path, errors);
        let conditions = conditions(path, &self.match_conditions, errors);
        if errors.len() > before {
            return None;
        }
        let kubeconfig = &file?;
        let webhook = match Webhook::from_kubeconfig(kubeconfig) {
            Ok(webhook) => webhook,
            Err(error) => {
                let (at, shown) = (format!("{path}.connectionInfo.kubeConfigFile"), kubeconfig.display().to_string());
                errors.push(FieldError::invalid(at, shown, &format!("error loading file: {error}")));
                return None;
            }
        };
        let ttl = |ttl: Duration, kept: Option<bool>| if kept.unwrap_or(true) { ttl } else { Duration::ZERO };
        let settings = Settings {
            version: self.subject_access_review_version,
            timeout,
            authorized_ttl: ttl(authorized, self.cache_authorized_requests),
            unauthorized_ttl: ttl(unauthorized, self.cache_unauthorized_requests),
            deny_on_error: self.failure_policy == "Deny",
            conditions,
        };
        Some(WebhookAuthorizer::new(webhook, settings))
    }
}

impl ConnectionInfo {
    fn judge(self, path: &str, errors: &mut Vec<FieldError>) -> Option<PathBuf> {
        let at = |field: &str| format!("{path}.connectionInfo.{field}");
        if self.kind != "KubeConfigFile" {
            // `InClusterConfig` is for servers that run as pods of another cluster.
            let supported = &["KubeConfigFile"];
            errors.push(match self.kind.as_str() {
                "" => FieldError::required(at("type"), ""),
                kind => FieldError::not_supported(at("type"), kind, supported),
            });
            return None;
        }
        let file = self.kube_config_file.unwrap_or_default();
        let wrong = |why: &str| FieldError::invalid(at("kubeConfigFile"), file.as_str(), why);
        if file.is_empty() {
            errors.push(FieldError::required(at("kubeConfigFile"), ""));
        } else if !Path::new(&file).is_absolute() {
            errors.push(wrong("must be an absolute path"));
        } else {
            match std::fs::metadata(&file) {
                Err(error) => errors.push(wrong(&format!("error loading file: {error}"))),
                Ok(metadata) if !metadata.is_file() => errors.push(wrong("must be a regular file")),
                Ok(_) => return Some(PathBuf::from(file)),
            }
        }
        None
    }
}

fn one_of(path: &str, field: &str, value: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
    let at = format!("{path}.{field}");
    match value {
        "" => errors.push(FieldError::required(at, "")),
        value if !supported.contains(&value) => errors.push(FieldError::not_supported(at, value, supported)),
        _ => {}
    }
}

/// A duration that must be there, or has a default.
fn span(path: &str, field: &str, text: Option<&str>, default: Option<u64>, errors: &mut Vec<FieldError>) -> Duration {
    let at = format!("{path}.{field}");
    let Some(text) = text else {
        if default.is_none() {
            errors.push(FieldError::required(at, ""));
        }
        return Duration::from_secs(default.unwrap_or(1));
    };
    match parse_duration(text) {
        Ok(0) => errors.push(FieldError::required(at, "")),
        Ok(nanos) => match u64::try_from(nanos) {
            Ok(nanos) => return Duration::from_nanos(nanos),
            Err(_) => errors.push(FieldError::invalid(at, text, "must be > 0s")),
        },
        Err(why) => errors.push(FieldError::invalid(at, text, &why)),
    }
    Duration::from_secs(1)
}

fn conditions(path: &str, conditions: &[MatchCondition], errors: &mut Vec<FieldError>) -> Vec<Condition> {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(format!("{path}.matchConditions"), conditions.len(), MAX_CONDITIONS));
        return Vec::new();
    }
    let (mut compiled, mut seen) = (Vec::new(), Vec::new());
    for (index, MatchCondition { expression }) in conditions.iter().enumerate() {
        let at = format!("{path}.matchConditions[{index}].expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if seen.contains(&expression) {
            errors.push(FieldError::duplicate(at, expression.as_str()));
        } else {
            seen.push(expression);
            match Condition::new(expression) {
                Ok(condition) => compiled.push(condition),
                Err(why) => errors.push(FieldError::invalid(at, expression.as_str(), &why)),
            }
        }
    }
    compiled
}
