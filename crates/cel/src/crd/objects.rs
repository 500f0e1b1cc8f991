//! Rules over objects: on create, update and status update, within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api::status::FieldError;
use serde_json::Value as Json;

use super::correlate::{Correlation, Keyed};
use super::definition::{has_rules, type_name, visible};
use super::{Rule, embedded, is_granular, properties, rules_at, values_schema};
use crate::error::Error;
use crate::limits::{MESSAGE_BYTES, PER_CALL_LIMIT, RUNTIME_BUDGET};
use crate::program::{Bindings, Evaluation};
use crate::schema::{declare, escape};
use crate::types::Decl;
use crate::value::Value;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The compiled rules of a schema.
#[derive(Debug)]
pub struct Rules {
    root: Validator,
}

/// What the rules make of an object.
#[derive(Debug, Default)]
pub struct Verdict {
    pub errors: Vec<FieldError>,
    /// Errors about values that are as they were before, for the client to see.
    pub warnings: Vec<String>,
}

/// The rules at a schema node and below.
#[derive(Debug)]
struct Validator {
    rules: Vec<Rule>,
    decl: Option<Arc<Decl>>,
    /// The node's `type`: errors show it in place of the value.
    shown: String,
    schema: Json,
    granular: bool,
    properties: BTreeMap<String, Validator>,
    additional: Option<Box<Validator>>,
    items: Option<Box<Validator>>,
    all_of: Vec<Validator>,
}

impl Rules {
    /// Compiles the rules of `openAPIV3Schema`; `None` when there are none.
    pub fn compile(schema: &Json) -> Option<Self> {
        Self::at(schema, true)
    }

    pub(super) fn at(schema: &Json, root: bool) -> Option<Self> {
        let decl = declare(schema, root, "selfType");
        let root = Validator::new(schema, schema, decl.as_ref())?;
        Some(Self { root })
    }

    /// Runs the rules over an object that fits its schema. `old` is the object before an update.
    pub fn validate(&self, object: &Json, old: Option<&Json>) -> Verdict {
        let mut budget = i64::try_from(RUNTIME_BUDGET).unwrap_or(i64::MAX);
        self.run("", object, old, true, &mut budget)
    }

    pub(super) fn run(
        &self,
        path: &str,
        object: &Json,
        old: Option<&Json>,
        ratchet: bool,
        budget: &mut i64,
    ) -> Verdict {
        let mut run = Run { budget: *budget, verdict: Verdict::default() };
        let correlation = if ratchet { Correlation::root(object, old) } else { Correlation::default() };
        run.node(&self.root, path, object, old, correlation);
        *budget = run.budget;
        run.verdict
    }
}

impl Validator {
    /// `rules` is where rules are read: the schema node itself, or a part of its `allOf`.
    fn new(rules: &Json, schema: &Json, decl: Option<&Arc<Decl>>) -> Option<Self> {
        if !has_rules(rules) {
            return None;
        }
        let below = |rules: &Json, schema: &Json, known: Option<&Arc<Decl>>| match known {
            Some(decl) => Self::new(rules, schema, Some(decl)),
            // A field whose name no expression can spell has rules of its own nevertheless.
            None if visible(schema) => Self::new(rules, schema, declare(schema, embedded(schema), "selfType").as_ref()),
            None => None,
        };
        let items_decl = decl.and_then(|decl| decl.items.as_ref());
        let compiled = match decl {
            Some(decl) => rules_at(rules).iter().filter_map(|rule| Rule::compile(rule, schema, decl)).collect(),
            None => Vec::new(),
        };
        let named = properties(rules).filter_map(|(name, property)| {
            let node = schema.get("properties")?.get(name)?;
            let known = match escape(name) {
                Some(escaped) => Some(&decl?.field(&escaped)?.decl),
                None => None,
            };
            Some((name.clone(), below(property, node, known)?))
        });
        let all_of = rules.get("allOf").and_then(Json::as_array).into_iter().flatten();
        Some(Self {
            rules: compiled,
            decl: decl.cloned(),
            shown: type_name(schema, decl),
            granular: is_granular(schema),
            properties: named.collect(),
            additional: values_schema(rules)
                .zip(values_schema(schema))
                .and_then(|(rules, schema)| below(rules, schema, items_decl))
                .map(Box::new),
            items: rules
                .get("items")
                .zip(schema.get("items"))
                .and_then(|(rules, schema)| below(rules, schema, items_decl))
                .map(Box::new),
            all_of: all_of.filter_map(|part| Self::new(part, schema, decl)).collect(),
            schema: list_schema(schema),
        })
    }
}

