//! PriorityLevelConfiguration

use serde_json::Value;

use super::{GROUP, defaults, validate_conditions};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{Object, child, set};
use crate::kinds::print::{NONE, age, count, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, same};

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the hash that deals a flow its hand of queues.
const HASH_BITS: f64 = 60.0;
const NOT_NEGATIVE: &str = "must be a non-negative integer";

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", &PriorityLevelConfiguration)
        .with_status()
        .columns(vec![
            Column::string("Type", "Whether its requests are limited.", |object, _| or(&object["spec"]["type"], "")),
            Column::string("NominalConcurrencyShares", "Its share of the requests under way.", |object, _| {
                let limited = &object["spec"]["limited"];
                if limited.is_null() { NONE.into() } else { count(&limited["nominalConcurrencyShares"]) }
            }),
            Column::string("Queues", "How many queues it has.", |object, _| queuing(object, "queues")),
            Column::string("HandSize", "Queues from which a flow picks.", |object, _| queuing(object, "handSize")),
            Column::string("QueueLengthLimit", "Requests that may wait in a queue.", |object, _| {
                queuing(object, "queueLengthLimit")
            }),
            age(),
        ])
}

fn queuing(object: &Value, field: &str) -> Value {
    let queuing = &object["spec"]["limited"]["limitResponse"]["queuing"];
    if queuing.is_null() { NONE.into() } else { count(&queuing[field]) }
}

#[derive(Debug)]
struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) else { return };
        if let Some(exempt) = child(spec, "exempt") {
            set(exempt, "nominalConcurrencyShares", 0);
            set(exempt, "lendablePercent", 0);
        }
        let Some(limited) = child(spec, "limited") else { return };
        set(limited, "nominalConcurrencyShares", 30);
        set(limited, "lendablePercent", 0);
        if let Some(queuing) = child(limited, "limitResponse").and_then(|response| child(response, "queuing")) {
            set_zero(queuing, "queues", 64);
            set_zero(queuing, "handSize", 8);
            set_zero(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status, metadata) = (root.get("spec"), root.get("status"), root.get("metadata"));
        if let Write::Subresource("status", _) = write {
            validate_conditions(status.get("conditions"), &mut errors);
            return errors;
        }
        let name = metadata.get("name").str();
        validate_spec(spec, name, &mut errors);
        let fixed = |must: &Value| must["kind"] == "PriorityLevelConfiguration" && must["metadata"]["name"] == name;
        if let Some(must) = defaults::mandatory().iter().find(|must| fixed(must)) {
            if name == "exempt" {
                if !same(&without_exempt(spec.value), &without_exempt(&must["spec"])) {
                    let detail = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
                    errors.push(spec.invalid(detail));
                }
            } else if !same(spec.value, &must["spec"]) {
                errors.push(spec.invalid(&format!("spec of '{name}' must equal the fixed value")));
            }
        }
        validate_conditions(status.get("conditions"), &mut errors);
        errors
    }
}

/// `map[key] = value` where there is nothing or a zero.
fn set_zero(map: &mut Object, key: &str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(key.into(), value.into());
    }
}

fn without_exempt(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        map.remove("exempt");
    }
    spec
}

fn validate_spec(spec: View, name: &str, errors: &mut Errors) {
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name == "exempt") != (kind.str() == "Exempt") {
        errors.push(kind.invalid_str("type must be 'Exempt' if and only if name is 'exempt'"));
    }
    match kind.str() {
        "Exempt" => {
            if exempt.is_set() {
                shares(exempt, errors);
                lendable(exempt, errors);
            }
            if limited.is_set() {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
        }
        "Limited" => {
            if exempt.is_set() {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                validate_limited(limited, errors);
            } else {
                errors.push(limited.required("must not be empty when type is Limited"));
            }
        }
        _ => errors.push(kind.not_supported(&["Exempt", "Limited"])),
    }
}

fn shares(level: View, errors: &mut Errors) {
    let shares = level.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|n| n < 0) {
        errors.push(shares.invalid(NOT_NEGATIVE));
    }
}

fn lendable(level: View, errors: &mut Errors) {
    let percent = level.get("lendablePercent");
    if percent.int().is_some_and(|n| !(0..=100).contains(&n)) {
        errors.push(percent.invalid("must be between 0 and 100, inclusive"));
    }
}

fn validate_limited(limited: View, errors: &mut Errors) {
    shares(limited, errors);
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.str() {
        "Reject" if queuing.is_set() => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
        }
        "Queue" => validate_queuing(queuing, errors),
        _ => errors.push(kind.not_supported(&["Queue", "Reject"])),
    }
    lendable(limited, errors);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
    }
}

fn validate_queuing(queuing: View, errors: &mut Errors) {
    let (length, queues, hand) = (queuing.get("queueLengthLimit"), queuing.get("queues"), queuing.get("handSize"));
    let number = |view: View| view.int().unwrap_or(0);
    if number(length) <= 0 {
        errors.push(length.invalid("must be positive"));
    }
    if number(queues) <= 0 {
        errors.push(queues.invalid("must be positive"));
    } else if number(queues) > MAX_QUEUES {
        errors.push(queues.invalid(&format!("must not be greater than {MAX_QUEUES}")));
    }
    let (deck, size) = (number(queues), number(hand));
    if size <= 0 {
        errors.push(hand.invalid("must be positive"));
    } else if size > deck {
        errors.push(hand.invalid(&format!("should not be greater than queues ({deck})")));
    } else if ((deck as f64).log2() * size as f64).ceil() > HASH_BITS {
        errors.push(hand.invalid(&format!(
            "required entropy bits of deckSize {deck} and handSize {size} should not be greater than {HASH_BITS}"
        )));
    }
}
