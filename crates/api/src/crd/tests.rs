use serde_json::{Value, json};

use super::custom::compare_versions;
use super::{Node, kinds};
use crate::kind::{Scope, Write};
use crate::validation::View;

fn shown(errors: &[crate::status::FieldError]) -> Vec<String> {
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

/// The value breaks exactly these rules of the schema.
#[track_caller]
fn check(schema: Value, value: Value, expected: &[&str]) {
    check_update(schema, None, value, expected);
}

#[track_caller]
fn check_update(schema: Value, old: Option<Value>, value: Value, expected: &[&str]) {
    let node = Node::parse(&json!({"type": "object", "properties": {"spec": schema}}));
    let (object, old) = (json!({"spec": value}), old.map(|old| json!({"spec": old})));
    let mut errors = Vec::new();
    node.check_value(View::root(&object), old.as_ref(), &mut errors);
    node.check_embedded(View::root(&object), &mut errors);
    node.check_lists(View::root(&object), &mut errors);
    assert_eq!(shown(&errors), expected, "{object}");
}

#[test]
fn types() {
    let string = || json!({"type": "string"});
    check(string(), json!("a"), &[]);
    check(string(), json!(1), &["spec: Invalid value: \"integer\": spec in body must be of type string: \"integer\""]);
    check(string(), json!(null), &["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""]);
    check(json!({"type": "string", "nullable": true}), json!(null), &[]);
    check(json!({"type": "integer"}), json!(1.0), &[]);
    check(
        json!({"type": "integer"}),
        json!(1.5),
        &["spec: Invalid value: \"number\": spec in body must be of type integer: \"number\""],
    );
    check(json!({"type": "number"}), json!(1), &[]);
    check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
    check(
        json!({"x-kubernetes-int-or-string": true}),
        json!([]),
        &["spec: Invalid value: \"array\": spec in body must be of type integer or string: \"array\""],
    );
    check(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, null, {"a": 1}]), &[]);
    let map = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    check(
        map,
        json!({"a": "b"}),
        &["spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\""],
    );
    let list = json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "boolean"}}}});
    check(
        list,
        json!([{"a": true}, {"a": 1}]),
        &["spec[1].a: Invalid value: \"integer\": spec[1].a in body must be of type boolean: \"integer\""],
    );
}

