//! Match conditions of webhooks that authorize: expressions over the spec of the SubjectAccessReview, as `request`. The
//! webhook is asked when all of them are true.

use std::sync::{Arc, LazyLock};

use keelson_api::schema;
use keelson_cel::limits::PER_CALL_LIMIT;
use keelson_cel::{Bindings, Decl, Env, Field, Object, Program, Type, Value, admission, declare_builtin};
use serde_json::{Map, Value as Json};

const SPEC: &str = "io.k8s.api.authorization.v1.SubjectAccessReviewSpec";

static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    schema::builtin(SPEC).map_or_else(|| Decl::new(Type::Dyn), |spec| unescaped(&declare_builtin(spec)))
});

/// The declaration with fields by their own names (`namespace`), as upstream has them here.
fn unescaped(decl: &Decl) -> Arc<Decl> {
    let mut plain = decl.clone();
    if let Type::Object(object) = &decl.ty {
        let fields = object.fields.values().map(|field| {
            let decl = unescaped(&field.decl);
            (field.key.clone(), Field { key: field.key.clone(), decl })
        });
        plain.ty = Type::Object(Arc::new(Object { name: object.name.clone(), fields: fields.collect() }));
    }
    Arc::new(plain)
}

/// One condition.
pub(super) struct Condition {
    source: String,
    program: Program,
}

impl Condition {
    /// The error says why the expression is none.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let env = Env::new().variable("request", REQUEST.clone());
        let program = admission::compile(&env, source, &[Type::Bool])?;
        Ok(Self { source: source.to_owned(), program })
    }
}

/// The spec as expressions see it: what is empty is there all the same.
fn filled(spec: &Json) -> Json {
    let mut spec = spec.clone();
    let fill = |map: &mut Map<String, Json>, fields: &[&str], empty: Json| {
        for field in fields {
            map.entry(*field).or_insert_with(|| empty.clone());
        }
    };
    if let Some(map) = spec.as_object_mut() {
        fill(map, &["uid"], "".into());
        fill(map, &["groups"], Json::Array(Vec::new()));
        fill(map, &["extra"], Json::Object(Map::new()));
    }
    if let Some(map) = spec.get_mut("resourceAttributes").and_then(Json::as_object_mut) {
        fill(map, &["namespace", "verb", "group", "version", "resource", "subresource", "name"], "".into());
    }
    spec
}

/// Whether all conditions hold of the review's spec. One that is false decides; otherwise one that fails is an error.
pub(super) fn all_hold(conditions: &[Condition], spec: &Json) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(true);
    }
    let (spec, mut errors) = (filled(spec), Vec::new());
    for Condition { source, program } in conditions {
        let request = Value::from_json(&spec, Some(&REQUEST)).map_err(|error| error.to_string())?;
        let bindings = Bindings::new().with("request", request);
        match program.evaluate(&bindings, PER_CALL_LIMIT).value.map(|value| value.as_bool()) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => return Ok(false),
            Ok(None) => {
                errors.push(format!("cel evaluation error: expression '{source}' eval result value should be bool"))
            }
            Err(error) => {
                errors.push(format!("cel evaluation error: expression '{source}' resulted in error: {error}"))
            }
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}
