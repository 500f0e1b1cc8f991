//! Job

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Propagation, Strategy, Write};
use crate::kinds::core::template_warnings;
use crate::kinds::mutate::{Object, child, each, make, set, set_status, set_str};
use crate::kinds::pod_spec::defaults;
use crate::kinds::print::{age, count, human_duration, since, workload_columns};
use crate::status::FieldError;
use crate::validation::{View, names};

mod indexes;
pub(super) mod spec;
mod status;
#[cfg(test)]
mod tests;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

pub(crate) fn kind() -> Kind {
    let mut columns = vec![
        Column::string("Status", "How far it is, in a word.", |job, _| state(job).into()),
        Column::string("Completions", "Pods that succeeded, of those that must.", |job, _| completions(job).into()),
        Column::string("Duration", "How long it took, or takes.", |job, now| {
            let status = &job["status"];
            match (status["startTime"].as_str(), status["completionTime"].as_str()) {
                (None, _) => "".into(),
                (Some(_), None) => since(&status["startTime"], now).into(),
                (Some(start), Some(end)) => elapsed(start, end).into(),
            }
        }),
        age(),
    ];
    columns.extend(workload_columns());
    Kind::namespaced("batch", "v1", "Job", "jobs", &Job)
        .category_all()
        .with_status()
        .columns(columns)
        .select("status.successful", |job| job["status"]["succeeded"].as_i64().unwrap_or(0).to_string().into())
}

fn elapsed(start: &str, end: &str) -> String {
    let seconds = |text: &str| text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).unwrap_or(0);
    human_duration(seconds(end).saturating_sub(seconds(start)))
}

fn state(job: &Value) -> &'static str {
    let is = |condition: &str| has_condition(job, condition);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = count(&job["status"]["succeeded"]);
    let spec = &job["spec"];
    match (spec["completions"].as_i64(), spec["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

/// Whether a condition is true.
fn has_condition(job: &Value, condition: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

fn is_finished(job: &Value) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

#[derive(Debug)]
struct Job;

impl Strategy for Job {
    fn default(&self, job: &mut Value) {
        let Some(object) = job.as_object_mut() else { return };
        let Some(spec) = make(object, "spec") else { return };
        if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
            set(spec, "completions", 1);
        }
        set(spec, "parallelism", 1);
        let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
        set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
        set(spec, "completionMode", "NonIndexed");
        set(spec, "suspend", false);
        set(spec, "manualSelector", false);
        let failure_policy = spec.get("podFailurePolicy").is_some_and(Value::is_object);
        set(spec, "podReplacementPolicy", if failure_policy { "Failed" } else { "TerminatingOrFailed" });
        template_defaults(spec);
        let labels = spec.get("template").map(|template| template["metadata"]["labels"].clone());
        let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) else {
            return;
        };
        if let Some(meta) = make(object, "metadata")
            && meta.get("labels").and_then(Value::as_object).is_none_or(|own| own.is_empty())
        {
            meta.insert("labels".into(), labels);
        }
    }

    fn prepare(&self, job: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(job, write);
        if write == Write::Create {
            set_status(job, json!({}));
            if job["spec"]["manualSelector"] != true {
                generate_selector(job);
            }
            // The labels that a job without any takes over may have come just now.
            self.default(job);
        }
    }

    fn validate(&self, job: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(job);
        match write {
            Write::Subresource("status", old) => status::validate(root, old, &mut errors),
            Write::Create => spec::validate(root, None, &mut errors),
            Write::Update(old) | Write::Subresource(_, old) => spec::validate(root, Some(old), &mut errors),
        }
        errors
    }

    fn warnings(&self, job: &Value, write: Write<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        match write {
            Write::Subresource(..) => return warnings,
            Write::Create => warnings.extend(name_warning(job)),
            Write::Update(_) => {}
        }
        warnings.extend(spec_warnings(View::at("spec", &job["spec"])));
        warnings
    }

    fn default_propagation(&self) -> Propagation {
        // As upstream, for clients of long ago.
        Propagation::Orphan
    }
}

/// Defaults of a job's spec that also those of a cron job's template have.
pub(super) fn template_defaults(spec: &mut Object) {
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            each(rule, "onPodConditions").for_each(|pattern| set_str(pattern, "status", "True"));
        }
    }
    if let Some(template) = spec.get_mut("template") {
        defaults::template(template);
    }
}

/// Names that pods cannot have as their hostname.
pub(super) fn name_warning(object: &Value) -> Option<String> {
    let complaints = names::label(object["metadata"]["name"].as_str().unwrap_or_default());
    (!complaints.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            complaints.join(" ")
        )
    })
}

/// Warnings about a job's spec, also in a cron job.
pub(super) fn spec_warnings(spec: View) -> Vec<String> {
    let mut warnings = Vec::new();
    let number = |field: &'static str| spec.get(field).int().unwrap_or(0);
    if spec.get("completionMode").str() == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000
    {
        warnings.push(
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                .into(),
        );
    }
    warnings.extend(template_warnings(spec.get("template")));
    warnings
}

/// Labels by which the job knows its pods. Where the client set other values, validation refuses them.
fn generate_selector(job: &mut Value) {
    let name = job["metadata"]["name"].clone();
    let uid = job["metadata"]["uid"].clone();
    let Some(spec) = job.as_object_mut().and_then(|job| make(job, "spec")) else { return };
    if let Some(template) = make(spec, "template")
        && let Some(meta) = make(template, "metadata")
        && let Some(labels) = make(meta, "labels")
    {
        for (key, value) in
            [(OLD_JOB_NAME, &name), (JOB_NAME, &name), (OLD_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
        {
            labels.entry(key).or_insert_with(|| value.clone());
        }
    }
    if let Some(labels) = make(spec, "selector").and_then(|selector| make(selector, "matchLabels")) {
        labels.entry(CONTROLLER_UID).or_insert(uid);
    }
}
