use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::builtin;

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const POD: &str = "io.k8s.api.core.v1.Pod";

fn open() -> Reset {
    Reset::Fields(&[])
}

struct Case {
    schema: &'static str,
    api_version: &'static str,
    kind: &'static str,
    now: &'static str,
    reset: Reset,
}

impl Case {
    fn new(schema: &'static str) -> Self {
        let kind = schema.rsplit('.').next().unwrap();
        let api_version = if schema.contains(".apps.") { "apps/v1" } else { "v1" };
        Self { schema, api_version, kind, now: "2026-01-01T00:00:00Z", reset: open() }
    }

    fn at(mut self, now: &'static str) -> Self {
        self.now = now;
        self
    }

    fn writer<'a>(&'a self, manager: &'a str, subresource: &'a str) -> Writer<'a> {
        Writer {
            manager,
            api_version: self.api_version,
            kind: self.kind,
            schema: builtin(self.schema).unwrap(),
            subresource,
            now: self.now,
            reset: self.reset,
            versions: &OneVersion,
        }
    }

    fn update(&self, manager: &str, old: Option<&Value>, new: Value) -> Value {
        let mut new = typed(self, new);
        update(&self.writer(manager, ""), old, &mut new).unwrap();
        new
    }

    fn apply(&self, manager: &str, live: Option<&Value>, config: Value, force: bool) -> Result<Value, String> {
        let applied = apply(&self.writer(manager, ""), live, &typed(self, config), force);
        applied.map_err(|status| format!("{} {}", status.code, status.message))
    }
}

fn typed(case: &Case, mut object: Value) -> Value {
    object["apiVersion"] = case.api_version.into();
    object["kind"] = case.kind.into();
    if object.get("metadata").is_none() {
        object["metadata"] = json!({"name": "a", "namespace": "b"});
    }
    object
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| format!("{} {}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap())).collect()
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

#[test]
fn what_a_create_owns() {
    let check = |schema: &'static str, object: Value, expected: Value| {
        let case = Case::new(schema);
        assert_eq!(fields(&case.update("m", None, object), "m"), expected);
    };
    check(
        CONFIG_MAP,
        json!({"data": {"a": "1"}, "immutable": false}),
        json!({"f:data": {".": {}, "f:a": {}}, "f:immutable": {}}),
    );
    check(CONFIG_MAP, json!({"data": {}}), json!({"f:data": {}}));
    // As kubectl create deployment leaves it upstream.
    check(
        DEPLOYMENT,
        json!({"metadata": {"name": "w", "labels": {"app": "w"}, "generation": 1, "uid": "u"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "w"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"metadata": {"labels": {"app": "w"}}, "spec": {
                "containers": [{"name": "n", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {},
            }},
        }}),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"n\"}": {
                            ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                        }},
                        "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
                        "f:securityContext": {},
                    },
                },
            },
        }),
    );
    check(
        POD,
        json!({"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]}}),
        json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"x/y\"": {}}}, "f:spec": {"f:nodeSelector": {}, "f:tolerations": {}}}),
    );
}

