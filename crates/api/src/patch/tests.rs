use serde_json::{Value, json};

use super::{MAX_JSON_OPERATIONS, Patch, PatchType};
use crate::schema::builtin;

fn run(kind: PatchType, object: Value, patch: &str) -> Result<Value, String> {
    let schema = builtin("io.k8s.api.core.v1.ConfigMap").unwrap();
    let mut object = object;
    let outcome = Patch::parse(kind, patch.as_bytes()).and_then(|(patch, _)| patch.apply(&mut object, schema));
    outcome.map(|()| object).map_err(|e| format!("{} {} {}", e.code, e.reason, e.message))
}

#[test]
fn json_patches() {
    let ok = |object: Value, patch: Value, expected: Value| {
        assert_eq!(run(PatchType::Json, object, &patch.to_string()).unwrap(), expected, "{patch}");
    };
    let data = || json!({"data": {"a": "1", "x/y": "2"}, "list": [1, 2]});
    ok(data(), json!([]), data());
    ok(
        data(),
        json!([{"op": "add", "path": "/data/b", "value": "3"}]),
        json!({"data": {"a": "1", "b": "3", "x/y": "2"}, "list": [1, 2]}),
    );
    ok(data(), json!([{"op": "remove", "path": "/data/x~1y"}]), json!({"data": {"a": "1"}, "list": [1, 2]}));
    ok(
        data(),
        json!([{"op": "add", "path": "/list/-", "value": 3}]),
        json!({"data": {"a": "1", "x/y": "2"}, "list": [1, 2, 3]}),
    );
    ok(
        data(),
        json!([{"op": "add", "path": "/list/0", "value": 0}]),
        json!({"data": {"a": "1", "x/y": "2"}, "list": [0, 1, 2]}),
    );
    ok(
        data(),
        json!([{"op": "move", "from": "/data/a", "path": "/data/z"}]),
        json!({"data": {"x/y": "2", "z": "1"}, "list": [1, 2]}),
    );
    ok(data(), json!([{"op": "copy", "from": "/list", "path": "/data"}]), json!({"data": [1, 2], "list": [1, 2]}));
    ok(
        data(),
        json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "9"}]),
        json!({"data": {"a": "9", "x/y": "2"}, "list": [1, 2]}),
    );
    let rejected = "422 Invalid the server rejected our request due to an error in our request";
    for patch in [
        json!([{"op": "test", "path": "/data/a", "value": "2"}]),
        json!([{"op": "remove", "path": "/data/none"}]),
        json!([{"op": "replace", "path": "/none", "value": 1}]),
        json!([{"op": "add", "path": "/list/7", "value": 1}]),
    ] {
        assert_eq!(run(PatchType::Json, data(), &patch.to_string()).unwrap_err(), rejected, "{patch}");
    }
    for patch in [r#"[{"op":"fly","path":"/a"}]"#, r#"[{"op":"add","path":"a","value":1}]"#, r#"[{"path":"/a"}]"#] {
        assert_eq!(run(PatchType::Json, data(), patch).unwrap_err(), rejected, "{patch}");
    }
    let array = "json: cannot unmarshal object into Go value of type []interface {}";
    for (patch, message) in [
        ("{}", format!("error decoding patch: {array}")),
        ("[", "error decoding patch: unexpected end of JSON input".into()),
        ("[3]", "json: cannot unmarshal number into Go value of type jsonpatch.Operation".into()),
    ] {
        assert_eq!(run(PatchType::Json, data(), patch).unwrap_err(), format!("400 BadRequest {message}"));
    }
}

#[test]
fn json_patches_have_a_limit() {
    let operations = vec![json!({"op": "test", "path": "/a", "value": 1}); MAX_JSON_OPERATIONS + 1];
    let error = run(PatchType::Json, json!({"a": 1}), &Value::Array(operations).to_string()).unwrap_err();
    let message = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(error, format!("413 RequestEntityTooLarge {message}"));
}

