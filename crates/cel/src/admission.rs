//! Expressions about requests and devices: what webhooks' match conditions, admission policies and device selectors may
//! name, and the checks of those when they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api::status::FieldError;
use serde_json::Value as Json;

use crate::env::Env;
use crate::limits::PER_CALL_LIMIT;
use crate::program::Program;
use crate::types::{Decl, Field, Object, OpaqueType, Type};

/// What an expression about a request may name beside `object`, `oldObject` and `request`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// `namespaceObject`
    pub namespace: bool,
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
}

/// The environment of expressions about a request.
pub fn env(given: Given) -> Env {
    let mut env = Env::new()
        .variable("object", Decl::new(Type::Dyn))
        .variable("oldObject", Decl::new(Type::Dyn))
        .variable("request", request());
    if given.namespace {
        env = env.variable("namespaceObject", namespace());
    }
    if given.params {
        env = env.variable("params", Decl::new(Type::Dyn));
    }
    if given.authorizer {
        env = env
            .variable("authorizer", Decl::new(Type::Opaque(OpaqueType::Authorizer)))
            .variable("authorizer.requestResource", Decl::new(Type::Opaque(OpaqueType::ResourceCheck)));
    }
    env
}

/// The environment of device selectors.
pub fn device_env() -> Env {
    // The most attributes and capacities of a device, and the longest name of a driver or domain.
    const ENTRIES: u64 = 32;
    const NAME: u64 = 64;
    let by_name = |values: Arc<Decl>| {
        let mut map = Decl::sized(Type::map(Type::String, values.ty.clone()), ENTRIES, 2);
        map.items = Some(values);
        Arc::new(map)
    };
    let quantity = Arc::new(Decl::sized(Type::Opaque(OpaqueType::Quantity), 0, 0));
    let device = object(
        "kubernetes.DRADevice",
        [
            ("driver", Arc::new(Decl::sized(Type::String, NAME, 2))),
            ("allowMultipleAllocations", Decl::new(Type::Bool)),
            ("attributes", by_name(by_name(Arc::new(Decl::sized(Type::Dyn, NAME, 1))))),
            ("capacity", by_name(by_name(quantity))),
        ],
    );
    Env::new().variable("device", device).bindings()
}

fn object<const N: usize>(name: &str, fields: [(&str, Arc<Decl>); N]) -> Arc<Decl> {
    let fields: BTreeMap<String, Field> =
        fields.into_iter().map(|(key, decl)| (key.to_owned(), Field { key: key.to_owned(), decl })).collect();
    Arc::new(Decl::sized(Type::Object(Arc::new(Object { name: name.to_owned(), fields })), 0, 2))
}

fn of(ty: Type) -> Arc<Decl> {
    Decl::new(ty)
}

fn list_of(items: Type) -> Arc<Decl> {
    let mut list = Decl::sized(Type::list(items.clone()), u64::MAX, 2);
    list.items = Some(of(items));
    Arc::new(list)
}

fn map_of(values: Arc<Decl>) -> Arc<Decl> {
    let mut map = Decl::sized(Type::map(Type::String, values.ty.clone()), u64::MAX, 2);
    map.items = Some(values);
    Arc::new(map)
}

/// `UserInfo`
pub(crate) fn user() -> Arc<Decl> {
    let text = || of(Type::String);
    object(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", list_of(Type::String)),
            ("extra", map_of(list_of(Type::String))),
        ],
    )
}

/// `AdmissionRequest`, without its objects.
fn request() -> Arc<Decl> {
    let text = || of(Type::String);
    let kind = || object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource =
        || object("kubernetes.GroupVersionResource", [("group", text()), ("version", text()), ("resource", text())]);
    object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user()),
            ("dryRun", of(Type::Bool)),
            ("options", of(Type::Dyn)),
        ],
    )
}