#[test]
fn what_an_update_moves() {
    let case = Case::new(CONFIG_MAP);
    let first = case.update("a", None, json!({"data": {"x": "1", "y": "1"}}));
    let later = Case::new(CONFIG_MAP).at("2026-01-02T00:00:00Z");
    // Nothing changes: nothing moves.
    assert_eq!(later.update("b", Some(&first), first.clone()), first);
    // Clients that know nothing of managed fields do not drop them.
    assert_eq!(later.update("b", Some(&first), without_managed(&first)), first);
    let mut second = first.clone();
    second["data"] = json!({"x": "2", "z": "1"});
    let second = later.update("b", Some(&first), second);
    assert_eq!(fields(&second, "a"), json!({"f:data": {}}));
    assert_eq!(fields(&second, "b"), json!({"f:data": {"f:x": {}, "f:z": {}}}));
    let times: Vec<_> =
        second["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| e["time"].clone()).collect();
    assert_eq!(times, ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
    // Only a removal: its owner loses it, and the writer owns nothing.
    let mut third = second.clone();
    third["data"].as_object_mut().unwrap().remove("z");
    let third = later.update("c", Some(&second), third);
    assert_eq!(managers(&third), ["a Update", "b Update"]);
    assert_eq!(fields(&third, "b"), json!({"f:data": {"f:x": {}}}));
    let entry = &second["metadata"]["managedFields"][1];
    assert_eq!((&entry["fieldsType"], &entry["apiVersion"]), (&json!("FieldsV1"), &json!("v1")));
}

#[test]
fn structs_that_are_always_there() {
    let case = Case::new(DEPLOYMENT);
    let live = case.update("a", None, json!({"spec": {"replicas": 1}}));
    let mut next = live.clone();
    next["status"] = json!({"replicas": 1});
    let next = case.update("b", Some(&live), next);
    assert_eq!(fields(&next, "b"), json!({"f:status": {"f:replicas": {}}}));
    assert!(fields(&case.update("c", Some(&next), live), "b").is_null());
}

#[test]
fn what_clients_write_into_managed_fields() {
    let case = Case::new(CONFIG_MAP);
    let live = case.update("a", None, json!({"data": {"x": "1"}}));
    let with = |list: Value| {
        let mut object = live.clone();
        object["metadata"]["managedFields"] = list;
        object
    };
    for reset in [json!([]), json!([{}])] {
        let stripped = case.update("b", Some(&live), with(reset));
        assert!(stripped["metadata"].get("managedFields").is_none());
        // Nobody is tracked before the first apply.
        let mut next = stripped.clone();
        next["data"]["y"] = "2".into();
        assert!(case.update("b", Some(&stripped), next)["metadata"].get("managedFields").is_none());
    }
    let entry = |fields: Value| json!({"manager": "z", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let taken = case.update("b", Some(&live), with(json!([entry(json!({"f:data": {"f:x": {".": {}}}}))])));
    assert_eq!(taken["metadata"]["managedFields"], json!([entry(json!({"f:data": {"f:x": {}}}))]));
    for invalid in [json!([{"manager": "z"}]), json!([entry(json!({"x": {}}))]), json!([entry(json!({"f:data": 1}))])] {
        assert_eq!(case.update("b", Some(&live), with(invalid)), live);
    }
    let mut long = with(json!([entry(json!({"f:data": {}}))]));
    long["metadata"]["managedFields"][0]["manager"] = "m".repeat(129).into();
    let errors = update(&case.writer("b", ""), Some(&live), &mut long).unwrap_err();
    assert_eq!(errors[0].field, "metadata.managedFields[0].manager");
    // A subresource has no say.
    let mut by_status = with(json!([{}]));
    update(&case.writer("b", "status"), Some(&live), &mut by_status).unwrap();
    assert_eq!(by_status, live);
}

#[test]
fn endpoints_own_only_what_they_write() {
    let mut case = Case::new(DEPLOYMENT);
    let object = json!({"spec": {"replicas": 1}, "status": {"replicas": 1}});
    case.reset = Reset::Fields(&[&["f:status"]]);
    assert_eq!(fields(&case.update("m", None, object.clone()), "m"), json!({"f:spec": {"f:replicas": {}}}));
    case.reset = Reset::Fields(&[&["f:spec"], &["f:metadata", "f:labels"]]);
    assert_eq!(fields(&case.update("m", None, object), "m"), json!({"f:status": {"f:replicas": {}}}));
    let mut case = Case::new(POD);
    case.reset = Reset::AllBut(&[&["f:spec", "f:containers", "*", "f:resources"]]);
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}], "nodeName": "n"}});
    assert_eq!(
        fields(&case.update("m", None, pod), "m"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}}}}}})
    );
}

#[test]
fn old_updates_are_merged() {
    let mut live = Case::new(CONFIG_MAP).update("m00", None, json!({"data": {"k00": "1"}}));
    for i in 1..14 {
        let now: &'static str = format!("2026-01-01T00:00:{i:02}Z").leak();
        let case = Case::new(CONFIG_MAP).at(now);
        let mut next = live.clone();
        next["data"][format!("k{i:02}")] = "1".into();
        live = case.update(&format!("m{i:02}"), Some(&live), next);
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    let ancient = json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}, "f:k03": {}, "f:k04": {}}});
    assert_eq!((&entries[0]["fieldsV1"], &entries[0]["time"]), (&ancient, &json!("2026-01-01T00:00:04Z")));
}