#[test]
fn what_strict_validation_minds_in_json_patches() {
    let patch = br#"[{"op":"test","path":"/a","path":"/b","value":1},{"op":"remove","path":"/c","note":"x"}]"#;
    let (_, strict) = Patch::parse(PatchType::Json, patch).unwrap();
    assert_eq!(strict, [r#"json patch duplicate field "[0].path""#, r#"json patch unknown field "[1].note""#]);
}

#[test]
fn merge_patches() {
    let ok = |object: Value, patch: Value, expected: Value| {
        assert_eq!(run(PatchType::Merge, object, &patch.to_string()).unwrap(), expected, "{patch}");
    };
    ok(
        json!({"a": {"b": 1, "c": [1]}}),
        json!({"a": {"b": null, "c": [2], "d": {"e": null, "f": 1}}}),
        json!({"a": {"c": [2], "d": {"f": 1}}}),
    );
    ok(json!({"a": 1}), json!({}), json!({"a": 1}));
    ok(json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}));
    assert_eq!(
        run(PatchType::Merge, json!({}), "[1]").unwrap_err(),
        "400 BadRequest error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert_eq!(
        run(PatchType::Merge, json!({}), "{").unwrap_err(),
        "400 BadRequest error decoding patch: unexpected end of JSON input"
    );
}

#[test]
fn strategic_patch_bodies() {
    assert_eq!(
        run(PatchType::Strategic, json!({}), "[]").unwrap_err(),
        "400 BadRequest json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    let (_, strict) = Patch::parse(PatchType::Strategic, br#"{"data":{"a":"1","a":"2"}}"#).unwrap();
    assert_eq!(strict, [r#"duplicate field "data.a""#]);
}

#[test]
fn copies_have_a_limit() {
    let doubling = |n: usize| Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); n]).to_string();
    assert!(run(PatchType::Json, json!({"a": [1]}), &doubling(10)).is_ok());
    let error = run(PatchType::Json, json!({"a": [1]}), &doubling(60)).unwrap_err();
    assert!(error.starts_with("422 "), "{error}");
}

#[test]
fn patches_cannot_nest_without_end() {
    let mut operations = Vec::new();
    let mut path = String::new();
    for _ in 0..9 {
        operations.push(json!({"op": "copy", "from": "", "path": format!("{path}/a")}));
        let longer = path.split('/').count() * 2;
        path = "/a".repeat(longer - 1);
    }
    let error = run(PatchType::Json, json!({}), &Value::Array(operations).to_string()).unwrap_err();
    assert!(error.starts_with("422 "), "{error}");
}

#[test]
fn results_that_are_no_object_of_the_kind() {
    let schema = builtin("io.k8s.api.apps.v1.Deployment").unwrap();
    let outcome = |kind: PatchType, patch: Value| {
        let (parsed, _) = Patch::parse(kind, patch.to_string().as_bytes()).unwrap();
        let mut object = json!({"spec": {"replicas": 1}});
        parsed.apply(&mut object, schema).unwrap();
        let why = schema.conform(&mut object.clone()).unwrap_err().to_string();
        let status = parsed.undecodable(&object, &why);
        assert_eq!(status.code, 422);
        status.message
    };
    let number = json!({"spec": {"replicas": "x"}});
    assert_eq!(
        outcome(PatchType::Merge, number.clone()),
        r#" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":\"x\"}}": json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#
    );
    for (patch, message) in [
        (number, r#""map[spec:map[replicas:x]]": unrecognized type: int32"#),
        (json!({"spec": {"template": []}}), r#""map[spec:map[template:[]]]": cannot restore struct from: slice"#),
        (
            json!({"spec": {"template": {"spec": {"containers": 1}}}}),
            r#""map[spec:map[template:map[spec:map[containers:1]]]]": cannot restore slice from int64"#,
        ),
    ] {
        assert_eq!(outcome(PatchType::Strategic, patch), format!(" \"\" is invalid: patch: Invalid value: {message}"));
    }
}
