//! CronJob

use serde_json::{Value, json};

use super::{job, schedule};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, make, set, set_status, set_str};
use crate::kinds::print::{NONE, age, containers, or_none, selector_text, since, size};
use crate::status::FieldError;
use crate::validation::{Errors, View, non_negative, required_one_of, same};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("batch", "v1", "CronJob", "cronjobs", &CronJob).short("cj").category_all().with_status().columns(
        vec![
            Column::string("Schedule", "When it runs, in cron's format.", |object, _| {
                object["spec"]["schedule"].as_str().unwrap_or_default().into()
            }),
            Column::string("Timezone", "The time zone of the schedule.", |object, _| {
                or_none(&object["spec"]["timeZone"])
            }),
            Column::string("Suspend", "Whether it starts no more jobs.", |object, _| {
                match object["spec"]["suspend"].as_bool() {
                    None => "<unset>",
                    Some(true) => "True",
                    Some(false) => "False",
                }
                .into()
            })
            .typed("boolean"),
            Column::integer("Active", "Jobs that run now.", |object, _| size(&object["status"]["active"]).into()),
            Column::string("Last Schedule", "Time since it started a job last.", |object, now| {
                match &object["status"]["lastScheduleTime"] {
                    Value::String(_) => since(&object["status"]["lastScheduleTime"], now).into(),
                    _ => NONE.into(),
                }
            }),
            age(),
            Column::string("Containers", "Names of each container in the template.", |object, _| {
                containers(&job_spec(object)["template"]["spec"], "name")
            })
            .wide(),
            Column::string("Images", "Images referenced by each container in the template.", |object, _| {
                containers(&job_spec(object)["template"]["spec"], "image")
            })
            .wide(),
            Column::string("Selector", "The label selector of its jobs' pods.", |object, _| {
                match selector_text(&job_spec(object)["selector"]) {
                    text if text.is_empty() => NONE.into(),
                    text => text.into(),
                }
            })
            .wide(),
        ],
    )
}

fn job_spec(object: &Value) -> &Value {
    &object["spec"]["jobTemplate"]["spec"]
}

#[derive(Debug)]
struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set_str(spec, "concurrencyPolicy", "Allow");
        set(spec, "suspend", false);
        set(spec, "successfulJobsHistoryLimit", 3);
        set(spec, "failedJobsHistoryLimit", 1);
        if let Some(template) = make(spec, "jobTemplate") {
            set(template, "metadata", json!({}));
            if let Some(spec) = child(template, "spec") {
                job::template_defaults(spec);
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(object, write);
        if write == Write::Create {
            set_status(object, json!({}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let old = match write {
            // Upstream checks nothing but the metadata here.
            Write::Subresource(..) => return errors,
            Write::Create => None,
            Write::Update(old) => Some(&old["spec"]),
        };
        validate_spec(root.get("spec"), old, &mut errors);
        let meta = root.get("metadata");
        // Its jobs' names are 11 characters longer.
        if old.is_none() && meta.get("name").len() > 52 {
            errors.push(meta.get("name").invalid("must be no more than 52 characters"));
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        match write {
            Write::Subresource(..) => return warnings,
            Write::Create => warnings.extend(job::name_warning(object)),
            Write::Update(_) => {}
        }
        warnings.extend(job::spec_warnings(View::at("spec.jobTemplate.spec", job_spec(object))));
        if object["spec"]["schedule"].as_str().is_some_and(|schedule| schedule.contains("TZ")) {
            warnings.push(
                "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .into(),
            );
        }
        warnings
    }
}

fn validate_spec(spec: View, old: Option<&Value>, errors: &mut Errors) {
    let (schedule, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if schedule.is_empty() {
        errors.push(schedule.required(""));
    } else {
        if let Err(error) = schedule::check(schedule.str()) {
            errors.push(schedule.invalid(&error));
        }
        let has_zone = schedule.str().contains("TZ");
        let had_zone = old.is_some_and(|old| old["schedule"].as_str().unwrap_or_default().contains("TZ"));
        if has_zone && !had_zone {
            errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
        } else if has_zone && zone.is_set() {
            errors.push(schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
        }
    }
    non_negative(spec.get("startingDeadlineSeconds"), errors);
    if zone.is_set() && old.is_none_or(|old| !same(zone.value, &old["timeZone"])) {
        time_zone(zone, errors);
    }
    required_one_of(spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], errors);
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    job::spec::validate_template(job, errors);
    let (selector, manual) = (job.get("selector"), job.get("manualSelector"));
    if selector.is_set() {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    if manual.bool() {
        errors.push(manual.not_supported(&["nil", "false"]));
    }
    non_negative(spec.get("successfulJobsHistoryLimit"), errors);
    non_negative(spec.get("failedJobsHistoryLimit"), errors);
}

fn time_zone(zone: View, errors: &mut Errors) {
    let name = zone.str();
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
        return;
    }
    let well_formed = |part: &str| {
        (1..=14).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
    };
    let unknown = || zone.invalid(&format!("unknown time zone {name}"));
    if !name.split('/').all(well_formed) {
        errors.push(unknown());
        return;
    }
    if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(detail));
    }
    if name != "Local" && crate::time::time_zone(name).is_none() {
        errors.push(unknown());
    }
}
