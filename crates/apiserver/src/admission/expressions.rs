//! Expressions (CEL) over requests. A run that turns out to be costly is done again away from the threads that serve others;
//! what it asks of the authorizer, which may have to wait for somebody, is found out between runs.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, LazyLock};

use keelson_api::status::Status;
use keelson_cel::admission::{Given, compile, env};
use keelson_cel::limits::{MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT};
use keelson_cel::{
    AuthorizationRequest, Authorizer, Bindings, Decision, Env, Error, Evaluation, Lazy, Program, Type, Value as Cel,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Request;
use super::attributes::{Seen, describe};
use super::lazily::Lazily;
use super::matching::namespace_of;
use crate::UserInfo;
use crate::authz::Attributes;
use crate::metrics::Step;

/// Units of cost (of which a second has some ten million) that are spent where the request is served.
const CHEAP: u64 = 20_000;
/// Costly runs at once.
static COSTLY: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(cores.div_ceil(2)))
});
/// A place among what is costly, once there is one.
pub(super) async fn costly_place() -> Option<OwnedSemaphorePermit> {
    // It is never closed.
    COSTLY.clone().acquire_owned().await.ok()
}

/// Runs until everything is known that is asked of the authorizer.
const ROUNDS: usize = 16;

static ENV: LazyLock<Env> = LazyLock::new(|| env(Given { namespace: true, params: true, authorizer: true }));

/// What upstream says when the budget of all expressions is spent.
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, or why it does not compile.
pub(super) struct Compiled {
    pub(super) source: String,
    program: Result<Program, String>,
}

impl Compiled {
    pub(super) fn new(env: &Env, source: &str, wanted: &[Type]) -> Self {
        Self { source: source.to_owned(), program: compile(env, source, wanted) }
    }

    /// Whether it reads a variable.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses(variable))
    }

    /// Whether it is an expression at all.
    pub(super) fn compiles(&self) -> bool {
        self.program.is_ok()
    }

    /// The type of its values.
    pub(super) fn ty(&self) -> Type {
        self.program.as_ref().map_or(Type::Dyn, |program| program.output_type().clone())
    }
}

/// What expressions may look at.
#[derive(Clone)]
pub(super) struct Inputs<'a> {
    pub(super) object: Cow<'a, Value>,
    pub(super) old: Cow<'a, Value>,
    pub(super) request: Cow<'a, Value>,
    /// Null for none.
    pub(super) namespace: Cow<'a, Value>,
    pub(super) params: Cow<'a, Value>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(seen: &Seen<'a>, request: &'a Value) -> Self {
        let null = || Cow::Owned(Value::Null);
        let (object, old) = (Cow::Borrowed(seen.object), Cow::Borrowed(seen.old));
        Self { object, old, request: Cow::Borrowed(request), namespace: null(), params: null() }
    }

    fn owned(&self) -> Inputs<'static> {
        let own = |value: &Cow<'_, Value>| Cow::Owned(value.clone().into_owned());
        Inputs {
            object: own(&self.object),
            old: own(&self.old),
            request: own(&self.request),
            namespace: own(&self.namespace),
            params: own(&self.params),
        }
    }
}

/// Answers of the authorizer, and what has been asked without one.
#[derive(Default)]
pub(super) struct Known {
    answers: Vec<(AuthorizationRequest, Decision)>,
    missed: Mutex<Vec<AuthorizationRequest>>,
    own: AuthorizationRequest,
}

impl Authorizer for Known {
    fn authorize(&self, request: &AuthorizationRequest) -> Decision {
        if let Some((_, decision)) = self.answers.iter().find(|(known, _)| known == request) {
            return decision.clone();
        }
        self.missed.lock().push(request.clone());
        Decision::default()
    }
}

impl Known {
    /// Nothing is known yet.
    pub(super) fn new(request: &Request<'_>) -> Self {
        let kind = &request.resource.kind;
        let own = AuthorizationRequest {
            group: kind.group.to_string(),
            resource: kind.resource.to_string(),
            subresource: request.subresource.to_owned(),
            namespace: namespace_of(request).to_owned(),
            name: request.name.to_owned(),
            ..AuthorizationRequest::default()
        };
        Self { own, ..Self::default() }
    }

    /// Finds out what was missed; whether there was anything.
    async fn learn(&mut self, request: &Request<'_>) -> bool {
        let missed = std::mem::take(self.missed.get_mut());
        let any = !missed.is_empty();
        for asked in missed {
            let account = asked.service_account.as_ref();
            let other = account.map(|(namespace, name)| UserInfo::service_account(namespace, name, ""));
            let user = other.as_ref().unwrap_or(request.user);
            let decision = request.core.authorizer.decide(user, &attributes(&asked)).await;
            let error = Some(decision.error).filter(|error| !error.is_empty());
            let decision = Decision { allowed: decision.allowed, reason: decision.reason, error };
            self.answers.push((asked, decision));
        }
        any
    }
}

