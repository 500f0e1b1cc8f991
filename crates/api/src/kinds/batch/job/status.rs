//! Rules of a job's status: transitions that its clients rely on, whichever controller makes them. A rule over fields that
//! this write leaves alone is not applied, so that a status from before the rule can still be updated.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{has_condition, indexes, is_finished};
use crate::validation::{Errors, View, non_negative, same};

/// What changed against the stored job.
struct Changed {
    finished: bool,
    complete: bool,
    failed: bool,
    failure_target: bool,
    criteria_met: bool,
    completed_indexes: bool,
    failed_indexes: bool,
    active: bool,
    ready: bool,
    terminating: bool,
    start_time: bool,
    completion_time: bool,
    uncounted: bool,
}

impl Changed {
    fn between(old: &Value, new: &Value) -> Self {
        let condition = |name| has_condition(old, name) != has_condition(new, name);
        let field = |name: &str| !same(&old["status"][name], &new["status"][name]);
        let number =
            |name: &str| old["status"][name].as_i64().unwrap_or(0) != new["status"][name].as_i64().unwrap_or(0);
        Self {
            finished: is_finished(old) != is_finished(new),
            complete: condition("Complete"),
            failed: condition("Failed"),
            failure_target: condition("FailureTarget"),
            criteria_met: condition("SuccessCriteriaMet"),
            completed_indexes: field("completedIndexes"),
            failed_indexes: field("failedIndexes"),
            active: number("active"),
            ready: field("ready"),
            terminating: field("terminating"),
            start_time: field("startTime"),
            completion_time: field("completionTime"),
            uncounted: field("uncountedTerminatedPods"),
        }
    }
}

/// A status update of `old`.
pub(super) fn validate(job: View, old: &Value, errors: &mut Errors) {
    let changed = Changed::between(old, job.value);
    let status = job.get("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(status.get(field), errors);
    }
    uncounted_pods(status.get("uncountedTerminatedPods"), errors);
    conditions(job.value, status.get("conditions"), &changed, errors);
    times(job.value, status, &changed, errors);
    finished(job.value, status, &changed, errors);
    completed_indexes(job, status, &changed, errors);
    if (changed.ready || changed.active) && status.get("ready").int() > Some(status.get("active").int().unwrap_or(0)) {
        errors.push(status.get("ready").invalid("cannot set more ready pods than active"));
    }
    transitions(job, old, &changed, errors);
}

fn uncounted_pods(uncounted: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.get(list).items() {
            if uid.is_empty() {
                errors.push(uid.invalid_str("must not be empty"));
            } else if !seen.insert(uid.str().to_owned()) {
                errors.push(uid.duplicate());
            }
        }
    }
}

