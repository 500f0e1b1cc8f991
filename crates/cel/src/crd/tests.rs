use serde_json::{Value as Json, json};

use super::{Rules, check};

fn spec(properties: Json, rules: Json) -> Json {
    json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": properties, "x-kubernetes-validations": rules,
    }}})
}

/// `field: message` of each error, and of each warning behind a `!`.
fn outcome(schema: &Json, new: Json, old: Option<Json>) -> Vec<String> {
    let rules = Rules::compile(schema).unwrap();
    let verdict = rules.validate(&new, old.as_ref());
    let errors = verdict.errors.iter().map(|error| format!("{}: {}", error.field, error.message));
    errors.chain(verdict.warnings.iter().map(|warning| format!("!{warning}"))).collect()
}

fn checked(schema: &Json) -> Vec<String> {
    check("openAPIV3Schema", schema).iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

#[test]
fn rules_fail_with_message_reason_and_path() {
    let numbers = json!({"min": {"type": "integer"}, "max": {"type": "integer"}});
    let object = json!({"spec": {"min": 3, "max": 2}});
    let failing = |rule: Json| outcome(&spec(numbers.clone(), json!([rule])), object.clone(), None);
    assert_eq!(
        failing(json!({"rule": "self.min <= self.max"})),
        ["spec: Invalid value: \"object\": failed rule: self.min <= self.max"]
    );
    assert_eq!(
        failing(json!({"rule": "self.min <= self.max", "message": " too small "})),
        ["spec: Invalid value: \"object\": too small"]
    );
    assert_eq!(
        failing(json!({"rule": "self.min <= self.max", "reason": "FieldValueForbidden", "fieldPath": ".min"})),
        ["spec.min: Forbidden: failed rule: self.min <= self.max"]
    );
    assert_eq!(
        failing(
            json!({"rule": "self.min <= self.max", "messageExpression": "'min %d over %d'.format([self.min, self.max])"})
        ),
        ["spec: Invalid value: \"object\": min 3 over 2"]
    );
    // A message expression that fails, or gives what may not be shown, is as good as none.
    assert_eq!(
        failing(
            json!({"rule": "self.min <= self.max", "message": "m", "messageExpression": "string(1 / (self.min - 3))"})
        ),
        ["spec: Invalid value: \"object\": m"]
    );
    assert_eq!(
        failing(json!({"rule": "1 / (self.min - 3) == 1"})),
        ["spec: Invalid value: \"object\": division by zero evaluating rule: 1 / (self.min - 3) == 1"]
    );
    assert_eq!(failing(json!({"rule": "self.min >= self.max"})), [""; 0]);
}

#[test]
fn dynamic_values_fail_at_run_time() {
    let schema = spec(json!({"p": {"x-kubernetes-int-or-string": true}}), json!([{"rule": "self.p > 5"}]));
    assert_eq!(outcome(&schema, json!({"spec": {"p": 6}}), None), [""; 0]);
    assert_eq!(
        outcome(&schema, json!({"spec": {"p": "6"}}), None),
        [
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function \
          or macro signature for rule: self.p > 5"
        ]
    );
}

#[test]
fn transitions() {
    let schema = json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "list": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {
                "type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may not sink"}],
            }}},
        },
        "once": {"type": "string", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "set once"},
        ]},
    }});
    let old = json!({"fixed": "a", "list": [{"k": "x", "v": 5}, {"k": "y", "v": 1}], "once": "1"});
    assert_eq!(outcome(&schema, old.clone(), None), [""; 0]);
    assert_eq!(outcome(&schema, old.clone(), Some(old.clone())), [""; 0]);
    let new = json!({"fixed": "b", "list": [{"k": "y", "v": 2}, {"k": "z", "v": 0}, {"k": "x", "v": 4}], "once": "2"});
    let mut found = outcome(&schema, new.clone(), Some(old));
    found.sort();
    assert_eq!(
        found,
        [
            "fixed: Invalid value: \"string\": is immutable",
            "list[2].v: Invalid value: \"integer\": may not sink",
            "once: Invalid value: \"string\": set once",
        ]
    );
    assert_eq!(outcome(&schema, new, Some(json!({}))), [""; 0]);
}

/// What broke a rule before and is unchanged is a warning only.
#[test]
fn ratcheting() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]},
        "other": {"type": "string"},
    }, "x-kubernetes-validations": [{"rule": "has(self.other)"}]});
    let old = json!({"name": "b"});
    assert_eq!(
        outcome(&schema, json!({"name": "b", "other": "x"}), Some(old.clone())),
        ["!name: Invalid value: \"string\": failed rule: self.startsWith('a')"]
    );
    assert_eq!(
        outcome(&schema, json!({"name": "c", "other": "x"}), Some(old.clone())),
        ["name: Invalid value: \"string\": failed rule: self.startsWith('a')"]
    );
    assert_eq!(outcome(&schema, old.clone(), Some(old)).iter().filter(|line| line.starts_with('!')).count(), 2);
}

#[test]
fn nested_and_all_of() {
    let schema = json!({"type": "object", "properties": {
        "map": {"type": "object", "additionalProperties": {
            "type": "object", "properties": {"a-b": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.a__dash__b > 0"}],
        }},
        "9x": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]},
        "either": {"type": "object", "properties": {"x": {"type": "integer"}}, "allOf": [
            {"x-kubernetes-validations": [{"rule": "self.x < 5"}]},
            {"properties": {"x": {"x-kubernetes-validations": [{"rule": "self % 2 == 0"}]}}},
        ]},
    }});
    assert_eq!(
        outcome(&schema, json!({"map": {"k": {"a-b": 0}}, "9x": "", "either": {"x": 7}}), None),
        [
            "9x: Invalid value: \"string\": failed rule: self != ''",
            "either: Invalid value: \"object\": failed rule: self.x < 5",
            "either.x: Invalid value: \"integer\": failed rule: self % 2 == 0",
            "map[k]: Invalid value: \"object\": failed rule: self.a__dash__b > 0",
        ]
    );
}