/// `Namespace`, as far as expressions see it.
fn namespace() -> Arc<Decl> {
    let text = || of(Type::String);
    let labels = || map_of(of(Type::String));
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", text()),
            ("creationTimestamp", of(Type::Timestamp)),
            ("deletionGracePeriodSeconds", of(Type::Int)),
            ("deletionTimestamp", of(Type::Timestamp)),
            ("generation", of(Type::Int)),
            ("resourceVersion", text()),
            ("finalizers", list_of(Type::String)),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", [("finalizers", list_of(Type::String))]);
    let status = object("kubernetes.NamespaceStatus", [("phase", text())]);
    object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// Compiles an expression that must give one of some types; without any, it may give what it likes.
///
/// # Errors
/// Why not, in upstream's words.
pub fn compile(env: &Env, source: &str, wanted: &[Type]) -> Result<Program, String> {
    let program = env.compile(source).map_err(|issues| format!("compilation failed: {issues}"))?;
    if wanted.is_empty() || wanted.contains(program.output_type()) {
        return Ok(program);
    }
    Err(match wanted {
        [one] => format!("must evaluate to {}", one.runtime_name()),
        many => {
            let names: Vec<String> = many.iter().map(Type::runtime_name).collect();
            format!("must evaluate to one of [{}]", names.join(" "))
        }
    })
}

fn text<'j>(value: &'j Json, key: &str) -> &'j str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn items<'j>(value: &'j Json, key: &str) -> impl Iterator<Item = (usize, &'j Json)> {
    value.get(key).and_then(Json::as_array).into_iter().flatten().enumerate()
}

/// Checks the expression under `key`, if there is one.
fn check(
    env: &Env,
    holder: &Json,
    path: &str,
    key: &str,
    wanted: &[Type],
    errors: &mut Vec<FieldError>,
) -> Option<Program> {
    let source = text(holder, key);
    if source.trim().is_empty() {
        return None;
    }
    match compile(env, source, wanted) {
        Ok(program) => Some(program),
        Err(why) => {
            errors.push(FieldError::invalid(format!("{path}.{key}"), source, &why));
            None
        }
    }
}

fn check_conditions(env: &Env, holder: &Json, path: &str, errors: &mut Vec<FieldError>) {
    for (index, condition) in items(holder, "matchConditions") {
        let path = format!("{path}matchConditions[{index}]");
        check(env, condition, &path, "expression", &[Type::Bool], errors);
    }
}

/// Checks the match conditions of a webhook configuration.
pub fn check_webhooks(configuration: &Json) -> Vec<FieldError> {
    let env = env(Given { authorizer: true, ..Given::default() });
    let mut errors = Vec::new();
    for (index, webhook) in items(configuration, "webhooks") {
        check_conditions(&env, webhook, &format!("webhooks[{index}]."), &mut errors);
    }
    errors
}

/// The environment of a policy's expressions, in which `variables` has the fields that were declared so far.
pub fn with_variables(env: Env, variables: &[(String, Type)]) -> Env {
    let fields =
        variables.iter().map(|(name, ty)| (name.clone(), Field { key: name.clone(), decl: Decl::new(ty.clone()) }));
    let object = Object { name: "kubernetes.variables".to_owned(), fields: fields.collect() };
    env.variable("variables", Decl::new(Type::Object(Arc::new(object))))
}

/// The environment of what a mutating policy changes, from that of its other expressions: with the objects and patches that
/// it makes.
pub fn mutation_env(env: Env) -> Env {
    let text = || of(Type::String);
    let fields = [("op", text()), ("path", text()), ("from", text()), ("value", of(Type::Dyn))];
    let fields = fields.into_iter().map(|(key, decl)| (key.to_owned(), Field { key: key.to_owned(), decl }));
    let patch = Object { name: PATCH.to_owned(), fields: fields.collect() };
    env.open_objects().json_patch().structure(Arc::new(patch))
}

const PATCH: &str = "JSONPatch";