#[test]
fn bounds() {
    let at = |key: &str, bound: Value| {
        let mut schema = json!({});
        schema[key] = bound;
        schema
    };
    check(
        at("maximum", json!(10)),
        json!(20),
        &["spec: Invalid value: 20: spec in body should be less than or equal to 10"],
    );
    check(
        json!({"maximum": 10, "exclusiveMaximum": true}),
        json!(10),
        &["spec: Invalid value: 10: spec in body should be less than 10"],
    );
    check(
        at("minimum", json!(1.5)),
        json!(1),
        &["spec: Invalid value: 1: spec in body should be greater than or equal to 1.5"],
    );
    check(
        json!({"minimum": 1, "exclusiveMinimum": true}),
        json!(1),
        &["spec: Invalid value: 1: spec in body should be greater than 1"],
    );
    check(at("multipleOf", json!(3)), json!(4), &["spec: Invalid value: 4: spec in body should be a multiple of 3"]);
    check(at("maxLength", json!(2)), json!("abc"), &["spec: Too long: may not be more than 2 bytes"]);
    check(at("maxLength", json!(2)), json!("üö"), &[]);
    check(
        at("minLength", json!(2)),
        json!("a"),
        &["spec: Invalid value: \"a\": spec in body should be at least 2 chars long"],
    );
    check(at("pattern", json!("^a+$")), json!("b"), &["spec: Invalid value: \"b\": spec in body should match '^a+$'"]);
    check(at("maxItems", json!(1)), json!([1, 2]), &["spec: Too many: 2: must have at most 1 item"]);
    check(at("minItems", json!(1)), json!([]), &["spec: Invalid value: []: spec in body should have at least 1 items"]);
    check(at("maxProperties", json!(1)), json!({"a": 1, "b": 2}), &["spec: Too many: 2: must have at most 1 item"]);
    check(
        at("minProperties", json!(1)),
        json!({}),
        &["spec: Invalid value: {}: spec in body should have at least 1 properties"],
    );
    check(at("required", json!(["a"])), json!({"b": 1}), &["spec.a: Required value"]);
    check(
        at("enum", json!(["a", "b"])),
        json!("c"),
        &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    check(at("enum", json!([1, 2])), json!(1.0), &[]);
}

#[test]
fn formats() {
    let check = |format: &str, good: &[&str], bad: &[&str]| {
        for text in good {
            super::tests::check(json!({"type": "string", "format": format}), json!(text), &[]);
        }
        for text in bad {
            let expected = format!("spec: Invalid value: {text:?}: spec in body must be of type {format}: {text:?}");
            super::tests::check(json!({"type": "string", "format": format}), json!(text), &[&expected]);
        }
    };
    check("date-time", &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123+01:00"], &["2026-01-02", "x"]);
    check("date", &["2026-01-02"], &["2026-13-02", "2026-01-02T00:00:00Z"]);
    check("ipv4", &["10.0.0.1"], &["::1", "10.0.0"]);
    check("ipv6", &["::1"], &["10.0.0.1"]);
    check("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33"]);
    check("mac", &["00:11:22:33:44:55", "0011.2233.4455"], &["00:11:22:33:44"]);
    check("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567"]);
    check("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]);
    check("uri", &["https://a/b?c", "/a"], &["a b", "a"]);
    check("email", &["a@b.c", "A <a@b.c>"], &["a", "@b"]);
    check("hostname", &["a.example"], &["-a", "a..b"]);
    check("byte", &["AQI="], &["!"]);
    check("duration", &["1h30m", "2 days"], &["1x", ""]);
    check("hexcolor", &["#fff", "a0b1c2"], &["#ffff"]);
    check("rgbcolor", &["rgb(1,2,255)"], &["rgb(1,2,256)"]);
    check("isbn10", &["0-306-40615-2"], &["0-306-40615-3"]);
    check("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]);
    check("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]);
    check("unheard-of", &["anything"], &[]);
}

#[test]
fn combinations() {
    let root = "<nil>: Invalid value: \"\": \"spec\"";
    let any = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(any.clone(), json!({"b": "x"}), &[]);
    check(any, json!({}), &[&format!("{root} must validate at least one schema (anyOf)"), "spec.a: Required value"]);
    let one = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(one.clone(), json!({"a": 1}), &[]);
    check(
        one.clone(),
        json!({"a": 1, "b": 2}),
        &[&format!("{root} must validate one and only one schema (oneOf). Found 2 valid alternatives")],
    );
    check(
        one,
        json!({}),
        &[&format!("{root} must validate one and only one schema (oneOf). Found none valid"), "spec.a: Required value"],
    );
    check(
        json!({"allOf": [{"maximum": 5}, {"minimum": 1}]}),
        json!(7),
        &[
            &format!("{root} must validate all the schemas (allOf)"),
            "spec: Invalid value: 7: spec in body should be less than or equal to 5",
        ],
    );
    check(
        json!({"not": {"required": ["a"]}}),
        json!({"a": 1}),
        &[&format!("{root} must not validate the schema (not)")],
    );
}

#[test]
fn lists_without_doubles() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    check(set, json!(["a", "b", "a"]), &["spec[2]: Duplicate value: \"a\""]);
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "p": {"type": "string"}}}});
    check(
        map,
        json!([{"k": "a", "p": "x"}, {"k": "a", "p": "y"}, {"k": "a", "p": "x", "v": 1}]),
        &["spec[2]: Duplicate value: {\"k\":\"a\",\"p\":\"x\"}"],
    );
}

#[test]
fn embedded_objects() {
    let schema =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    check(schema.clone(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}), &[]);
    check(
        schema,
        json!({"apiVersion": "a/b/c", "metadata": {"name": "a/b", "labels": {"x": "?"}}}),
        &[
            "spec.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            "spec.kind: Required value: must not be empty",
            "spec.metadata.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.metadata.labels: Invalid value: \"?\": a valid label must be an empty string or consist of alphanumeric \
         characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
         'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
}

/// What was wrong before and is as it was is not judged again.
#[test]
fn unchanged_values_are_let_through() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}, "b": {"type": "string"}}});
    let old = json!({"a": "long", "b": "x"});
    check_update(schema.clone(), Some(old.clone()), json!({"a": "long", "b": "y"}), &[]);
    check_update(
        schema,
        Some(old),
        json!({"a": "longer", "b": "y"}),
        &["spec.a: Too long: may not be more than 1 bytes"],
    );
    let items = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}});
    let list = |list_type: &str| json!({"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"], "items": items});
    let (old, new) = (json!([{"k": "a", "v": 9}]), json!([{"k": "b", "v": 1}, {"k": "a", "v": 9}]));
    check_update(list("map"), Some(old.clone()), new.clone(), &[]);
    check_update(
        list("atomic"),
        Some(old),
        new,
        &["spec[1].v: Invalid value: 9: spec[1].v in body should be less than or equal to 5"],
    );
}