/// What the server makes of entries that a client sends.
fn sent(entries: impl Iterator<Item = Value>) -> Vec<Value> {
    let entries: Vec<Value> = entries.collect();
    let object = json!({"metadata": {"name": "a", "managedFields": entries}, "data": {"k": "1"}});
    let old = typed(&Case::new(CONFIG_MAP), json!({"data": {"k": "1"}}));
    let written = Case::new(CONFIG_MAP).update("m", Some(&old), object);
    written["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

fn sent_entry(manager: usize, operation: &str, version: &str) -> Value {
    let fields = json!({"f:data": {format!("f:k{manager}"): {}}});
    json!({"manager": format!("m{manager}"), "operation": operation, "apiVersion": version,
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

#[test]
fn merged_updates_without_time_have_none() {
    let entries = sent((0..12).map(|n| sent_entry(n, "Update", "v1")));
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|entry| entry["manager"] == "ancient-changes"));
    assert!(entries.iter().all(|entry| entry.get("time").is_none()), "{entries:?}");
}

#[test]
fn many_sent_entries() {
    let entries = sent((0..50_000).map(|n| sent_entry(n, "Update", "v1")));
    assert_eq!(entries.len(), 10);
    let merged = entries.iter().find(|entry| entry["manager"] == "ancient-changes").unwrap();
    assert_eq!(merged["fieldsV1"]["f:data"].as_object().unwrap().len(), 49_991);
    assert_eq!(sent((0..50_000).map(|n| sent_entry(n, "Apply", "v1"))).len(), 50_000);
    // Of one manager the last counts, and versions that are no more own nothing.
    assert_eq!(sent((0..50_000).map(|n| sent_entry(n % 2, "Update", "v1"))).len(), 2);
    assert_eq!(sent((0..50_000).map(|n| sent_entry(n, "Update", &format!("v1alpha{n}")))).len(), 0);
}

#[test]
fn apply_merges_and_owns() {
    let case = Case::new(CONFIG_MAP);
    let created = case.apply("m", None, json!({"data": {"a": "1"}}), false).unwrap();
    assert_eq!(created["data"], json!({"a": "1"}));
    assert_eq!(managers(&created), ["m Apply"]);
    assert_eq!(fields(&created, "m"), json!({"f:data": {"f:a": {}}}));
    let later = Case::new(CONFIG_MAP).at("2026-02-02T00:00:00Z");
    assert_eq!(later.apply("m", Some(&created), json!({"data": {"a": "1"}}), false).unwrap(), created);
    // Another field; the first goes with its only owner's interest.
    let moved = later.apply("m", Some(&created), json!({"data": {"b": "2"}}), false).unwrap();
    assert_eq!(moved["data"], json!({"b": "2"}));
    // Shared fields stay until the last owner gives them up.
    let shared = later.apply("n", Some(&created), json!({"data": {"a": "1", "c": "3"}}), false).unwrap();
    assert_eq!(shared["metadata"]["managedFields"][1]["time"], "2026-02-02T00:00:00Z");
    let one_left = later.apply("m", Some(&shared), json!({}), false).unwrap();
    assert_eq!(one_left["data"], json!({"a": "1", "c": "3"}));
    assert_eq!(managers(&one_left), ["n Apply"]);
    let none_left = later.apply("n", Some(&one_left), json!({}), false).unwrap();
    assert!(none_left.get("data").is_none());
}

#[test]
fn conflicts() {
    let case = Case::new(DEPLOYMENT);
    let live = case.update("kubectl-create", None, json!({"spec": {"replicas": 1, "paused": true}}));
    let config = json!({"spec": {"replicas": 3}});
    assert_eq!(
        case.apply("me", Some(&live), config.clone(), false).unwrap_err(),
        "409 Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        case.apply("me", Some(&live), json!({"spec": {"replicas": 3, "paused": false}}), false).unwrap_err(),
        "409 Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let status = apply(&case.writer("me", ""), Some(&live), &typed(&case, config.clone()), false).unwrap_err();
    assert_eq!(
        status.to_value()["details"],
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-create\" using apps/v1", "field": ".spec.replicas"}]})
    );
    let forced = case.apply("me", Some(&live), config, true).unwrap();
    assert_eq!(forced["spec"], json!({"replicas": 3, "paused": true}));
    assert_eq!(fields(&forced, "me"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&forced, "kubectl-create"), json!({"f:spec": {"f:paused": {}}}));
    // The same value is no conflict; both own it then.
    let agreed = case.apply("other", Some(&forced), json!({"spec": {"replicas": 3}}), false).unwrap();
    assert_eq!(managers(&agreed), ["me Apply", "other Apply", "kubectl-create Update"]);
    let items = case.apply(
        "kubectl",
        Some(&case.update(
            "x",
            None,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}}),
        )),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}),
        false,
    );
    let path = ".spec.template.spec.containers[name=\"a\"].image";
    assert_eq!(
        items.unwrap_err(),
        format!("409 Apply failed with 1 conflict: conflict with \"x\" using apps/v1: {path}")
    );
}

