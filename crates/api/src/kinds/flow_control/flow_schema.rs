//! FlowSchema

use serde_json::{Value, json};

use super::{GROUP, defaults, policy_rule, validate_conditions};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::make;
use crate::kinds::print::{NONE, age, count, items, or};
use crate::status::FieldError;
use crate::validation::{View, checked, names, same};

const MAX_PRECEDENCE: i64 = 10_000;

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "FlowSchema", "flowschemas", &FlowSchema).with_status().columns(vec![
        Column::string("PriorityLevel", "The level that its requests have.", |object, _| {
            or(&object["spec"]["priorityLevelConfiguration"]["name"], "")
        }),
        Column::string("MatchingPrecedence", "Lower is tried first.", |object, _| {
            count(&object["spec"]["matchingPrecedence"])
        }),
        Column::string("DistinguisherMethod", "What makes two flows of it.", |object, _| {
            let method = &object["spec"]["distinguisherMethod"];
            if method.is_null() { NONE.into() } else { or(&method["type"], "") }
        }),
        age(),
        Column::string("MissingPL", "Whether its level is not there.", |object, _| {
            let dangling = items(&object["status"]["conditions"]).find(|condition| condition["type"] == "Dangling");
            dangling.map_or("?".into(), |condition| or(&condition["status"], ""))
        }),
    ])
}

#[derive(Debug)]
struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        if spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0) == 0 {
            spec.insert("matchingPrecedence".into(), 1000.into());
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status, metadata) = (root.get("spec"), root.get("status"), root.get("metadata"));
        let name = metadata.get("name").str();
        if let Write::Subresource("status", _) = write {
            validate_conditions(status.get("conditions"), &mut errors);
            return errors;
        }
        let precedence = spec.get("matchingPrecedence");
        match precedence.int().unwrap_or(0) {
            ..=0 => errors.push(precedence.invalid("must be a positive value")),
            1 if name != "exempt" => {
                errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
            }
            n if n > MAX_PRECEDENCE => {
                errors.push(precedence.invalid(&format!("must not be greater than {MAX_PRECEDENCE}")));
            }
            _ => {}
        }
        let method = spec.get("distinguisherMethod");
        let kind = method.get("type");
        if method.is_set() && !matches!(kind.str(), "ByNamespace" | "ByUser") {
            let shown = json!({"Type": kind.str()});
            errors.push(FieldError::not_supported(kind.path(), shown, &["ByNamespace", "ByUser"]));
        }
        let level = spec.get("priorityLevelConfiguration");
        let level = level.get("name");
        if level.is_empty() {
            errors.push(level.required("must reference a priority level"));
        } else {
            checked(level, names::subdomain, &mut errors);
        }
        for rule in spec.get("rules").items() {
            policy_rule::validate(rule, &mut errors);
        }
        let fixed = |must: &Value| must["kind"] == "FlowSchema" && must["metadata"]["name"] == name;
        if let Some(must) = defaults::mandatory().iter().find(|must| fixed(must))
            && !same(spec.value, &must["spec"])
        {
            errors.push(spec.invalid(&format!("spec of '{name}' must equal the fixed value")));
        }
        validate_conditions(status.get("conditions"), &mut errors);
        errors
    }
}
