//! ValidatingAdmissionPolicy: what must hold of an object, and what becomes of a request for which it does not.

use std::time::Duration;

use keelson_api::status::{Cause, Status};
use keelson_cel::limits::{MESSAGE_BYTES, RUNTIME_BUDGET};
use keelson_cel::{Env, Type, Value as Cel};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Active, Binding, Common, Work, namespace_object};
use crate::admission::Request;
use crate::admission::attributes::{as_version, describe};
use crate::admission::expressions::{Compiled, Held, Inputs, Judge, Known, Run, Variables, run};

/// Bytes of the value of an audit annotation.
const MAX_ANNOTATION_BYTES: usize = 10 << 10;

struct Validation {
    expression: Compiled,
    message: String,
    computed: Option<Compiled>,
    /// `None`: `Invalid`.
    reason: Option<String>,
}

/// The expressions of a policy.
pub(in crate::admission) struct Validations {
    common: Common,
    fails_closed: bool,
    list: Vec<Validation>,
    /// By key.
    annotations: Vec<(String, Compiled)>,
}

impl Work for Validations {
    fn new(spec: &Value, mut common: Common, rules: &Env, messages: &Env) -> Self {
        let items = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let list: Vec<Validation> = items("validations")
            .iter()
            .map(|validation| Validation {
                expression: Compiled::new(rules, &text(validation, "expression"), &[Type::Bool]),
                message: text(validation, "message").trim().to_owned(),
                computed: Some(text(validation, "messageExpression"))
                    .filter(|source| !source.is_empty())
                    .map(|source| Compiled::new(messages, &source, &[Type::String])),
                reason: validation["reason"].as_str().map(str::to_owned),
            })
            .collect();
        let annotations: Vec<(String, Compiled)> = items("auditAnnotations")
            .iter()
            .map(|one| {
                let source = text(one, "valueExpression");
                (text(one, "key"), Compiled::new(rules, &source, &[Type::String, Type::Null]))
            })
            .collect();
        let all = list.iter().flat_map(|v| v.computed.iter().chain([&v.expression]));
        common.reads_namespace |= all.chain(annotations.iter().map(|(_, e)| e)).any(|e| e.uses("namespaceObject"));
        Self { common, fails_closed: spec["failurePolicy"] != "Ignore", list, annotations }
    }
}

/// A validation that failed, or could not be made.
pub(in crate::admission) struct Denial {
    index: usize,
    message: String,
    reason: Option<String>,
    checked: Checked,
}

/// How a check went, as metrics tell of it.
#[derive(Clone, Copy)]
pub(in crate::admission) struct Checked {
    /// Upstream's `error_type`.
    error: &'static str,
    took: Duration,
}

const NO_ERROR: &str = "no_error";
const COMPILE_ERROR: &str = "compile_error";
const INVALID_ERROR: &str = "invalid_error";
const OUT_OF_BUDGET: &str = "out_of_budget";

/// What a policy says of a request.
#[derive(Default)]
pub(in crate::admission) struct Verdict {
    denials: Vec<Denial>,
    annotations: Vec<(String, String)>,
    /// Checks that could not be made, by a policy that fails open.
    ignored: Vec<Checked>,
    /// Annotations that could not be found.
    faults: Vec<String>,
}

impl Judge for Validations {
    type Outcome = Verdict;

    fn judge<'a>(&'a self, run: &'a Run<'a>) -> Verdict {
        let variables = Variables::new(run, &self.common.variables);
        self.evaluate(run, variables.tie())
    }
}

impl Validations {
    /// A verdict of one error, if the policy fails closed.
    fn fault(&self, message: String, error: &'static str, begin: Instant) -> Verdict {
        let checked = Checked { error, took: begin.elapsed() };
        match self.fails_closed {
            true => {
                let denials = vec![Denial { index: 0, message, reason: None, checked }];
                Verdict { denials, ..Verdict::default() }
            }
            false => Verdict { ignored: vec![checked], ..Verdict::default() },
        }
    }

