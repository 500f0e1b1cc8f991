//! MutatingAdmissionPolicy: what is to be changed in an object, as a configuration to merge in or a JSON patch.

use std::borrow::Cow;
use std::sync::Arc;

use keelson_api::apply::merge_config;
use keelson_api::patch::{Patch, PatchType};
use keelson_api::status::{Cause, Status};
use keelson_cel::admission::{mutation_env, mutation_type};
use keelson_cel::limits::RUNTIME_BUDGET;
use keelson_cel::{Env, Key, List, Map, Value as Cel};
use serde_json::{Value, json};

use super::{Active, Binding, Common, Work, namespace_object};
use crate::admission::Request;
use crate::admission::attributes::{Seen, as_version, back, describe, settle};
use crate::admission::expressions::{Compiled, Held, Inputs, Judge, Known, Run, Variable, Variables, run};
use crate::admission::reinvocation::Rounds;
use crate::registry::Resource;
use crate::registry::body::{conform, schema_of};

const KIND: &str = "MutatingAdmissionPolicy";

/// The changes of a policy, in their order.
pub(in crate::admission) struct Mutations {
    common: Common,
    steps: Vec<Arc<Step>>,
}

/// One change.
struct Step {
    variables: Arc<[Variable]>,
    /// A JSON patch rather than a configuration.
    patches: bool,
    expression: Compiled,
}

impl Work for Mutations {
    fn new(spec: &Value, mut common: Common, rules: &Env, _messages: &Env) -> Self {
        let env = mutation_env(rules.clone());
        let step = |mutation: &Value| {
            let patch_type = mutation["patchType"].as_str().unwrap_or_default();
            let patches = patch_type == "JSONPatch";
            let holder = if patches { "jsonPatch" } else { "applyConfiguration" };
            let source = mutation[holder]["expression"].as_str().unwrap_or_default();
            let expression = Compiled::new(&env, source, &[mutation_type(patch_type)]);
            Arc::new(Step { variables: common.variables.clone(), patches, expression })
        };
        let steps: Vec<_> = spec["mutations"].as_array().into_iter().flatten().map(step).collect();
        common.reads_namespace |= steps.iter().any(|step| step.expression.uses("namespaceObject"));
        Self { common, steps }
    }
}

impl Judge for Step {
    /// The configuration or patch.
    type Outcome = Result<Value, String>;

    fn judge<'a>(&'a self, run: &'a Run<'a>) -> Result<Value, String> {
        let variables = Variables::new(run, &self.variables);
        self.evaluate(run, variables.tie())
    }
}

impl Step {
    fn evaluate<'a>(&'a self, run: &'a Run<'a>, variables: &'a Variables<'a>) -> Result<Value, String> {
        let mut budget = RUNTIME_BUDGET;
        let value = run.evaluate(&self.expression, Some(variables), &mut budget).map_err(|out| out.to_string())??;
        let mismatch = |why| format!("type mismatch: {why}");
        if self.patches {
            if let Cel::List(list) = &value {
                list.iter().flatten().try_for_each(|operation| check_operation(&operation)).map_err(mismatch)?;
            }
        } else {
            check_names(&value, "Object").map_err(mismatch)?;
        }
        value.to_json().ok_or_else(|| "the expression's value cannot be written as JSON".into())
    }

    /// The object as the change makes it.
    fn apply(&self, request: &Request<'_>, seen: &Seen<'_>, change: Value) -> Result<Value, String> {
        let schema = schema_of(&seen.resource.kind).map_err(|status| status.message)?;
        let mut object = seen.object.clone();
        if self.patches {
            let (patch, _) = Patch::parse(PatchType::Json, change.to_string().as_bytes()).map_err(|s| s.message)?;
            if !patch.apply_tested(&mut object, schema).map_err(|status| format!("JSONPath: {}", status.message))? {
                return Ok(seen.object.clone());
            }
        } else {
            let mut config = change;
            // `dyn` hides from the check of types what an expression makes.
            if !config.is_object() {
                return Err("error applying patch: the expression's value is not an object".into());
            }
            for key in ["apiVersion", "kind"] {
                config[key] = object[key].clone();
            }
            let failed = |why: String| format!("error applying patch: {why}");
            let mut unknown = Vec::new();
            conform(schema, &mut config.clone(), &mut unknown)
                .map_err(|why| failed(format!("failed to convert patch object to typed object: {why}")))?;
            if let Some(field) = unknown.first().and_then(|why| why.split('"').nth(1)) {
                let why =
                    format!("failed to convert patch object to typed object: .{field}: field not declared in schema");
                return Err(failed(why));
            }
            object = merge_config(schema, object, &config).map_err(failed)?;
        }
        settle(request, seen.resource, &mut object)?;
        Ok(object)
    }
}

/// `Object{spec: Object.spec{…}}`: types are named after where they stand.
fn check_names(value: &Cel<'_>, expected: &str) -> Result<(), String> {
    match value {
        Cel::Map(Map::Struct(object, fields)) => {
            if object.name != expected {
                let name = &object.name;
                return Err(format!(
                    "unexpected type name {name:?}, expected {expected:?}, which matches field name path from root Object type"
                ));
            }
            let named = fields.iter().filter_map(|(key, value)| match key {
                Key::String(text) => Some((text.as_str(), value)),
                _ => None,
            });
            named.into_iter().try_for_each(|(key, value)| check_names(value, &format!("{expected}.{key}")))
        }
        Cel::List(list @ (List::Owned(..) | List::Joined(_))) => {
            list.iter().flatten().try_for_each(|item| check_names(&item, expected))
        }
        _ => Ok(()),
    }
}

