//! Rules of a job's spec, on create and update.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME, indexes};
use crate::kinds::pod_spec::validate;
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, immutable_as, labels, names, non_negative, one_of, same};

const MAX_INDEXED: i64 = 100_000;
/// Above this many completions, failed indexes are tracked for fewer pods at once.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_WITH_MANY: i64 = 10_000;

/// A whole job; an update of `old`.
pub(super) fn validate(job: View, old: Option<&Value>, errors: &mut Errors) {
    generated_selector(job, old, errors);
    let spec = job.get("spec");
    validate_template(spec, errors);
    let selector = spec.get("selector");
    if selector.is_set() {
        labels::validate_selector(selector, errors);
    } else {
        errors.push(selector.required(""));
    }
    let (template, meta) = (spec.get("template"), job.get("metadata"));
    let own = template.get("metadata");
    let own = own.get("labels");
    if LabelSelector::from_json(Some(selector.value)).is_ok_and(|selector| !selector.matches(own.value)) {
        errors.push(own.invalid("`selector` does not match template `labels`"));
    }
    if let (true, Some(completions @ 1..)) = (is_indexed(spec), spec.get("completions").int()) {
        let name = meta.get("name");
        let hostname = format!("{}-{}", name.str(), completions - 1);
        if !names::label(&hostname).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(name.invalid_str(&detail));
        }
    }
    if let Some(old) = old {
        validate_update(spec, old, errors);
    }
}

fn is_indexed(spec: View) -> bool {
    spec.get("completionMode").str() == "Indexed"
}