/// What a mutation of this type (`ApplyConfiguration`, `JSONPatch`) gives.
pub fn mutation_type(patch_type: &str) -> Type {
    let object = |name: &str| Type::Object(Arc::new(Object { name: name.to_owned(), ..Object::default() }));
    if patch_type == PATCH { Type::list(object(PATCH)) } else { object("Object") }
}

/// Checks the expressions of a `MutatingAdmissionPolicy`.
pub fn check_mutations(policy: &Json) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = policy.get("spec") else { return errors };
    let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
    let conditions = env(Given { params, authorizer: true, namespace: false });
    check_conditions(&conditions, spec, "spec.", &mut errors);
    let full = Given { params, authorizer: true, namespace: true };
    let variables = check_variables(full, spec, &mut errors);
    let env = mutation_env(with_variables(env(full), &variables));
    for (index, mutation) in items(spec, "mutations") {
        for (field, patch_type) in [("applyConfiguration", "ApplyConfiguration"), ("jsonPatch", PATCH)] {
            if let Some(holder) = mutation.get(field) {
                let path = format!("spec.mutations[{index}].{field}");
                check(&env, holder, &path, "expression", &[mutation_type(patch_type)], &mut errors);
            }
        }
    }
    errors
}

/// Checks the variables of a policy; their names and types.
fn check_variables(full: Given, spec: &Json, errors: &mut Vec<FieldError>) -> Vec<(String, Type)> {
    let mut variables: Vec<(String, Type)> = Vec::new();
    for (index, variable) in items(spec, "variables") {
        let env = with_variables(env(full), &variables);
        let compiled = check(&env, variable, &format!("spec.variables[{index}]"), "expression", &[], errors);
        // One that does not compile is declared all the same: its uses are not to blame.
        let ty = compiled.map_or(Type::Dyn, |program| program.output_type().clone());
        variables.push((text(variable, "name").to_owned(), ty));
    }
    variables
}

/// Checks the expressions of a `ValidatingAdmissionPolicy`.
pub fn check_policy(policy: &Json) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = policy.get("spec") else { return errors };
    let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
    let conditions = env(Given { params, authorizer: true, namespace: false });
    check_conditions(&conditions, spec, "spec.", &mut errors);
    let full = Given { params, authorizer: true, namespace: true };
    let variables = check_variables(full, spec, &mut errors);
    let rules = with_variables(env(full), &variables);
    let messages = with_variables(env(Given { authorizer: false, ..full }), &variables);
    for (index, validation) in items(spec, "validations") {
        let path = format!("spec.validations[{index}]");
        check(&rules, validation, &path, "expression", &[Type::Bool], &mut errors);
        check(&messages, validation, &path, "messageExpression", &[Type::String], &mut errors);
    }
    for (index, annotation) in items(spec, "auditAnnotations") {
        let path = format!("spec.auditAnnotations[{index}]");
        check(&rules, annotation, &path, "valueExpression", &[Type::String, Type::Null], &mut errors);
    }
    errors
}

/// A kind that a policy is about: `apps/v1, Kind=Deployment`, and its type.
pub struct Typed {
    pub name: String,
    pub decl: Arc<Decl>,
}

/// What a policy's validations would not find in the kinds that it is about: the expression's place, and upstream's words.
pub fn type_check(spec: &Json, kinds: &[Typed], params: Option<Arc<Decl>>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, validation) in items(spec, "validations") {
        for key in ["expression", "messageExpression"] {
            let source = text(validation, key);
            if source.is_empty() {
                continue;
            }
            let issues: Vec<String> = kinds
                .iter()
                .filter_map(|kind| {
                    let issues = typed_env(spec, kind, params.as_ref()).compile(source).err()?;
                    Some(format!("{}: {issues}\n", kind.name))
                })
                .collect();
            if !issues.is_empty() {
                found.push((format!("spec.validations[{index}].{key}"), issues.join("\n")));
            }
        }
    }
    found
}