#[test]
fn bad_configurations() {
    let case = Case::new(DEPLOYMENT);
    let check = |config: Value, message: &str| assert_eq!(case.apply("m", None, config, false).unwrap_err(), message);
    let typed = "500 failed to create typed patch object (b/a; apps/v1, Kind=Deployment): ";
    check(json!({"spec": {"foo": 1}}), &format!("{typed}.spec.foo: field not declared in schema"));
    check(
        json!({"spec": {"replicas": "1"}}),
        &format!("{typed}.spec.replicas: expected numeric (int or float), got string"),
    );
    check(
        json!({"spec": {"paused": "1", "strategy": {"type": 1}}}),
        &format!(
            "{typed}errors:\n  .spec.paused: expected boolean, got &{{1}}\n  .spec.strategy.type: expected string, got &value.valueUnstructured{{Value:1}}"
        ),
    );
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    check(
        containers(json!([{"name": "a"}, {"name": "a"}])),
        &format!("{typed}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
    );
    check(
        containers(json!([null])),
        &format!(
            "{typed}.spec.template.spec.containers: element 0: associative list with keys may not have a null element"
        ),
    );
    check(json!({"metadata": {"name": "a", "managedFields": []}}), "400 metadata.managedFields must be nil");
    let other = json!({"apiVersion": "v1", "kind": "Pod"});
    let status = apply(&case.writer("m", ""), None, &other, false).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "invalid object type: /v1, Kind=Pod"));
}

#[test]
fn lists() {
    let case = Case::new(POD);
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    let names = |pod: &Value| {
        let list = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let live = case.update("x", None, pod(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])));
    let applied =
        case.apply("m", Some(&live), pod(json!([{"name": "c"}, {"name": "n"}, {"name": "a"}])), false).unwrap();
    assert_eq!(names(&applied), ["b", "c", "n", "a"]);
    let gone = case.apply("m", Some(&applied), pod(json!([{"name": "a"}])), false).unwrap();
    assert_eq!(names(&gone), ["b", "c", "a"]);
    // Default of a key.
    let ports = |port: Value| pod(json!([{"name": "a", "ports": [port]}]));
    let live =
        case.apply("m", None, ports(json!({"containerPort": 80, "protocol": "TCP", "name": "x"})), false).unwrap();
    let applied = case.apply("m", Some(&live), ports(json!({"containerPort": 80, "hostPort": 1})), false).unwrap();
    // `name` and the spelled-out protocol were this manager's alone.
    assert_eq!(applied["spec"]["containers"][0]["ports"], json!([{"containerPort": 80, "hostPort": 1}]));
    // Sets.
    let meta = |list: Value| json!({"metadata": {"name": "a", "finalizers": list}});
    let live = case.apply("m", None, meta(json!(["a/a", "b/b"])), false).unwrap();
    let both = case.apply("n", Some(&live), meta(json!(["c/c", "a/a"])), false).unwrap();
    assert_eq!(both["metadata"]["finalizers"], json!(["c/c", "a/a", "b/b"]));
    let left = case.apply("m", Some(&both), meta(json!([])), false).unwrap();
    assert_eq!(left["metadata"]["finalizers"], json!(["c/c", "a/a"]));
    // What nobody owns stays.
    let mut live = case.apply("m", None, pod(json!([{"name": "a"}])), false).unwrap();
    live["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "stray"}));
    let left = case.apply("m", Some(&live), pod(json!([{"name": "b"}])), false).unwrap();
    assert_eq!(names(&left), ["stray", "b"]);
}