#[track_caller]
fn fill(schema: Value, value: Value, expected: Value) {
    let node = Node::parse(&schema);
    let mut filled = value;
    node.fill(&mut filled);
    assert_eq!(filled, expected);
    let once = filled.clone();
    node.fill(&mut filled);
    assert_eq!(filled, once, "defaults are idempotent");
}

#[test]
fn defaults() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "x"},
        "n": {"type": "string", "nullable": true, "default": "y"},
        "gone": {"type": "string"},
        "inner": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
        "made": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 2}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "boolean", "default": true}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"e": {"type": "string", "default": "z"}}}},
    }});
    fill(schema.clone(), json!({}), json!({"a": "x", "n": "y", "made": {"c": 2}}));
    fill(
        schema,
        json!({"a": null, "n": null, "gone": null, "inner": {}, "made": {"c": 3}, "list": [{}, {"d": false}], "map": {"k": {}}}),
        json!({"a": "x", "n": null, "inner": {"b": 1}, "made": {"c": 3}, "list": [{"d": true}, {"d": false}], "map": {"k": {"e": "z"}}}),
    );
}

#[test]
fn pruning() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "known": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "part": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "empty": {"type": "object"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "object": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}}});
    let mut object = json!({
        "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "bogus": 1}, "stray": 1,
        "spec": {
            "known": 5, "unknown": 1, "free": {"x": {"y": null}, "part": {"a": "", "b": 1}}, "map": {"k": {"a": "", "b": 1}},
            "empty": {"a": 1}, "list": [{"a": null, "b": 1}], "object": {"apiVersion": "v1", "kind": "P", "metadata": {"name": "q", "z": 1}, "spec": {"a": 1}, "status": 1},
        },
    });
    let unknown = Node::parse(&schema).structure().conform(&mut object).unwrap();
    assert_eq!(
        object,
        json!({
            "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a"},
            "spec": {
                "known": 5, "free": {"x": {"y": null}, "part": {"a": ""}}, "map": {"k": {"a": ""}}, "empty": {},
                "list": [{"a": null}], "object": {"apiVersion": "v1", "kind": "P", "metadata": {"name": "q"}, "spec": {}},
            },
        })
    );
    let expected = [
        "metadata.bogus",
        "spec.empty.a",
        "spec.free.part.b",
        "spec.list[0].b",
        "spec.map.k.b",
        "spec.object.metadata.z",
        "spec.object.spec.a",
        "spec.object.status",
        "spec.unknown",
        "stray",
    ];
    assert_eq!(unknown, expected.map(|path| format!("unknown field {path:?}")));
    let bad = Node::parse(&schema).structure().conform(&mut json!({"metadata": {"name": 1}}));
    assert_eq!(
        bad.unwrap_err().to_string(),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"
    );
}

#[test]
fn versions_in_order_of_preference() {
    let mut versions =
        vec!["v1", "foo10", "v10", "v2", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1"];
    versions.sort_by(|a, b| compare_versions(b, a));
    let expected = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
    assert_eq!(versions, expected);
}

fn definition() -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "conversion": {"strategy": "None"}, "versions": [
            {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "colour": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [{"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1}],
                "selectableFields": [{"jsonPath": ".spec.colour"}]},
        ]},
        "status": {"acceptedNames": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
            "shortNames": ["ct"], "categories": ["all"]}},
    })
}

#[test]
fn definitions_are_kinds() {
    let definition = kinds(&definition());
    let [v1, beta] = definition.versions.as_slice() else { panic!("two versions") };
    assert_eq!((v1.kind.version.as_ref(), beta.kind.version.as_ref()), ("v1", "v1beta1"));
    assert_eq!(definition.storage().unwrap().api_version(), "stable.example.com/v1");
    let kind = &v1.kind;
    assert_eq!(
        (kind.schema.as_ref(), kind.list_kind.as_ref(), kind.singular.as_ref(), kind.scope),
        ("com.example.stable.v1.CronTab", "CronTabList", "crontab", Scope::Namespaced)
    );
    assert_eq!(kind.short_names, ["ct"]);
    assert_eq!(beta.kind.deprecated.as_deref(), Some("stable.example.com/v1beta1 CronTab is deprecated"));
    assert_eq!(beta.kind.columns[0].name, "Age");
    assert_eq!(kind.subresources.iter().map(|s| s.name.as_ref()).collect::<Vec<_>>(), ["status", "scale"]);
    let mut object =
        json!({"metadata": {"name": "a"}, "spec": {"replicas": 3, "colour": "red"}, "status": {"selector": "a=b"}});
    assert_eq!(
        (kind.field_selectors[0].path.as_ref(), kind.field_selectors[0].get(&object).as_ref()),
        ("spec.colour", "red")
    );
    let scale = kind.scale.as_ref().unwrap();
    let mut read = scale.read(&object);
    assert_eq!((&read["spec"], &read["status"]), (&json!({"replicas": 3}), &json!({"replicas": 0, "selector": "a=b"})));
    read["spec"]["replicas"] = json!(5);
    scale.write(&mut object, &read);
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(scale.missing(&json!({"spec": {}})).as_deref(), Some(".spec.replicas"));
}