/// The labels that the API server generated are there and select the job's pods.
fn generated_selector(job: View, old: Option<&Value>, errors: &mut Errors) {
    let (meta, spec) = (job.get("metadata"), job.get("spec"));
    let selector = spec.get("selector");
    if spec.get("manualSelector").bool() || !selector.is_set() {
        return;
    }
    let (name, uid) = (meta.get("name"), meta.get("uid"));
    if uid.is_empty() {
        errors.push(uid.required(""));
    }
    let template = spec.get("template");
    let template_meta = template.get("metadata");
    let template_labels = template_meta.get("labels");
    // Jobs from before the new labels keep going without them.
    let old_labels = old.map(|old| &old["spec"]["template"]["metadata"]["labels"]);
    let new_labels = old_labels.is_none_or(|labels| labels[JOB_NAME].is_string() && labels[CONTROLLER_UID].is_string());
    let mut expected = vec![(OLD_CONTROLLER_UID, uid.str()), (OLD_JOB_NAME, name.str())];
    if new_labels {
        expected.extend([(CONTROLLER_UID, uid.str()), (JOB_NAME, name.str())]);
    }
    for (key, value) in &expected {
        let path = format!("{}[{key}]", template_labels.path());
        match template_labels.get(key).value.as_str() {
            None => errors.push(FieldError::required(path, &format!("must be '{value}'"))),
            Some(actual) if actual != *value => {
                let shown = template_labels.value.clone();
                errors.push(FieldError::invalid(path, shown, &format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    let selects = LabelSelector::from_json(Some(selector.value)).map(|selector| selector.matches(expected.as_slice()));
    if matches!(selects, Ok(false)) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// A job's spec, also in a cron job's template.
pub(in crate::kinds::batch) fn validate_template(spec: View, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec.get(field), errors);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if spec.get("maxFailedIndexes").is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    managed_by(spec.get("managedBy"), errors);
    completion_mode(spec, errors);
    if spec.get("podFailurePolicy").is_set() {
        failure_policy(spec, errors);
    }
    success_policy(spec, errors);
    let replacement = spec.get("podReplacementPolicy");
    if replacement.is_set() {
        let failed_only = spec.get("podFailurePolicy").is_set();
        one_of(replacement, if failed_only { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] }, errors);
    }
    let template = spec.get("template");
    validate::template(template, errors);
    let pod = template.get("spec");
    let restart = pod.get("restartPolicy");
    match restart.str() {
        "Always" | "" => errors.push(restart.required("valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            errors.push(restart.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(restart.not_supported(&["OnFailure", "Never"])),
    }
}

/// `example.com/name`
fn managed_by(manager: View, errors: &mut Errors) {
    if !manager.is_set() {
        return;
    }
    if manager.is_empty() {
        errors.push(manager.required(""));
    } else {
        match manager.str().split_once('/') {
            None | Some(("", _) | (_, "")) => {
                errors.push(manager.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
            }
            Some((domain, path)) => {
                let complaints = names::subdomain(domain);
                errors.extend(complaints.iter().map(|c| FieldError::invalid(manager.path(), domain, c)));
                if !path.bytes().all(is_path_byte) {
                    let detail = format!("Invalid path (regex used for validation is '{PATH}')");
                    errors.push(FieldError::invalid(manager.path(), path, &detail));
                }
            }
        }
    }
    if manager.len() > 63 {
        errors.push(manager.too_long(63));
    }
}

const PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)
}

fn completion_mode(spec: View, errors: &mut Errors) {
    let mode = spec.get("completionMode");
    if mode.is_set() {
        one_of(mode, &["NonIndexed", "Indexed"], errors);
    }
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let (per_index, max_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if is_indexed(spec) {
        if !completions.is_set() {
            errors.push(completions.required("when completion mode is Indexed"));
        }
        at_most(parallelism, MAX_INDEXED, " when completion mode is Indexed", errors);
        if let (Some(completions), Some(failed)) = (completions.int(), max_failed.int())
            && failed > completions
        {
            errors.push(max_failed.invalid("must be less than or equal to completions"));
        }
        at_most(max_failed, MAX_INDEXED, "", errors);
        if completions.int().is_some_and(|n| n > MANY_COMPLETIONS) && per_index.is_set() {
            if !max_failed.is_set() {
                let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
                errors.push(max_failed.required(&detail));
            }
            let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
            at_most(parallelism, MAX_WITH_MANY, &when, errors);
            at_most(max_failed, MAX_WITH_MANY, &when, errors);
        }
    } else if !mode.is_set() || mode.str() == "NonIndexed" {
        for view in [per_index, max_failed] {
            if view.is_set() {
                errors.push(view.invalid("requires indexed completion mode"));
            }
        }
    }
}

fn at_most(view: View, limit: i64, when: &str, errors: &mut Errors) {
    if view.int().is_some_and(|n| n > limit) {
        errors.push(view.invalid(&format!("must be less than or equal to {limit}{when}")));
    }
}

fn quoted(values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", values.join(" "))
}

fn required_choice(view: View, supported: &[&str], errors: &mut Errors) {
    if view.is_empty() {
        errors.push(view.required(&quoted(supported)));
    } else {
        one_of(view, supported, errors);
    }
}

fn failure_policy(spec: View, errors: &mut Errors) {
    let policy = spec.get("podFailurePolicy");
    let rules = policy.get("rules");
    if rules.len() > 20 {
        errors.push(rules.too_many(20));
    }
    let pod = &spec.value["template"]["spec"];
    let containers =
        ["containers", "initContainers"].iter().flat_map(|list| pod[list].as_array().into_iter().flatten());
    let containers: HashSet<_> = containers.filter_map(|container| container["name"].as_str()).collect();
    for rule in rules.items() {
        let action = rule.get("action");
        if action.str() == "FailIndex" {
            if !spec.get("backoffLimitPerIndex").is_set() {
                errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
            }
        } else {
            required_choice(action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(codes, &containers, errors);
        }
        if conditions.len() > 20 {
            errors.push(conditions.too_many(20));
        }
        for pattern in conditions.items() {
            checked(pattern.get("type"), names::qualified, errors);
            required_choice(pattern.get("status"), &["False", "True", "Unknown"], errors);
        }
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => {
                errors.push(rule.invalid_bare("specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, true) => {
                errors.push(rule.invalid_bare("specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: View, containers: &HashSet<&str>, errors: &mut Errors) {
    let operator = codes.get("operator");
    required_choice(operator, &["In", "NotIn"], errors);
    let container = codes.get("containerName");
    if container.is_set() && !containers.contains(container.str()) {
        errors.push(container.invalid("must be one of the container or initContainer names in the pod template"));
    }
    let values = codes.get("values");
    if values.is_empty() {
        let shown = if values.is_set() { values.value.clone() } else { Value::Null };
        errors.push(FieldError::invalid(values.path(), shown, "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(values.too_many(255));
    }
    let mut seen = HashSet::new();
    let mut last = i64::MIN;
    let mut ordered = true;
    for value in values.items() {
        let code = value.int().unwrap_or(0);
        if operator.str() == "In" && code == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(value.duplicate());
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        errors.push(values.invalid("must be ordered"));
    }
}

fn success_policy(spec: View, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if !policy.is_set() {
        return;
    }
    if !is_indexed(spec) {
        errors.push(policy.invalid("requires indexed completion mode"));
        return;
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.len() > 20 {
        errors.push(rules.too_many(20));
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (wanted, listed) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !wanted.is_set() && !listed.is_set() {
            errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        let mut total = 0;
        if listed.is_set() {
            if listed.len() > 64 * 1024 {
                errors.push(listed.too_long(64 * 1024));
            }
            match indexes::count(listed.str(), completions) {
                Ok(count) => total = count,
                Err(error) => errors.push(listed.invalid(&format!("error parsing succeededIndexes: {error}"))),
            }
        }
        let Some(count) = wanted.int() else { continue };
        non_negative(wanted, errors);
        let mut at_most = |limit: i64, what: &str| {
            if count > limit {
                errors.push(wanted.invalid(&format!("must be less than or equal to {limit} (the number of {what})")));
            }
        };
        at_most(completions, "specified completions");
        if listed.is_set() {
            at_most(total, "indexes in the specified succeededIndexes field");
        }
    }
}

fn validate_update(spec: View, old_job: &Value, errors: &mut Errors) {
    let old = &old_job["spec"];
    let completions = spec.get("completions");
    if !is_indexed(spec) {
        immutable(completions, &old["completions"], errors);
    } else if completions.is_set()
        && !same(completions.value, &old["completions"])
        && completions.int() != spec.get("parallelism").int()
    {
        errors.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
    }
    immutable_as("apimachinery.pkg.apis.meta.v1.LabelSelector", spec.get("selector"), &old["selector"], errors);
    let mut allowed = old["template"].clone();
    // What decides where pods go may change until the first pod starts.
    if old["suspend"] == true && old_job["status"]["startTime"].is_null() {
        scheduling_from(&spec.value["template"], &mut allowed);
    }
    immutable_as("api.core.v1.PodTemplateSpec", spec.get("template"), &allowed, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(spec.get(field), &old[field], errors);
    }
}

/// Takes over into `template` what a suspended job may change.
fn scheduling_from(new: &Value, template: &mut Value) {
    let mut copy = |part: &str, field: &str| {
        let Some(map) = template.get_mut(part).and_then(Value::as_object_mut) else { return };
        match new[part].get(field) {
            Some(value) => drop(map.insert(field.into(), value.clone())),
            None => drop(map.remove(field)),
        }
    };
    for field in ["annotations", "labels"] {
        copy("metadata", field);
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        copy("spec", field);
    }
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let affinity = &new["spec"]["affinity"];
    let mut wanted = match spec.remove("affinity") {
        Some(Value::Object(old)) => old,
        // There was none, and there is none.
        _ if affinity.is_null() => return,
        _ => Map::new(),
    };
    match affinity.get("nodeAffinity") {
        Some(node) => drop(wanted.insert("nodeAffinity".into(), node.clone())),
        None => drop(wanted.remove("nodeAffinity")),
    }
    // One that said only where nodes are may go whole.
    if !(affinity.is_null() && wanted.is_empty()) {
        spec.insert("affinity".into(), wanted.into());
    }
}