/// What of a schema tells how its items are keyed.
fn list_schema(schema: &Json) -> Json {
    let keys = ["x-kubernetes-list-type", "x-kubernetes-list-map-keys"];
    keys.into_iter()
        .filter_map(|key| Some((key.to_owned(), schema.get(key)?.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// One object's validation.
struct Run {
    /// Below zero, nothing more is run.
    budget: i64,
    verdict: Verdict,
}

impl Run {
    fn node<'a>(
        &mut self,
        node: &'a Validator,
        path: &str,
        object: &'a Json,
        old: Option<&'a Json>,
        correlation: Correlation<'a>,
    ) {
        // Rules about nulls stand at the parent.
        if object.is_null() || self.budget < 0 {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        self.rules(node, path, object, old, correlation);
        for part in &node.all_of {
            self.node(part, path, object, old, correlation.without_current());
        }
        match object {
            Json::Array(items) => {
                let Some(validator) = &node.items else { return };
                let before = Keyed::new(&node.schema, old);
                for (index, item) in items.iter().enumerate() {
                    let counterpart = before.counterpart(item);
                    let correlation = correlation.index(index, counterpart);
                    self.node(validator, &format!("{path}[{index}]"), item, counterpart, correlation);
                }
            }
            Json::Object(map) => {
                for (key, value) in map {
                    let before = if node.granular { old.and_then(|old| old.get(key)) } else { None };
                    if let Some(validator) = &node.additional {
                        self.node(validator, &format!("{path}[{key}]"), value, before, correlation.key(key));
                    }
                    if let Some(validator) = node.properties.get(key) {
                        self.node(validator, &join(path, key), value, before, correlation.key(key));
                    }
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self, error: FieldError) {
        self.verdict.errors.push(error);
        self.budget = -1;
    }

    /// Takes what a run cost; false when the budget is spent.
    fn spend(&mut self, cost: u64) -> bool {
        match i64::try_from(cost) {
            Ok(cost) if cost <= self.budget => {
                self.budget -= cost;
                true
            }
            _ => false,
        }
    }

    fn rules<'a>(
        &mut self,
        node: &'a Validator,
        path: &str,
        object: &'a Json,
        old: Option<&'a Json>,
        correlation: Correlation<'a>,
    ) {
        if node.rules.is_empty() {
            return;
        }
        let invalid = |why: &str| FieldError::invalid(shown_path(path), node.shown.as_str(), why);
        if self.budget <= 0 {
            return self.stop(invalid(OUT_OF_BUDGET));
        }
        let decl = node.decl.as_deref();
        let value = |json: &'a Json| Value::from_json(json, decl);
        for rule in &node.rules {
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    self.verdict.errors.push(invalid(&format!("rule compile error: {why}")));
                    continue;
                }
            };
            if rule.uses_old_self && old.is_none() && !rule.optional_old_self {
                continue;
            }
            let bindings = || -> Result<Bindings<'a>, Error> {
                let mut bindings = Bindings::new().with("self", value(object)?);
                if rule.uses_old_self {
                    let old = old.map(value).transpose()?;
                    bindings = match (old, rule.optional_old_self) {
                        (old, true) => bindings.with("oldSelf", Value::Optional(old.map(Arc::new))),
                        (Some(old), false) => bindings.with("oldSelf", old),
                        (None, false) => bindings,
                    };
                }
                Ok(bindings)
            };
            let bindings = bindings();
            let outcome = match &bindings {
                Ok(bindings) => program.evaluate(bindings, PER_CALL_LIMIT),
                Err(error) => Evaluation { value: Err(error.clone()), cost: 0 },
            };
            if !self.spend(outcome.cost) {
                return self.stop(invalid(OUT_OF_BUDGET));
            }
            match outcome.value {
                Ok(Value::Bool(true)) => continue,
                Ok(_) => {}
                Err(Error::CostLimit) => {
                    let why = format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        Error::CostLimit,
                        rule.shown()
                    );
                    return self.stop(invalid(&why));
                }
                Err(error @ Error::NoSuchOverload) => {
                    let why = format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {}",
                        rule.shown()
                    );
                    self.verdict.errors.push(invalid(&why));
                    continue;
                }
                Err(error) => {
                    self.verdict.errors.push(invalid(&format!("{error} evaluating rule: {}", rule.shown())));
                    continue;
                }
            }
            let at = if rule.field_path.is_empty() { path.to_owned() } else { join(path, &rule.field_path) };
            let mut detail = None;
            let mut fatal = false;
            if let (Some((source, Ok(expression))), Ok(bindings)) = (&rule.message_expression, &bindings) {
                let outcome = expression.evaluate(bindings, PER_CALL_LIMIT);
                let spent = self.spend(outcome.cost);
                match (spent, outcome.value) {
                    (false, _) => {
                        let why = "messageExpression evaluation failed due to running out of cost budget, no further \
                                   validation rules will be run";
                        (detail, fatal) = (Some(why.to_owned()), true);
                    }
                    (true, Err(Error::CostLimit)) => {
                        let why = format!(
                            "no further validation rules will be run due to call cost exceeds limit for \
                             messageExpression: {source:?}"
                        );
                        (detail, fatal) = (Some(why), true);
                    }
                    (true, Ok(value)) => detail = value.as_str().and_then(usable),
                    (true, Err(_)) => {}
                }
            }
            let error = if fatal {
                FieldError::invalid(shown_path(&at), node.shown.as_str(), detail.as_deref().unwrap_or_default())
            } else {
                let detail = detail.unwrap_or_else(|| match rule.message.as_str() {
                    "" => format!("failed rule: {}", rule.source),
                    message => message.to_owned(),
                });
                by_reason(&rule.reason, shown_path(&at), &node.shown, &detail)
            };
            if !rule.uses_old_self && correlation.unchanged() {
                self.verdict.warnings.push(format!("{}: {}", error.field, error.message));
            } else {
                self.verdict.errors.push(error);
            }
            if fatal {
                self.budget = -1;
                return;
            }
        }
    }
}

fn by_reason(reason: &str, path: &str, shown: &str, detail: &str) -> FieldError {
    match reason {
        "FieldValueForbidden" => FieldError::forbidden(path, detail),
        "FieldValueRequired" => FieldError::required(path, detail),
        "FieldValueDuplicate" => FieldError::duplicate(path, shown),
        _ => FieldError::invalid(path, shown, detail),
    }
}

/// A message that may be shown: one line, not empty, not too long.
fn usable(message: &str) -> Option<String> {
    let message = message.trim();
    let fine = !message.is_empty() && message.len() <= MESSAGE_BYTES && !message.contains('\n');
    fine.then(|| message.to_owned())
}

/// The whole object has no path, which upstream shows so.
fn shown_path(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
