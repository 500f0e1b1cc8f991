//! Admission policies: what is to be checked or changed, in expressions, and the bindings that put it to work. Expressions are
//! compiled once for each version of a policy, when the first request comes that it is about.

mod mutating;
mod params;
pub(crate) mod typecheck;
mod validating;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keelson_api::status::Status;
use keelson_cel::Env;
use keelson_cel::admission::{Given, env, with_variables};
use serde_json::Value;

use super::Request;
use super::expressions::{Compiled, Conditions, Variable};
use super::lazily::Lazily;
use super::matching::{Matching, find_namespace};
use crate::registry::Resource;
use crate::subresource::is_namespace;

pub(super) use mutating::{Mutations, mutate};
use params::{ParamKind, ParamRef};
pub(super) use validating::{Validations, validate};

/// A policy, ready to run.
pub(super) struct Policy<E> {
    name: String,
    /// `failurePolicy: Fail`
    fails_closed: bool,
    /// `None`: upstream lets nobody write such a policy.
    matching: Option<Matching>,
    params: Option<ParamKind>,
    /// `reinvocationPolicy: IfNeeded`
    reinvoked: bool,
    work: Lazily<E>,
}

/// What puts a policy to work.
pub(super) struct Binding {
    name: String,
    policy: String,
    matching: Option<Matching>,
    params: Option<ParamRef>,
    /// `validationActions`
    actions: Vec<String>,
}

impl Binding {
    fn new(name: &str, spec: &Value) -> Self {
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        Self {
            name: name.to_owned(),
            policy: spec["policyName"].as_str().unwrap_or_default().to_owned(),
            matching: Some(&spec["matchResources"]).filter(|m| !m.is_null()).map(Matching::of_policy),
            params: ParamRef::new(&spec["paramRef"]),
            actions: actions.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

/// The expressions that policies of both kinds have.
pub(super) struct Common {
    conditions: Arc<Conditions>,
    variables: Arc<[Variable]>,
    /// Some expression reads `namespaceObject`.
    reads_namespace: bool,
}

/// What a policy does.
pub(super) trait Work: Send + Sync + Sized + 'static {
    /// `rules` is the environment of its expressions, with the policy's variables; `messages` is that of what is only shown.
    fn new(spec: &Value, common: Common, rules: &Env, messages: &Env) -> Self;
}

impl<E: Work> Policy<E> {
    fn new(name: &str, spec: &Value) -> Self {
        let params = ParamKind::new(&spec["paramKind"]);
        let has_params = params.is_some();
        let source = spec.clone();
        Self {
            name: name.to_owned(),
            fails_closed: spec["failurePolicy"] != "Ignore",
            matching: Some(&spec["matchConstraints"]).filter(|m| !m.is_null()).map(Matching::of_policy),
            params,
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            work: Lazily::new(move || compile(&source, has_params)),
        }
    }
}

/// Compiles all expressions of a policy.
fn compile<E: Work>(spec: &Value, params: bool) -> E {
    let full = Given { params, authorizer: true, namespace: true };
    let conditions = Arc::new(Conditions::new(&env(Given { namespace: false, ..full }), spec));
    let mut types = Vec::new();
    let mut variables = Vec::new();
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let text = |key: &str| variable[key].as_str().unwrap_or_default();
        let expression = Compiled::new(&with_variables(env(full), &types), text("expression"), &[]);
        types.push((text("name").to_owned(), expression.ty()));
        variables.push(Variable { name: text("name").to_owned(), expression });
    }
    let reads_namespace = variables.iter().any(|variable| variable.expression.uses("namespaceObject"));
    let rules = with_variables(env(full), &types);
    let messages = with_variables(env(Given { authorizer: false, ..full }), &types);
    let common = Common { conditions, variables: variables.into(), reads_namespace };
    E::new(spec, common, &rules, &messages)
}

/// A policy that is put to work, with what does that.
pub(super) struct Active<E> {
    policy: Arc<Policy<E>>,
    bindings: Vec<Arc<Binding>>,
}

impl<E> Active<E> {
    /// Whether its rules are about a request.
    pub(super) fn concerns(&self, request: &Request<'_>) -> bool {
        self.policy.matching.as_ref().is_none_or(|matching| matching.by_rules(request).is_some())
    }
}

/// Policies and bindings of one kind.
pub(super) struct Policies<E> {
    policies: BTreeMap<String, Arc<Policy<E>>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

impl<E> Default for Policies<E> {
    fn default() -> Self {
        Self { policies: BTreeMap::new(), bindings: BTreeMap::new() }
    }
}

impl<E: Work> Policies<E> {
    pub(super) fn set_policy(&mut self, name: &str, object: Option<&Value>) {
        match object {
            Some(object) => self.policies.insert(name.to_owned(), Arc::new(Policy::new(name, &object["spec"]))),
            None => self.policies.remove(name),
        };
    }

    pub(super) fn set_binding(&mut self, name: &str, object: Option<&Value>) {
        match object {
            Some(object) => self.bindings.insert(name.to_owned(), Arc::new(Binding::new(name, &object["spec"]))),
            None => self.bindings.remove(name),
        };
    }

    /// Those that are put to work, in the order of their names.
    pub(super) fn list(&self) -> Vec<Active<E>> {
        let mut by_policy: HashMap<&str, Vec<Arc<Binding>>> = HashMap::new();
        for binding in self.bindings.values() {
            by_policy.entry(&binding.policy).or_default().push(binding.clone());
        }
        let active = self.policies.iter().filter_map(|(name, policy)| {
            Some(Active { policy: policy.clone(), bindings: by_policy.remove(name.as_str())? })
        });
        active.collect()
    }
}

impl<E> Policy<E> {
    /// The resource as which the policy knows a request, if it is about it at all. Where it cannot tell, its failure policy
    /// decides.
    async fn matches(&self, request: &Request<'_>, object: &Value) -> Result<Option<Resource>, String> {
        let Some(matching) = &self.matching else {
            return Err("policy contained no match constraints, a required field".into());
        };
        matching.find(request, object).await.map_err(|status| status.message)
    }

    /// The parameters to run it with by a binding: null for none. Nothing when the binding is not about the request.
    async fn bound(&self, request: &Request<'_>, object: &Value, binding: &Binding) -> Result<Vec<Value>, String> {
        if let Some(matching) = &binding.matching {
            let found = matching.find(request, object).await.map_err(|status| status.message)?;
            if found.is_none() {
                return Ok(Vec::new());
            }
        }
        params::collect(request, self.params.as_ref(), binding.params.as_ref()).await
    }
}

/// The namespace that a request is in, for expressions; null for none.
async fn namespace_object(request: &Request<'_>) -> Result<Value, Status> {
    if request.namespace.is_empty() || is_namespace(request.resource) {
        return Ok(Value::Null);
    }
    find_namespace(request, request.namespace).await?.decode()
}

/// Resources whose requests ask about access: policies would go round in circles.
pub(super) fn is_excluded(request: &Request<'_>) -> bool {
    let kind = &request.resource.kind;
    matches!(
        (kind.group.as_ref(), kind.resource.as_ref()),
        ("authentication.k8s.io", "selfsubjectreviews" | "tokenreviews")
            | (
                "authorization.k8s.io",
                "localsubjectaccessreviews"
                    | "selfsubjectaccessreviews"
                    | "selfsubjectrulesreviews"
                    | "subjectaccessreviews"
            )
    )
}