    fn evaluate<'a>(&'a self, run: &'a Run<'a>, variables: &'a Variables<'a>) -> Verdict {
        let begin = Instant::now();
        match self.common.conditions.judged(run) {
            Held::All => {}
            Held::NotAll => return Verdict::default(),
            Held::Unknown(why) => return self.fault(why, INVALID_ERROR, begin),
        }
        let mut verdict = Verdict::default();
        let mut budget = RUNTIME_BUDGET;
        let mut failed = Vec::new();
        for (index, validation) in self.list.iter().enumerate() {
            let begin = Instant::now();
            let value = run.evaluate(&validation.expression, Some(variables), &mut budget);
            let checked = |error| Checked { error, took: begin.elapsed() };
            match value {
                Err(out) => return self.fault(out.to_string(), OUT_OF_BUDGET, begin),
                Ok(Err(message)) => {
                    let compiles = validation.expression.compiles();
                    let checked = checked(if compiles { INVALID_ERROR } else { COMPILE_ERROR });
                    if self.fails_closed {
                        verdict.denials.push(Denial { index, message, reason: None, checked });
                    } else {
                        verdict.ignored.push(checked);
                    }
                }
                Ok(Ok(value)) if value.as_bool() == Some(true) => {}
                Ok(Ok(_)) => failed.push((index, validation, checked(NO_ERROR))),
            }
        }
        for (index, validation, checked) in failed {
            let computed = validation.computed.as_ref().map(|e| run.evaluate(e, Some(variables), &mut budget));
            let message = match computed {
                Some(Err(out)) => {
                    if self.fails_closed {
                        let message = format!("failed messageExpression: {out}");
                        let checked = Checked { error: OUT_OF_BUDGET, ..checked };
                        verdict.denials.push(Denial { index, message, reason: None, checked });
                    }
                    continue;
                }
                Some(Ok(Ok(value))) => value.as_str().and_then(usable),
                _ => None,
            };
            let message = message.unwrap_or_else(|| match validation.message.as_str() {
                "" => format!("failed expression: {}", validation.expression.source.trim()),
                message => message.to_owned(),
            });
            let reason = Some(validation.reason.clone().unwrap_or_else(|| "Invalid".into()));
            verdict.denials.push(Denial { index, message, reason, checked });
        }
        verdict.denials.sort_by_key(|denial| denial.index);
        let mut budget = RUNTIME_BUDGET;
        for (key, expression) in &self.annotations {
            let begin = Instant::now();
            match run.evaluate(expression, Some(variables), &mut budget) {
                Err(out) => return self.fault(out.to_string(), OUT_OF_BUDGET, begin),
                Ok(Err(why)) if self.fails_closed => verdict.faults.push(why),
                Ok(Ok(Cel::String(text))) if !text.as_str().trim().is_empty() => {
                    verdict.annotations.push((key.clone(), text.as_str().trim().to_owned()));
                }
                Ok(_) => {}
            }
        }
        verdict
    }
}

/// A message that may be shown: one line, not empty, not too long.
fn usable(message: &str) -> Option<String> {
    let message = message.trim();
    let fine = !message.is_empty() && message.len() <= MESSAGE_BYTES && !message.contains('\n');
    fine.then(|| message.to_owned())
}

/// A no, with who said it.
struct Refusal {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Option<String>,
}

/// Runs the policies; the first no of all is the answer.
pub(in crate::admission) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let mut refusals = Vec::new();
    for active in request.core.extensions.validating_policies().iter() {
        judge(request, object, active, &mut refusals).await?;
    }
    match refusals.into_iter().next() {
        Some(first) => Err(refuse(request, first)),
        None => Ok(()),
    }
}