fn attributes(asked: &AuthorizationRequest) -> Attributes {
    let AuthorizationRequest { path, verb, group, resource, subresource, namespace, name, .. } = asked;
    if let Some(path) = path {
        return Attributes { verb: verb.clone(), path: path.clone(), ..Attributes::default() };
    }
    let fields = keelson_api::selector::FieldSelector::parse(&asked.field_selector).unwrap_or_default().requirements;
    Attributes { subresource: subresource.clone(), fields, ..Attributes::on(verb, group, resource, namespace, name) }
}

/// The budget of all expressions is spent.
pub(super) struct OutOfBudget;

impl std::fmt::Display for OutOfBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(OUT_OF_BUDGET)
    }
}

/// One run over a set of expressions.
pub(super) struct Run<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    known: &'a Known,
    /// Units left before the run is costly.
    cheap: Cell<Option<u64>>,
    costly: Cell<bool>,
}

impl<'a> Run<'a> {
    /// Evaluates an expression, which takes its cost from the budget; the error is upstream's.
    pub(super) fn evaluate(
        &self,
        compiled: &'a Compiled,
        variables: Option<&'a Variables<'a>>,
        budget: &mut u64,
    ) -> Result<Result<Cel<'a>, String>, OutOfBudget> {
        let (value, cost) = self.spend(compiled, variables);
        if cost > *budget {
            *budget = 0;
            return Err(OutOfBudget);
        }
        *budget -= cost;
        Ok(value)
    }

    /// The value, and what it cost.
    fn spend(&self, compiled: &'a Compiled, variables: Option<&'a Variables<'a>>) -> (Result<Cel<'a>, String>, u64) {
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return (Err(format!("compilation error: {why}")), 0),
        };
        let decl = |name: &str| ENV.lookup(name).map(|decl| &**decl);
        let value = |json: &'a Value, decl| Cel::from_json(json, decl).unwrap_or(Cel::Null);
        let inputs = self.inputs;
        let mut bindings = Bindings::new()
            .with("object", value(&inputs.object, None))
            .with("oldObject", value(&inputs.old, None))
            .with("request", value(&inputs.request, decl("request")))
            .with("namespaceObject", value(&inputs.namespace, decl("namespaceObject")))
            .with("params", value(&inputs.params, None))
            .with("authorizer", Cel::authorizer(self.known))
            .with("authorizer.requestResource", Cel::resource_check(self.known, self.known.own.clone()));
        if let Some(variables) = variables {
            bindings = bindings.lazy("variables", variables);
        }
        let limit = self.cheap.get().map_or(PER_CALL_LIMIT, |cheap| cheap.min(PER_CALL_LIMIT));
        let run = program.evaluate(&bindings, limit);
        if let Some(cheap) = self.cheap.get() {
            self.cheap.set(Some(cheap.saturating_sub(run.cost)));
            if limit < PER_CALL_LIMIT && matches!(run.value, Err(Error::CostLimit)) {
                self.costly.set(true);
            }
        }
        let failed = |error| format!("expression '{}' resulted in error: {error}", compiled.source);
        (run.value.map_err(failed), run.cost)
    }
}

/// A variable of a policy.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) expression: Compiled,
}

/// The variables of a policy in one run, each evaluated when it is first asked for.
pub(super) struct Variables<'a> {
    run: &'a Run<'a>,
    list: &'a [Variable],
    values: Vec<RefCell<Option<Result<Cel<'a>, Error>>>>,
    /// These themselves: variables may name those before them.
    own: Cell<Option<&'a Variables<'a>>>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(run: &'a Run<'a>, list: &'a [Variable]) -> Self {
        Self { run, list, values: list.iter().map(|_| RefCell::default()).collect(), own: Cell::new(None) }
    }

    /// Lets them name each other.
    pub(super) fn tie(&'a self) -> &'a Self {
        self.own.set(Some(self));
        self
    }
}

impl<'a> Lazy<'a> for Variables<'a> {
    fn field(&self, name: &str) -> Option<Evaluation<'a>> {
        let index = self.list.iter().position(|variable| variable.name == name)?;
        let (variable, slot) = (self.list.get(index)?, self.values.get(index)?);
        if let Some(value) = &*slot.borrow() {
            return Some(Evaluation { value: value.clone(), cost: 0 });
        }
        let (value, cost) = self.run.spend(&variable.expression, self.own.get());
        let failed = |why| Error::Other(format!("composited variable {name:?} fails to evaluate: {why}").into());
        let value = value.map_err(failed);
        *slot.borrow_mut() = Some(value.clone());
        Some(Evaluation { value, cost })
    }
}