#[test]
fn duplicate_items() {
    let case = Case::new(POD);
    let env = |list: Value| json!({"spec": {"containers": [{"name": "a", "env": list}]}});
    let twice = json!([{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]);
    let live = case.update("x", None, env(twice.clone()));
    let owned = fields(&live, "x");
    assert_eq!(
        owned["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"]["f:env"],
        json!({".": {}, "k:{\"name\":\"E\"}": {}})
    );
    let other = case.apply("m", Some(&live), json!({"metadata": {"name": "a", "labels": {"l": "1"}}}), false).unwrap();
    assert_eq!(other["spec"]["containers"][0]["env"], twice);
    let one = case.apply("m", Some(&live), env(json!([{"name": "E", "value": "3"}])), true).unwrap();
    assert_eq!(one["spec"]["containers"][0]["env"], json!([{"name": "E", "value": "3"}]));
}

#[test]
fn before_the_first_apply() {
    let case = Case::new(CONFIG_MAP);
    let live = typed(&case, json!({"data": {"a": "1"}}));
    let applied = case.apply("m", Some(&live), json!({"data": {"b": "2"}}), false).unwrap();
    assert_eq!(managers(&applied), ["m Apply", "before-first-apply Update"]);
    let error = case.apply("m", Some(&live), json!({"data": {"a": "2"}}), false).unwrap_err();
    assert!(error.contains("conflict with \"before-first-apply\" using v1: .data.a"), "{error}");
}

#[test]
fn taking_over_from_client_side_apply() {
    let case = Case::new(CONFIG_MAP);
    let annotated = |data: Value, applied: Value| {
        let applied = typed(&case, applied).to_string();
        json!({"metadata": {"name": "a", "namespace": "b", "annotations": {LAST_APPLIED: applied}}, "data": data})
    };
    let live = case.update(
        "kubectl-client-side-apply",
        None,
        annotated(json!({"a": "1", "b": "x"}), json!({"data": {"a": "1", "b": "1"}})),
    );
    let done = case.apply("kubectl", Some(&live), json!({"data": {"a": "2"}}), false).unwrap();
    assert_eq!(done["data"], json!({"a": "2", "b": "x"}));
    let kept: Value = serde_json::from_str(done["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(kept["data"], json!({"a": "2"}));
    // Somebody changed this one since; other managers get no such help.
    for (manager, data, path) in [("kubectl", json!({"b": "2"}), ".data.b"), ("me", json!({"a": "2"}), ".data.a")] {
        let error = case.apply(manager, Some(&live), json!({"data": data}), false).unwrap_err();
        assert!(error.ends_with(&format!("\"kubectl-client-side-apply\" using v1: {path}")), "{error}");
    }
}

#[test]
fn custom_resources() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "free": {"x-kubernetes-preserve-unknown-fields": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {
            "type": "object", "required": ["port"], "properties": {
                "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "note": {"type": "string"}}}},
    }}}});
    let structure = crate::crd::Node::parse(&schema).structure();
    let writer = |manager: &'static str| Writer {
        manager,
        api_version: "example.com/v1",
        kind: "Thing",
        schema: &structure,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        reset: open(),
        versions: &OneVersion,
    };
    let thing =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    let run = |manager: &'static str, live: Option<&Value>, spec: Value, force: bool| {
        apply(&writer(manager), live, &thing(spec), force).map_err(|status| status.message)
    };
    let made = run("m", None, json!({
        "any": {"x": {"y": 1}, "list": [1, 2]}, "free": {"z": {"deep": true}}, "labels": {"a": "1"}, "atom": {"a": "1"},
        "plain": ["p"], "tags": ["t"], "ports": [{"port": 80, "note": "n"}],
    }), false).unwrap();
    assert_eq!(
        fields(&made, "m")["f:spec"],
        json!({
            "f:any": {"f:x": {".": {}, "f:y": {}}, "f:list": {}},
            "f:free": {"f:z": {".": {}, "f:deep": {}}},
            "f:labels": {"f:a": {}}, "f:atom": {}, "f:plain": {},
            "f:tags": {"v:\"t\"": {}},
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:note": {}, "f:port": {}}},
        })
    );
    // Granular where the schema is silent, atomic where it says so.
    let conflict = |spec: Value| run("n", Some(&made), spec, false).unwrap_err();
    assert_eq!(
        conflict(json!({"any": {"x": {"y": 2}}})),
        "Apply failed with 1 conflict: conflict with \"m\": .spec.any.x.y"
    );
    assert_eq!(conflict(json!({"atom": {"b": "2"}})), "Apply failed with 1 conflict: conflict with \"m\": .spec.atom");
    assert_eq!(
        conflict(json!({"plain": ["p", "q"]})),
        "Apply failed with 1 conflict: conflict with \"m\": .spec.plain"
    );
    let both = run(
        "n",
        Some(&made),
        json!({
            "any": {"x": {"w": 2}}, "tags": ["u"], "ports": [{"port": 80, "protocol": "UDP"}], "labels": {"b": "2"},
        }),
        false,
    )
    .unwrap();
    assert_eq!(both["spec"]["any"]["x"], json!({"w": 2, "y": 1}));
    assert_eq!(both["spec"]["tags"], json!(["t", "u"]));
    assert_eq!(both["spec"]["ports"], json!([{"port": 80, "note": "n"}, {"port": 80, "protocol": "UDP"}]));
    // A value that changes its kind.
    let turned = run("n", Some(&both), json!({"any": {"x": "text"}}), true).unwrap();
    assert_eq!(turned["spec"]["any"], json!({"x": "text", "list": [1, 2]}));
    assert!(fields(&turned, "m")["f:spec"]["f:any"].get("f:x").is_none());
    let left = run("m", Some(&both), json!({}), false).unwrap();
    assert_eq!(
        left["spec"],
        json!({"any": {"x": {"w": 2}}, "tags": ["u"], "ports": [{"port": 80, "protocol": "UDP"}], "labels": {"b": "2"}})
    );
    assert_eq!(
        run("m", None, json!({"nope": 1, "tags": [{}]}), false).unwrap_err(),
        "failed to create typed patch object (/a; example.com/v1, Kind=Thing): errors:\n  .spec.nope: field not declared in schema\n  \
         .spec.tags: element 0: associative list without keys has an element that's a map type"
    );
}