async fn judge(
    request: &Request<'_>,
    object: &Value,
    active: &Active<Validations>,
    refusals: &mut Vec<Refusal>,
) -> Result<(), Status> {
    let policy = &active.policy;
    let mut misconfigured = |why: String, binding: Option<&Binding>| {
        if !policy.fails_closed {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        let message = format!("failed to configure {what}: {why}");
        let binding = binding.map(|binding| binding.name.clone());
        refusals.push(Refusal { policy: policy.name.clone(), binding, message, reason: None });
    };
    let resource = match policy.matches(request, object).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return Ok(()),
        Err(why) => {
            misconfigured(why, None);
            return Ok(());
        }
    };
    let mut verdicts = Vec::new();
    let mut seen = None;
    for binding in &active.bindings {
        let params = match policy.bound(request, object, binding).await {
            Ok(params) => params,
            Err(fault) => {
                misconfigured(fault, Some(binding));
                continue;
            }
        };
        for params in params {
            if seen.is_none() {
                let work = policy.work.get().await?;
                let namespace = match work.common.reads_namespace {
                    true => namespace_object(request).await?,
                    false => Value::Null,
                };
                let described = describe(request, &resource);
                let version = as_version(request, &resource, object).await?;
                seen = Some((work, version, described, namespace, Known::new(request)));
            }
            let Some((work, version, described, namespace, known)) = &mut seen else { continue };
            let mut inputs = Inputs::new(&version.borrow(&resource), described);
            inputs.namespace = std::borrow::Cow::Borrowed(namespace);
            inputs.params = std::borrow::Cow::Owned(params);
            verdicts.push((binding, run(request, work, &inputs, known).await?));
        }
    }
    act(request, &policy.name, verdicts, refusals);
    Ok(())
}

/// Does what the bindings want done.
fn act(
    request: &Request<'_>,
    policy: &str,
    verdicts: Vec<(&std::sync::Arc<Binding>, Verdict)>,
    refusals: &mut Vec<Refusal>,
) {
    let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
    for (binding, verdict) in verdicts {
        let refusal = |message: &str, reason: Option<&String>| Refusal {
            policy: policy.to_owned(),
            binding: Some(binding.name.clone()),
            message: message.to_owned(),
            reason: reason.cloned(),
        };
        let note = |checked: &Checked, action: &str| {
            let metrics = &request.core.metrics.admission;
            metrics.policy(policy, &binding.name, checked.error, action, checked.took);
        };
        verdict.ignored.iter().for_each(|checked| note(checked, "allow"));
        for Denial { index, message, reason, checked } in &verdict.denials {
            for action in &binding.actions {
                note(checked, &action.to_ascii_lowercase());
                match action.as_str() {
                    "Deny" => refusals.push(refusal(message, reason.as_ref())),
                    "Warn" => request.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {message}",
                        binding.name
                    )),
                    "Audit" => {
                        let failure = json!([{"message": message, "policy": policy, "binding": binding.name,
                            "expressionIndex": index, "validationActions": binding.actions}]);
                        let key = "validation.policy.admission.k8s.io/validation_failure";
                        request.notes.annotate(key, failure.to_string());
                    }
                    _ => {}
                }
            }
        }
        for (key, mut value) in verdict.annotations {
            value.truncate(value.floor_char_boundary(MAX_ANNOTATION_BYTES));
            match annotations.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => annotations.push((key, vec![value])),
            }
        }
        refusals.extend(verdict.faults.iter().map(|why| refusal(why, None)));
    }
    for (key, values) in annotations {
        request.notes.annotate(format!("{policy}/{key}"), values.join(", "));
    }
}

fn refuse(request: &Request<'_>, refusal: Refusal) -> Status {
    let Refusal { policy, binding, message, reason } = refusal;
    let with = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {message}");
    let mut status = request.forbidden(&message);
    let reason = reason.unwrap_or_else(|| "Invalid".into());
    (status.code, status.reason) = match reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let details = status.details.get_or_insert_default();
    details.causes.push(Cause { message, ..Cause::default() });
    status
}
