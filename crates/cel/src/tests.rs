mod bounds;
mod costs;
mod errors;
mod estimates;
mod soup;
mod values;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::{Bindings, Decl, Env, Evaluation, Program, Type, Value, declare, limits};

/// The declaration of an object with these properties.
fn object(properties: Json) -> Arc<Decl> {
    declare(&json!({"type": "object", "properties": properties}), false, "self").unwrap()
}

fn compile(decl: &Arc<Decl>, source: &str) -> Program {
    let env = Env::new().variable("self", decl.clone()).variable("oldSelf", decl.clone());
    env.compile(source).unwrap_or_else(|issues| panic!("{source}\n{issues}"))
}

/// Runs an expression over an object and hands the outcome to `judge`.
fn run(decl: &Arc<Decl>, object: &Json, source: &str, judge: impl FnOnce(Evaluation<'_>)) {
    let program = compile(decl, source);
    let value = Value::from_json(object, Some(decl)).unwrap();
    judge(program.evaluate(&Bindings::new().with("self", value), limits::PER_CALL_LIMIT));
}

/// `self` is anything.
fn dynamic() -> Arc<Decl> {
    Decl::new(Type::Dyn)
}

fn string() -> Json {
    json!({"type": "string"})
}

fn integer() -> Json {
    json!({"type": "integer"})
}

fn list(items: Json) -> Json {
    json!({"type": "array", "items": items})
}