/// What a patch puts in may be of any type, which is then the root of those in it.
fn check_operation(operation: &Cel<'_>) -> Result<(), String> {
    let Cel::Map(Map::Struct(_, fields)) = operation else { return Ok(()) };
    for value in fields.values() {
        if let Cel::Map(Map::Struct(object, _)) = value {
            check_names(value, &object.name)?;
        }
    }
    Ok(())
}

/// A policy, bound, with one parameter.
struct Invocation<'a> {
    active: &'a Active<Mutations>,
    binding: &'a Binding,
    resource: Resource,
    params: Value,
}

/// What went wrong, in whose name.
struct Trouble {
    policy: String,
    binding: Option<String>,
    why: String,
    /// Not in the configuration.
    invalid: bool,
}

/// Runs the policies, which may change the object.
pub(in crate::admission) async fn mutate(
    request: &Request<'_>,
    object: &mut Value,
    rounds: &mut Rounds,
) -> Result<(), Status> {
    let policies = request.core.extensions.mutating_policies();
    if policies.is_empty() || super::is_excluded(request) {
        return Ok(());
    }
    let mut troubles = Vec::new();
    let mut invocations = Vec::new();
    for active in policies.iter() {
        collect(request, object, active, &mut invocations, &mut troubles).await;
    }
    rounds.begin(KIND, object);
    for invocation in &invocations {
        let before = troubles.len();
        let changed = invoke(request, object, invocation, rounds, &mut troubles).await?;
        if !invocation.active.policy.fails_closed {
            troubles.truncate(before);
        }
        if changed {
            rounds.changed();
        }
        if invocation.active.policy.reinvoked {
            rounds.ran(KIND, key(invocation));
        }
    }
    rounds.end(KIND, object);
    refuse(request, &troubles)
}

async fn collect<'a>(
    request: &Request<'_>,
    object: &Value,
    active: &'a Active<Mutations>,
    invocations: &mut Vec<Invocation<'a>>,
    troubles: &mut Vec<Trouble>,
) {
    let policy = &active.policy;
    let mut misconfigured = |why: String, binding: Option<&Binding>| {
        if !policy.fails_closed {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        let why = format!("failed to configure {what}: {why}");
        let binding = binding.map(|binding| binding.name.clone());
        troubles.push(Trouble { policy: policy.name.clone(), binding, why, invalid: false });
    };
    let resource = match policy.matches(request, object).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return,
        Err(why) => {
            misconfigured(why, None);
            return;
        }
    };
    for binding in &active.bindings {
        match policy.bound(request, object, binding).await {
            Ok(params) => {
                let resource = &resource;
                let each = |params| Invocation { active, binding, resource: resource.clone(), params };
                invocations.extend(params.into_iter().map(each));
            }
            Err(fault) => misconfigured(fault, Some(binding)),
        }
    }
}

/// What a policy is known by from one round to the next.
fn key(invocation: &Invocation<'_>) -> String {
    let metadata = &invocation.params["metadata"];
    json!([invocation.active.policy.name, invocation.binding.name, metadata["namespace"], metadata["name"]]).to_string()
}

/// Whether the object was changed.
async fn invoke(
    request: &Request<'_>,
    object: &mut Value,
    invocation: &Invocation<'_>,
    rounds: &Rounds,
    troubles: &mut Vec<Trouble>,
) -> Result<bool, Status> {
    let Invocation { active, binding, resource, params } = invocation;
    let policy = &active.policy;
    let work = policy.work.get().await?;
    let common = &work.common;
    let trouble =
        |why: String| Trouble { policy: policy.name.clone(), binding: Some(binding.name.clone()), why, invalid: true };
    let namespace = if common.reads_namespace { namespace_object(request).await? } else { Value::Null };
    let (described, mut known) = (describe(request, resource), Known::new(request));
    let given = |seen: &Seen<'_>| -> Inputs<'_> {
        let mut inputs = Inputs::new(&Seen { resource, object: &Value::Null, old: &Value::Null }, &described);
        inputs.object = Cow::Owned(seen.object.clone());
        inputs.old = Cow::Owned(seen.old.clone());
        inputs.namespace = Cow::Borrowed(&namespace);
        inputs.params = Cow::Borrowed(params);
        inputs
    };
    let version = as_version(request, resource, object).await?;
    if !common.conditions.is_empty() {
        match run(request, &common.conditions, &given(&version.borrow(resource)), &mut known).await? {
            Held::All => {}
            Held::NotAll => return Ok(false),
            Held::Unknown(why) => {
                troubles.push(trouble(why));
                return Ok(false);
            }
        }
    }
    if !rounds.may_run(KIND, &key(invocation)) || object.is_null() {
        return Ok(false);
    }
    let mut new = version.object.clone().into_owned();
    for step in &work.steps {
        let seen = Seen { resource, object: &new, old: &version.old };
        let change = run(request, step, &given(&seen), &mut known).await?;
        match change.and_then(|change| step.apply(request, &seen, change)) {
            Ok(changed) => new = changed,
            Err(why) => troubles.push(trouble(why)),
        }
    }
    if new == *version.object {
        return Ok(false);
    }
    *object = back(request, resource, new).await?;
    Ok(true)
}

fn refuse(request: &Request<'_>, troubles: &[Trouble]) -> Result<(), Status> {
    let Some(first) = troubles.first() else { return Ok(()) };
    let mut status = request.forbidden("");
    if first.invalid {
        status.reason = "Invalid";
    }
    let message = |trouble: &Trouble| {
        let Trouble { policy, binding, why, .. } = trouble;
        match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
            None => format!("policy {policy:?} denied request: {why}"),
        }
    };
    status.message = message(first);
    let causes = troubles.iter().map(|trouble| Cause { message: message(trouble), ..Cause::default() });
    status.details.get_or_insert_default().causes.extend(causes);
    Err(status)
}