/// Conditions that exclude or need each other.
fn conditions(job: &Value, conditions: View, changed: &Changed, errors: &mut Errors) {
    let has = |name| has_condition(job, name);
    let (complete, failed) = (has("Complete"), has("Failed"));
    let (target, met) = (has("FailureTarget"), has("SuccessCriteriaMet"));
    let with_policy = job["spec"]["successPolicy"].is_object();
    let rules = [
        (
            (changed.complete || changed.failed) && complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            (changed.complete || changed.failure_target) && complete && target,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (changed.failed || changed.failure_target) && failed && !target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (changed.complete || changed.criteria_met) && complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            with_policy && complete && !met,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ];
    errors.extend(rules.iter().filter(|(broken, _)| *broken).map(|(_, detail)| conditions.invalid_bare(detail)));
}

fn times(job: &Value, status: View, changed: &Changed, errors: &mut Errors) {
    let complete = has_condition(job, "Complete");
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    if changed.complete || changed.completion_time {
        if end.is_set() && !complete {
            errors.push(end.invalid("cannot set completionTime when there is no Complete=True condition"));
        }
        if complete && !end.is_set() {
            errors.push(end.required("completionTime is required for Complete jobs"));
        }
    }
    let time = |view: View| view.str().parse::<Timestamp>().ok();
    if (changed.start_time || changed.completion_time)
        && let (Some(start), Some(finish)) = (time(start), time(end))
        && finish < start
    {
        errors.push(end.invalid("completionTime cannot be set before startTime"));
    }
}

/// A finished job has nothing left to do.
fn finished(job: &Value, status: View, changed: &Changed, errors: &mut Errors) {
    if !is_finished(job) {
        return;
    }
    let positive = |field: &'static str| status.get(field).int().unwrap_or(0) > 0;
    if (changed.finished || changed.active) && positive("active") {
        errors.push(status.get("active").invalid("active>0 is invalid for finished job"));
    }
    if (changed.finished || changed.start_time) && !status.get("startTime").is_set() {
        errors.push(status.get("startTime").required("startTime is required for finished job"));
    }
    let uncounted = status.get("uncountedTerminatedPods");
    let left = uncounted.get("failed").len() + uncounted.get("succeeded").len();
    if (changed.finished || changed.uncounted) && left > 0 {
        errors.push(uncounted.invalid("uncountedTerminatedPods needs to be empty for finished job"));
    }
    if (changed.finished || changed.terminating) && positive("terminating") {
        errors.push(status.get("terminating").invalid("terminating>0 is invalid for finished job"));
    }
}

fn completed_indexes(job: View, status: View, changed: &Changed, errors: &mut Errors) {
    let spec = &job.value["spec"];
    let (completed, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    let completions = spec["completions"].as_i64();
    if let (true, Some(completions)) = (changed.completed_indexes, completions)
        && let Err(error) = indexes::count(completed.str(), completions)
    {
        errors.push(completed.invalid(&format!("error parsing completedIndexes: {error}")));
    }
    if let (true, true, Some(completions)) = (changed.failed_indexes, per_index, completions)
        && let Err(error) = indexes::count(failed.str(), completions)
    {
        errors.push(failed.invalid(&format!("error parsing failedIndexes: {error}")));
    }
    if changed.completed_indexes && !completed.is_empty() && spec["completionMode"] != "Indexed" {
        errors.push(completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode"));
    }
    if changed.failed_indexes && failed.is_set() && !per_index {
        errors.push(failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
    }
    if let (true, Some(completions)) = (changed.completed_indexes || changed.failed_indexes, completions)
        && let Some(index) = indexes::overlap(completed.str(), failed.str(), completions)
    {
        errors.push(failed.invalid(&format!("failedIndexes and completedIndexes overlap at index: {index}")));
    }
}

/// What may not be taken back.
fn transitions(job: View, old: &Value, changed: &Changed, errors: &mut Errors) {
    let (spec, status) = (job.get("spec"), job.get("status"));
    let (had, has) = (|name| has_condition(old, name), |name| has_condition(job.value, name));
    let conditions = status.get("conditions");
    for name in ["Failed", "Complete", "FailureTarget"] {
        if had(name) && !has(name) {
            errors.push(conditions.invalid_bare(&format!("cannot disable the terminal {name}=True condition")));
        }
    }
    let decreased =
        |field: &'static str| status.get(field).int().unwrap_or(0) < old["status"][field].as_i64().unwrap_or(0);
    let shown = |field: &'static str, detail: &str| {
        let view = status.get(field);
        crate::status::FieldError::invalid(view.path(), view.int().unwrap_or(0), detail)
    };
    if decreased("failed") {
        errors.push(shown("failed", "cannot decrease the failed counter"));
    }
    // An indexed job may be scaled down.
    let elastic = spec.get("completionMode").str() == "Indexed"
        && same(spec.get("completions").value, spec.get("parallelism").value);
    if decreased("succeeded") && !elastic {
        errors.push(shown("succeeded", "cannot decrease the succeeded counter"));
    }
    let end = status.get("completionTime");
    if changed.completion_time && end.is_set() && old["status"]["completionTime"].is_string() {
        errors.push(end.invalid("completionTime cannot be mutated"));
    }
    if changed.start_time && old["status"]["startTime"].is_string() && !spec.get("suspend").bool() {
        errors.push(status.get("startTime").required("startTime cannot be removed for unsuspended job"));
    }
    if had("SuccessCriteriaMet") && !has("SuccessCriteriaMet") {
        errors.push(conditions.invalid_bare("cannot disable the SuccessCriteriaMet=True condition"));
    }
    if had("Complete") && !had("SuccessCriteriaMet") && has("SuccessCriteriaMet") {
        errors.push(
            conditions.invalid_bare("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"),
        );
    }
}