#[test]
fn generation_and_status() {
    let definition = kinds(&definition());
    let (v1, beta) = (&definition.versions[0].kind, &definition.versions[1].kind);
    let old = json!({"metadata": {"name": "a", "generation": 1, "labels": {"x": "y"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let write = |kind: &crate::kind::Kind, object: Value, write: Write<'_>| {
        let mut object = object;
        kind.strategy.prepare(&mut object, write);
        (
            object["metadata"]["generation"].clone(),
            object["status"]["replicas"].clone(),
            object["spec"]["replicas"].clone(),
        )
    };
    let new = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    assert_eq!(write(v1, new.clone(), Write::Create), (json!(1), Value::Null, json!(2)));
    assert_eq!(write(v1, new.clone(), Write::Update(&old)), (json!(2), json!(1), json!(2)));
    assert_eq!(write(v1, new.clone(), Write::Subresource("status", &old)), (json!(1), json!(2), json!(1)));
    // Without the subresource, status is a field like any other.
    assert_eq!(write(beta, new.clone(), Write::Create), (json!(1), json!(2), json!(2)));
    assert_eq!(write(beta, new, Write::Update(&old)), (json!(2), json!(2), json!(2)));
    // Something with nothing in it is not nothing.
    for kind in [v1, beta] {
        for (before, after, generation) in [
            (json!({}), json!({}), 1),
            (json!({}), json!({"x": null}), 2),
            (json!({}), json!({"x": {}}), 2),
            (json!({"x": []}), json!({"x": null}), 2),
            (json!({"x": {"a": 1, "b": []}}), json!({"x": {"b": [], "a": 1}}), 1),
        ] {
            let old = json!({"metadata": {"generation": 1}, "spec": before});
            let mut new = json!({"metadata": {"generation": 1}, "spec": after});
            kind.strategy.prepare(&mut new, Write::Update(&old));
            assert_eq!(new["metadata"]["generation"], generation, "{old} {new}");
        }
    }
    let mut status = json!({"metadata": {"name": "a", "labels": {}, "resourceVersion": "7"}, "status": {}});
    v1.strategy.prepare(&mut status, Write::Subresource("status", &old));
    assert_eq!(status["metadata"], json!({"name": "a", "generation": 1, "labels": {"x": "y"}, "resourceVersion": "7"}));

    let bad = json!({"metadata": {"finalizers": ["x"]}, "spec": {"replicas": -1}, "status": {"selector": "a in"}});
    let errors = shown(&v1.strategy.validate(&bad, Write::Create));
    assert_eq!(errors[0], ".spec.replicas: Invalid value: -1: should be a non-negative integer");
    assert!(errors[1].starts_with(".status.selector: Invalid value: \"a in\""), "{errors:?}");
    assert!(v1.strategy.warnings(&bad, Write::Create)[0].contains("\"x\": prefer a domain-qualified finalizer name"));
}

#[test]
fn large_maps_and_lists() {
    let map = json!({"type": "object", "additionalProperties": {"type": "array", "x-kubernetes-list-type": "set",
        "items": {"type": "integer"}}});
    let value: serde_json::Map<String, Value> = (0..50_000).map(|n| (format!("k{n}"), json!([n]))).collect();
    check(map.clone(), Value::Object(value), &[]);
    check(map, json!({"a": [1, 1]}), &["spec[a][1]: Duplicate value: 1"]);
    // Old items are found by their keys, wherever they stand: what they break was broken before.
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "integer"}, "v": {"maximum": 1}}}});
    let old: Vec<Value> = (0..50_000).map(|n| json!({"k": n, "v": 2})).collect();
    let mut new: Vec<Value> = old.iter().rev().cloned().collect();
    new[7]["v"] = json!(3);
    check_update(
        list,
        Some(Value::Array(old)),
        Value::Array(new),
        &["spec[7].v: Invalid value: 3: spec[7].v in body should be less than or equal to 1"],
    );
}

#[test]
fn many_finalizers() {
    let definition = kinds(&definition());
    let strategy = &definition.versions[0].kind.strategy;
    let names: Vec<String> = (0..50_000).map(|n| format!("f{n}")).collect();
    let object = json!({"metadata": {"finalizers": names}});
    assert!(strategy.warnings(&object, Write::Update(&object)).is_empty());
    assert_eq!(strategy.warnings(&object, Write::Create).len(), 50_000);
}