#[test]
fn schemas_that_changed() {
    let case = Case::new(POD);
    let mut live = case.apply("m", None, json!({"spec": {"nodeSelector": {"a": "b"}}}), false).unwrap();
    live["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:spec": {"f:nodeSelector": {"f:a": {}}}});
    let applied = case.apply("m", Some(&live), json!({"spec": {"nodeSelector": {"c": "d"}}}), false).unwrap();
    assert_eq!(applied["spec"]["nodeSelector"], json!({"c": "d"}));
    assert_eq!(fields(&applied, "m"), json!({"f:spec": {"f:nodeSelector": {}}}));
}

#[test]
fn scales() {
    let case = Case::new(DEPLOYMENT);
    let live = case.apply("owner", None, json!({"spec": {"replicas": 1, "paused": true}}), false).unwrap();
    let mut scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 1}});
    to_scale(&live, &["spec", "replicas"], &mut scale);
    assert_eq!(scale["metadata"]["managedFields"][0]["apiVersion"], "autoscaling/v1");
    let mut object = live.clone();
    from_scale(&mut object, "apps/v1", &["spec", "replicas"], &scale);
    assert_eq!(object, live, "what did not change");
    let scaled = Case {
        schema: "io.k8s.api.autoscaling.v1.Scale",
        api_version: "autoscaling/v1",
        kind: "Scale",
        now: "2026-03-03T00:00:00Z",
        reset: open(),
    };
    let mut new = scale.clone();
    new["spec"]["replicas"] = 5.into();
    update(&scaled.writer("hpa", "scale"), Some(&scale), &mut new).unwrap();
    from_scale(&mut object, "apps/v1", &["spec", "replicas"], &new);
    assert_eq!(fields(&object, "owner"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(
        object["metadata"]["managedFields"][1],
        json!({"manager": "hpa", "operation": "Update", "apiVersion": "apps/v1", "subresource": "scale", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}}}, "time": "2026-03-03T00:00:00Z"})
    );
}

