//! `x-kubernetes-validations`: the rules in the schemas of CustomResourceDefinitions, checked when a definition is written
//! ([`check`]) and run over its objects ([`Rules`]).

mod correlate;
mod definition;
mod objects;
mod path;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value as Json;

pub use definition::check;
pub use objects::{Rules, Verdict};

use crate::env::Env;
use crate::program::Program;
use crate::types::{Decl, Type};

/// A compiled rule.
#[derive(Debug)]
struct Rule {
    /// Trimmed.
    source: String,
    message: String,
    /// Fails when the expression does.
    program: Result<Program, String>,
    /// With its source.
    message_expression: Option<(String, Result<Program, String>)>,
    reason: String,
    /// Below the node that the rule stands at.
    field_path: String,
    optional_old_self: bool,
    uses_old_self: bool,
}

impl Rule {
    /// Compiles one item of `x-kubernetes-validations`; `None` when it has no expression.
    fn compile(rule: &Json, schema: &Json, decl: &Arc<Decl>) -> Option<Self> {
        let text = |key: &str| rule.get(key).and_then(Json::as_str).unwrap_or_default();
        let source = text("rule").trim();
        if source.is_empty() {
            return None;
        }
        let optional_old_self = rule.get("optionalOldSelf").and_then(Json::as_bool).unwrap_or(false);
        let old = if optional_old_self {
            Arc::new(Decl { ty: Type::optional(decl.ty.clone()), ..(**decl).clone() })
        } else {
            decl.clone()
        };
        let env = Env::new().variable("self", decl.clone()).variable("oldSelf", old);
        let program =
            env.compile(text("rule")).map_err(|issues| format!("compilation failed: {issues}")).and_then(|program| {
                match program.output_type() {
                    Type::Bool => Ok(program),
                    _ => Err("cel expression must evaluate to a bool".into()),
                }
            });
        let uses_old_self = program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
        let expression = text("messageExpression").trim();
        let message_expression = (!expression.is_empty()).then(|| {
            let env = if uses_old_self { env } else { Env::new().variable("self", decl.clone()) };
            let compiled = env
                .compile(text("messageExpression"))
                .map_err(|issues| format!("messageExpression compilation failed: {issues}"))
                .and_then(|program| match program.output_type() {
                    Type::String => Ok(program),
                    _ => Err("messageExpression must evaluate to a string".into()),
                });
            (expression.to_owned(), compiled)
        });
        Some(Self {
            source: source.to_owned(),
            message: text("message").trim().to_owned(),
            program,
            message_expression,
            reason: text("reason").to_owned(),
            field_path: path::normalize(text("fieldPath").trim(), schema).unwrap_or_default(),
            optional_old_self,
            uses_old_self,
        })
    }

    /// What errors call the rule.
    fn shown(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }
}

/// The rules that stand at a schema node.
fn rules_at(schema: &Json) -> &[Json] {
    schema.get("x-kubernetes-validations").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or(false)
}

fn embedded(schema: &Json) -> bool {
    flag(schema, "x-kubernetes-embedded-resource")
}

fn is_keyed_list(schema: &Json) -> bool {
    schema.get("x-kubernetes-list-type").and_then(Json::as_str) == Some("map")
}

/// Whether values below a map can be told to be the same as before.
fn is_granular(schema: &Json) -> bool {
    schema.get("x-kubernetes-map-type").and_then(Json::as_str) != Some("atomic")
}

/// The schema of a map's values.
fn values_schema(schema: &Json) -> Option<&Json> {
    schema.get("additionalProperties").filter(|values| values.is_object())
}

fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema.get("properties").and_then(Json::as_object).into_iter().flatten()
}