/// The environment of a policy's validations for objects of one kind.
fn typed_env(spec: &Json, kind: &Typed, params: Option<&Arc<Decl>>) -> Env {
    let declared = || {
        let given = Given { params: params.is_some(), authorizer: true, namespace: true };
        let mut env = env(given).variable("object", kind.decl.clone()).variable("oldObject", kind.decl.clone());
        if let Some(params) = params {
            env = env.variable("params", params.clone());
        }
        env
    };
    let mut variables: Vec<(String, Type)> = Vec::new();
    for (_, variable) in items(spec, "variables") {
        let compiled = with_variables(declared(), &variables).compile(text(variable, "expression"));
        let ty = compiled.map_or(Type::Dyn, |program| program.output_type().clone());
        variables.push((text(variable, "name").to_owned(), ty));
    }
    with_variables(declared(), &variables)
}

/// Checks the device selectors (`cel.expression`) anywhere in an object.
pub fn check_selectors(object: &Json) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(spec) = object.get("spec") {
        selectors(&device_env(), spec, "spec", &mut errors);
    }
    errors
}

fn selectors(env: &Env, value: &Json, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Json::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if key == "cel" && value.get("expression").is_some_and(Json::is_string) {
                    let program = check(env, value, &path, "expression", &[Type::Bool], errors);
                    if program.is_some_and(|program| program.estimated_cost().max > PER_CALL_LIMIT) {
                        let why = "too complex, exceeds cost limit";
                        errors.push(FieldError::forbidden(format!("{path}.expression"), why));
                    }
                } else {
                    selectors(env, value, &path, errors);
                }
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                selectors(env, item, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{AuthorizationRequest, Authorizer, Bindings, Decision, Lazy, Value};

    fn shown(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn policies() {
        let policy = json!({"spec": {
            "matchConditions": [{"name": "a", "expression": "request.userInfo.username != 'x' && request.operation == 'CREATE'"}],
            "variables": [
                {"name": "n", "expression": "object.spec.replicas"},
                {"name": "big", "expression": "variables.n > 5"},
                {"name": "bad", "expression": "variables.none"},
            ],
            "validations": [
                {"expression": "!variables.big && namespaceObject.metadata.labels['a'] == 'b'"},
                {"expression": "variables.n"},
                {"expression": "params.x == 1"},
                {"expression": "authorizer.group('').resource('pods').namespace('d').check('get').allowed()"},
                {"expression": "authorizer.requestResource.check('x').allowed()", "messageExpression": "1"},
                {"expression": "variables.big", "messageExpression": "'' + authorizer.path('/x').check('get').reason()"},
            ],
            "auditAnnotations": [{"key": "k", "valueExpression": "1"}],
        }});
        let at = |path: &str, source: &str, why: &str| format!("spec.{path}: Invalid value: {source:?}: {why}");
        assert_eq!(
            shown(&check_policy(&policy)),
            [
                at(
                    "variables[2].expression",
                    "variables.none",
                    "compilation failed: ERROR: <input>:1:10: undefined field 'none'\n | variables.none\n | .........^"
                ),
                at("validations[1].expression", "variables.n", "must evaluate to bool"),
                at(
                    "validations[2].expression",
                    "params.x == 1",
                    "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^"
                ),
                at("validations[4].messageExpression", "1", "must evaluate to string"),
                at(
                    "validations[5].messageExpression",
                    "'' + authorizer.path('/x').check('get').reason()",
                    "compilation failed: ERROR: <input>:1:6: undeclared reference to 'authorizer' (in container '')\n | '' + authorizer.path('/x').check('get').reason()\n | .....^"
                ),
                at("auditAnnotations[0].valueExpression", "1", "must evaluate to one of [string null_type]"),
            ]
        );
    }

    #[test]
    fn webhooks_and_selectors() {
        let webhooks = json!({"webhooks": [{}, {"matchConditions": [{"name": "a", "expression": "object.x"}]}]});
        assert_eq!(
            shown(&check_webhooks(&webhooks)),
            ["webhooks[1].matchConditions[0].expression: Invalid value: \"object.x\": must evaluate to bool"]
        );
        let claim = |expression: &str| json!({"spec": {"devices": {"requests": [{"exactly": {"selectors": [{"cel": {"expression": expression}}]}}]}}});
        for fine in [
            "device.driver == 'a' && device.attributes['d'].model == 'x'",
            "device.capacity['d'].memory.compareTo(quantity('1Gi')) >= 0",
            "cel.bind(d, device.attributes['d'], d.a == 1 && d.b == 'x')",
        ] {
            assert_eq!(shown(&check_selectors(&claim(fine))), [""; 0], "{fine}");
        }
        assert_eq!(
            shown(&check_selectors(&claim("device.name"))),
            [
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.name\": compilation \
              failed: ERROR: <input>:1:7: undefined field 'name'\n | device.name\n | ......^"
            ]
        );
    }

    struct Recorder;

    impl Authorizer for Recorder {
        fn authorize(&self, request: &AuthorizationRequest) -> Decision {
            Decision { allowed: request.verb == "get", reason: format!("{request:?}"), error: None }
        }
    }

    #[test]
    fn authorization_is_asked_for() {
        let env = env(Given { authorizer: true, ..Given::default() });
        let run = |source: &str| {
            let program = env.compile(source).unwrap();
            let bindings = Bindings::new()
                .with("authorizer", Value::authorizer(&Recorder))
                .with("authorizer.requestResource", Value::resource_check(&Recorder, AuthorizationRequest::default()));
            let run = program.evaluate(&bindings, PER_CALL_LIMIT);
            (run.value.map(|value| value.to_json()), run.cost)
        };
        let asked = "authorizer.serviceAccount('ns', 'sa').group('apps').resource('deployments').subresource('scale').namespace('n').name('x').check('get')";
        assert_eq!(run(&format!("{asked}.allowed()")), (Ok(Some(json!(true))), 350_000 + 8));
        let (reason, _) = run(&format!("{asked}.reason()"));
        let wanted = AuthorizationRequest {
            service_account: Some(("ns".into(), "sa".into())),
            verb: "get".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            subresource: "scale".into(),
            namespace: "n".into(),
            name: "x".into(),
            ..AuthorizationRequest::default()
        };
        assert_eq!(reason, Ok(Some(json!(format!("{wanted:?}")))));
        assert_eq!(run("authorizer.requestResource.check('list').allowed()").0, Ok(Some(json!(false))));
        // Three checks are more than a run may cost.
        assert!(run("[1, 2, 3].all(x, authorizer.path('/healthz').check('get').allowed())").0.is_err());
    }

    /// Counts how often it is asked.
    struct Twice(std::cell::Cell<u32>);

    impl<'a> Lazy<'a> for Twice {
        fn field(&self, name: &str) -> Option<crate::Evaluation<'a>> {
            self.0.set(self.0.get() + 1);
            (name == "a").then_some(crate::Evaluation { value: Ok(Value::Int(2)), cost: 7 })
        }
    }

    #[test]
    fn variables_are_lazy() {
        let env = with_variables(env(Given::default()), &[("a".into(), Type::Int), ("b".into(), Type::Int)]);
        let program = env.compile("true || variables.b == 1 ? variables.a == 2 : false").unwrap();
        let lazy = Twice(std::cell::Cell::new(0));
        let run = program.evaluate(&Bindings::new().lazy("variables", &lazy), PER_CALL_LIMIT);
        assert_eq!(run.value.unwrap().as_bool(), Some(true));
        assert_eq!((lazy.0.get(), run.cost), (1, 2 + 7 + 1));
    }
}