#[test]
fn roots_see_metadata() {
    let schema = json!({"type": "object", "x-kubernetes-validations": [
        {"rule": "self.metadata.name == 'a' && self.kind == 'K' && self.apiVersion == 'g/v1'"},
    ]});
    let object = |name: &str| json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": name}});
    assert_eq!(outcome(&schema, object("a"), None), [""; 0]);
    assert_eq!(outcome(&schema, object("b"), None).len(), 1);
    assert!(outcome(&schema, object("b"), None)[0].starts_with("<nil>: Invalid value: \"object\": failed rule:"));
    assert_eq!(checked(&schema), [""; 0]);
}

#[test]
fn budgets() {
    let schema = json!({"type": "object", "properties": {
        "l": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
            {"rule": "self.all(x, self.all(y, x == y || true))"}, {"rule": "false"},
        ]},
        "m": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
            {"rule": "self.all(x, self.all(y, true))"},
        ]}},
    }});
    let numbers: Vec<u32> = (0..1000).collect();
    assert_eq!(
        outcome(&schema, json!({"l": numbers}), None),
        [
            "l: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be \
          run due to call cost exceeds limit for rule: self.all(x, self.all(y, x == y || true))"
        ]
    );
    // Each is cheap enough; together they are not.
    let rows: Vec<Vec<u32>> = vec![(0..500).collect(); 30];
    let found = outcome(&schema, json!({"m": rows}), None);
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .ends_with("validation failed due to running out of cost budget, no further validation rules will be run")
    );
}

#[test]
fn definitions_that_do_not_compile() {
    let field = |rule: Json| spec(json!({"n": {"type": "integer", "x-kubernetes-validations": [rule]}}), json!([]));
    let at = "openAPIV3Schema.properties[spec].properties[n].x-kubernetes-validations[0]";
    let shown = |rule: &str, expression: &str| {
        format!(
            "apiextensions.ValidationRule{{Rule:{rule:?}, Message:\"\", MessageExpression:{expression:?}, \
             Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:\"\", OptionalOldSelf:(*bool)(nil)}}"
        )
    };
    assert_eq!(
        checked(&field(json!({"rule": "self == true"}))),
        [format!(
            "{at}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' \
             applied to '(int, bool)'\n | self == true\n | .....^",
            shown("self == true", "")
        )]
    );
    assert_eq!(
        checked(&field(json!({"rule": "self + 1"}))),
        [format!("{at}.rule: Invalid value: {}: cel expression must evaluate to a bool", shown("self + 1", ""))]
    );
    assert_eq!(
        checked(&field(json!({"rule": "self > 1", "messageExpression": "self"}))),
        [format!(
            "{at}.messageExpression: Invalid value: {}: messageExpression must evaluate to a string",
            shown("self > 1", "self")
        )]
    );
    assert_eq!(
        checked(&field(json!({"rule": "self > 1", "optionalOldSelf": true}))),
        [format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule")]
    );
    let list = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 5, "items": {
        "type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}],
    }}}});
    assert_eq!(
        checked(&list),
        [
            "openAPIV3Schema.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf \
          cannot be used on the uncorrelatable portion of the schema within openAPIV3Schema.properties[l]"
        ]
    );
}

#[test]
fn definitions_that_cost_too_much() {
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings \
                are declared)";
    let nested = |most: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
            {"rule": "self.all(x, self.all(y, x == y))"},
        ]});
        if let Some(most) = most {
            list["maxItems"] = most.into();
            list["items"]["maxLength"] = 10.into();
        }
        json!({"type": "object", "properties": {"l": list}})
    };
    let at = "openAPIV3Schema.properties[l].x-kubernetes-validations[0].rule";
    assert_eq!(
        checked(&nested(None)),
        [
            format!("{at}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}"),
            format!(
                "{at}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            format!(
                "openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {hint}"
            ),
        ]
    );
    assert_eq!(checked(&nested(Some(100))), [""; 0]);
    assert!(checked(&nested(Some(1500)))[0].contains("estimated rule cost exceeds budget by factor of 2."));
    // A rule in a list counts once for each item.
    let item = |most: Option<u64>| {
        let mut schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {
            "type": "string", "maxLength": 1000, "x-kubernetes-validations": [{"rule": "self.matches('^[a-z0-9]*$')"}],
        }}}});
        if let Some(most) = most {
            schema["properties"]["l"]["maxItems"] = most.into();
        }
        schema
    };
    assert_eq!(checked(&item(Some(1000))), [""; 0]);
    assert!(!checked(&item(None)).is_empty());
}

#[test]
fn defaults_obey_rules() {
    let schema = json!({"type": "object", "properties": {"n": {
        "type": "integer", "default": 0, "x-kubernetes-validations": [{"rule": "self > 0"}],
    }}});
    assert_eq!(
        checked(&schema),
        ["openAPIV3Schema.properties[n].default: Invalid value: \"integer\": failed rule: self > 0"]
    );
}

#[test]
fn schemas_without_rules_cost_nothing() {
    assert!(Rules::compile(&json!({"type": "object", "properties": {"a": {"type": "string"}}})).is_none());
    assert_eq!(checked(&json!({"type": "object"})), [""; 0]);
}