/// A set of expressions and what is made of their values.
pub(super) trait Judge: Send + Sync + 'static {
    type Outcome: Send + 'static;

    fn judge<'a>(&'a self, run: &'a Run<'a>) -> Self::Outcome;
}

/// Runs a judge's expressions.
pub(super) async fn run<J: Judge>(
    request: &Request<'_>,
    judge: &Arc<J>,
    inputs: &Inputs<'_>,
    known: &mut Known,
) -> Result<J::Outcome, Status> {
    for _ in 0..ROUNDS {
        let outcome = match cheaply(&**judge, inputs, known) {
            Some(outcome) => outcome,
            None => costly(judge.clone(), inputs.owned(), known).await?,
        };
        if !known.learn(request).await {
            return Ok(outcome);
        }
    }
    Err(Status::internal("expressions ask the authorizer without end"))
}

fn cheaply<J: Judge>(judge: &J, inputs: &Inputs<'_>, known: &Known) -> Option<J::Outcome> {
    let run = Run { inputs, known, cheap: Cell::new(Some(CHEAP)), costly: Cell::new(false) };
    let outcome = judge.judge(&run);
    (!run.costly.get()).then_some(outcome)
}

async fn costly<J: Judge>(judge: Arc<J>, inputs: Inputs<'static>, known: &mut Known) -> Result<J::Outcome, Status> {
    let place = costly_place().await;
    let given = std::mem::take(known);
    let work = move || {
        // Who asked may go away; the run goes on and keeps its place.
        let _place = place;
        let run = Run { inputs: &inputs, known: &given, cheap: Cell::new(None), costly: Cell::new(false) };
        let outcome = judge.judge(&run);
        (outcome, given)
    };
    let (outcome, given) = tokio::task::spawn_blocking(work).await.map_err(Status::internal)?;
    *known = given;
    Ok(outcome)
}

/// The match conditions of a webhook or policy.
pub(super) struct Conditions {
    list: Vec<Compiled>,
}

/// What conditions come to.
pub(super) enum Held {
    All,
    /// One does not hold.
    NotAll,
    /// None fails to hold, but some could not be told.
    Unknown(String),
}

impl Conditions {
    /// Nothing for a webhook without any.
    pub(super) fn of_webhook(webhook: &Value) -> Option<Lazily<Self>> {
        let conditions = webhook["matchConditions"].as_array().filter(|conditions| !conditions.is_empty())?;
        let holder = json!({"matchConditions": conditions});
        Some(Lazily::new(move || Self::new(&env(Given { authorizer: true, ..Given::default() }), &holder)))
    }

    pub(super) fn new(env: &Env, holder: &Value) -> Self {
        let conditions = holder["matchConditions"].as_array().into_iter().flatten();
        let source = |condition: &Value| condition["expression"].as_str().unwrap_or_default().to_owned();
        Self { list: conditions.map(|c| Compiled::new(env, &source(c), &[Type::Bool])).collect() }
    }

    /// Whether a webhook is to be asked, which fails closed or open where that cannot be told.
    pub(super) async fn hold(
        self: &Arc<Self>,
        request: &Request<'_>,
        seen: &Seen<'_>,
        (webhook, step): (&str, Step),
        fails_closed: bool,
    ) -> Result<bool, Status> {
        let described = describe(request, seen.resource);
        let inputs = Inputs::new(seen, &described);
        let held = run(request, self, &inputs, &mut Known::new(request)).await?;
        if !matches!(held, Held::All) {
            let (metrics, failed) = (&request.core.metrics.admission, matches!(held, Held::Unknown(_)));
            metrics.condition(webhook, "webhook", step, request.operation, failed);
        }
        match held {
            Held::All => Ok(true),
            Held::NotAll => Ok(false),
            Held::Unknown(why) if fails_closed => Err(request.forbidden(&why)),
            Held::Unknown(_) => Ok(false),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What they come to in a run.
    pub(super) fn judged<'a>(&'a self, run: &'a Run<'a>) -> Held {
        let mut budget = MATCH_CONDITIONS_BUDGET;
        let mut errors = Vec::new();
        for condition in &self.list {
            match run.evaluate(condition, None, &mut budget) {
                Err(out) => return Held::Unknown(out.to_string()),
                Ok(Err(why)) => errors.push(why),
                Ok(Ok(value)) if value.as_bool() == Some(false) => return Held::NotAll,
                Ok(Ok(_)) => {}
            }
        }
        match errors.as_slice() {
            [] => Held::All,
            [one] => Held::Unknown(one.clone()),
            many => Held::Unknown(format!("[{}]", many.join(", "))),
        }
    }
}

impl Judge for Conditions {
    type Outcome = Held;

    fn judge<'a>(&'a self, run: &'a Run<'a>) -> Held {
        self.judged(run)
    }
}
