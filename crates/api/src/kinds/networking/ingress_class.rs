//! IngressClass

use serde_json::Value;

use super::GROUP;
use super::ingress::validate_reference;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, set};
use crate::kinds::print::{NONE, age, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, names};

const MAX_CONTROLLER_BYTES: usize = 250;

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "IngressClass", "ingressclasses", &IngressClass).columns(vec![
        Column::string("Controller", "Who serves ingresses of this class.", |object, _| {
            or(&object["spec"]["controller"], "")
        }),
        Column::string("Parameters", "More settings, in another object.", |object, _| parameters(object).into()),
        age(),
    ])
}

fn parameters(object: &Value) -> String {
    let parameters = &object["spec"]["parameters"];
    if parameters.is_null() {
        return NONE.into();
    }
    let text = |field: &str| parameters[field].as_str().unwrap_or_default();
    let group = if parameters["apiGroup"].is_string() { format!(".{}", text("apiGroup")) } else { String::new() };
    format!("{}{group}/{}", text("kind"), text("name"))
}

#[derive(Debug)]
struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, object: &mut Value) {
        let spec = object.as_object_mut().and_then(|object| child(object, "spec"));
        if let Some(parameters) = spec.and_then(|spec| child(spec, "parameters")) {
            set(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let controller = spec.get("controller");
        if let Write::Update(old) = write {
            immutable(controller, &old["spec"]["controller"], &mut errors);
        }
        if controller.is_empty() {
            errors.push(controller.required(""));
        } else {
            if controller.len() > MAX_CONTROLLER_BYTES {
                errors.push(controller.too_long(MAX_CONTROLLER_BYTES));
            }
            domain_prefixed_path(controller, &mut errors);
        }
        let parameters = spec.get("parameters");
        if parameters.is_set() {
            validate_parameters(parameters, &mut errors);
        }
        errors
    }
}

/// `acme.io/foo`
fn domain_prefixed_path(view: View, errors: &mut Errors) {
    match view.str().split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.extend(names::subdomain(host).iter().map(|c| FieldError::invalid(view.path(), host, c)));
            errors.extend(names::http_path(path).iter().map(|c| FieldError::invalid(view.path(), path, c)));
        }
        _ => errors.push(view.invalid_str("must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

fn validate_parameters(parameters: View, errors: &mut Errors) {
    validate_reference(parameters, errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.str() {
        "Namespace" if !namespace.is_set() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => checked(namespace, names::label, errors),
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        _ => errors.push(scope.not_supported(&["Cluster", "Namespace"])),
    }
}