#[test]
fn manager_names() {
    for (agent, name) in [
        ("kubectl/v1.35.0 (linux/amd64) kubernetes/abc", "kubectl"),
        ("curl\u{7}/8", "curl"),
        ("", ""),
        ("Mozilla", "Mozilla"),
    ] {
        assert_eq!(manager_name(agent), name);
    }
    assert_eq!(manager_name(&"ä".repeat(100)).len(), 128);
    assert!(validate_field_manager("fine name").is_empty());
    let errors = validate_field_manager("a\u{7}b");
    assert_eq!(errors[0].message, r#"Invalid value: "a\u0007b": invalid character U+0007 (at position 1)"#);
    assert_eq!(validate_field_manager(&"x".repeat(129)).len(), 1);
}

/// Trees of the kind that a ConfigMap and a custom resource hold.
fn any_data() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", "[0-2]", 0..4).prop_map(|map| json!(map))
}

fn any_containers() -> impl Strategy<Value = Value> {
    let container = ("[a-e]", "[0-1]", proptest::collection::btree_map("[xyz]", "[0-1]", 0..3));
    proptest::collection::vec(container, 0..4).prop_map(|list| {
        let mut seen = std::collections::HashSet::new();
        let items = list.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
        let items = items.map(|(name, image, env)| {
            let env: Vec<_> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"name": name, "image": image, "env": env})
        });
        json!({"spec": {"containers": items.collect::<Vec<_>>()}})
    })
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(leaves).sum(),
        Value::Array(list) => list.iter().map(leaves).sum(),
        Value::Null => 0,
        _ => 1,
    }
}

proptest! {
    #[test]
    fn an_applied_thing_can_be_taken_back(live in any_containers(), config in any_containers()) {
        let case = Case::new(POD);
        let live = case.update("x", None, live);
        let applied = case.apply("m", Some(&live), config, true).unwrap();
        prop_assert!(fields::check(builtin(POD).unwrap(), &applied).is_empty());
        let back = case.apply("m", Some(&applied), json!({}), true).unwrap();
        prop_assert!(!managers(&back).contains(&"m Apply".to_owned()));
        prop_assert!(leaves(&without_managed(&back)) <= leaves(&without_managed(&live)));
        if fields(&applied, "x") == fields(&live, "x") {
            // Nothing was taken over, so it is all as before, but for the order of items.
            let names = |pod: &Value| {
                let list = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
                let mut names: Vec<_> = list.iter().map(|c| c["name"].to_string()).collect();
                names.sort();
                names
            };
            prop_assert_eq!(names(&back), names(&live));
        }
    }

    #[test]
    fn every_field_has_an_owner_and_none_is_invented(first in any_data(), second in any_data(), third in any_data()) {
        let case = Case::new(CONFIG_MAP);
        let one = case.update("a", None, json!({"data": first}));
        let mut two = one.clone();
        two["data"] = second;
        let two = case.update("b", Some(&one), two);
        let three = case.apply("c", Some(&two), json!({"data": third}), true).unwrap();
        let mut owned = Set::new();
        for entry in three["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let fields = entry["fieldsV1"].as_object().unwrap();
            prop_assert_eq!(&set::parse(&entry["fieldsV1"]).unwrap(), fields, "normal form");
            set::union(&mut owned, fields);
        }
        let keys: Vec<String> = three["data"].as_object().into_iter().flatten().map(|(k, _)| format!("f:{k}")).collect();
        let data = owned.get("f:data").and_then(Value::as_object).cloned().unwrap_or_default();
        let owned: Vec<String> = data.keys().filter(|k| *k != ".").cloned().collect();
        prop_assert_eq!(owned, keys);
    }

    #[test]
    fn set_algebra(a in any_containers(), b in any_containers()) {
        let schema = builtin(POD).unwrap();
        let (a, b) = (fields::field_set(schema, &a), fields::field_set(schema, &b));
        let mut union = a.clone();
        set::union(&mut union, &b);
        let mut rest = union.clone();
        set::difference(&mut rest, &b);
        let mut expected = a.clone();
        set::difference(&mut expected, &b);
        prop_assert_eq!(&rest, &expected);
        prop_assert!(set::intersection(&rest, &b).is_empty());
        let mut back = expected;
        set::union(&mut back, &set::intersection(&a, &b));
        prop_assert_eq!(&back, &a);
        let parsed = set::parse(&Value::Object(union.clone())).unwrap();
        prop_assert_eq!(parsed, union);
    }
}
