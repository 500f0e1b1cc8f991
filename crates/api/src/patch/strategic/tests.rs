use serde_json::{Value, json};

use crate::schema::builtin;

const POD: &str = "io.k8s.api.core.v1.Pod";

fn apply(name: &str, mut object: Value, patch: &Value) -> Result<Value, String> {
    super::apply(&mut object, patch, builtin(name).unwrap()).map_err(|e| format!("{} {}", e.code, e.message))?;
    Ok(object)
}

#[track_caller]
fn check(name: &str, object: Value, patch: Value, expected: Value) {
    assert_eq!(apply(name, object, &patch).unwrap(), expected, "{patch}");
}

/// Patches of a pod's spec.
#[track_caller]
fn spec(object: Value, patch: Value, expected: Value) {
    check(POD, json!({"spec": object}), json!({"spec": patch}), json!({"spec": expected}));
}

#[track_caller]
fn fails(object: Value, patch: Value, message: &str) {
    assert_eq!(apply(POD, json!({"spec": object}), &json!({"spec": patch})).unwrap_err(), message, "{patch}");
}

#[test]
fn maps_merge() {
    check(
        POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
    check(
        POD,
        json!({}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"c": "3"}}}),
    );
    spec(
        json!({"nodeName": "a", "hostname": "h"}),
        json!({"nodeName": "b"}),
        json!({"nodeName": "b", "hostname": "h"}),
    );
    spec(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "replace", "fsGroup": 2}}),
        json!({"securityContext": {"fsGroup": 2}}),
    );
    spec(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
        json!({"securityContext": {}}),
    );
    spec(json!({}), json!({"securityContext": {"$patch": "delete", "runAsUser": 1}}), json!({}));
    spec(json!({"securityContext": {"runAsUser": 1}}), json!({"securityContext": null}), json!({}));
}

#[test]
fn lists_of_maps_merge_by_key() {
    let one = || json!({"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80, "name": "p"}]}]});
    spec(
        one(),
        json!({"containers": [{"name": "a", "image": "2"}]}),
        json!({"containers": [{"name": "a", "image": "2", "ports": [{"containerPort": 80, "name": "p"}]}]}),
    );
    // Upstream puts the patch's items first, then the others that stood behind.
    spec(
        one(),
        json!({"containers": [{"name": "b"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a", "image": "1", "ports": [{"containerPort": 80, "name": "p"}]}]}),
    );
    spec(
        one(),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": null, "hostPort": 1}]}]}),
        json!({"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80, "hostPort": 1}]}]}),
    );
    spec(
        one(),
        json!({"containers": [{"$patch": "replace"}, {"name": "x", "image": "9"}]}),
        json!({"containers": [{"name": "x", "image": "9"}]}),
    );
    spec(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"$patch": "delete", "name": "a"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    spec(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "3"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]}]}),
    );
    check(
        "io.k8s.api.core.v1.Node",
        json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "r"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "$setElementOrder/conditions": [{"type": "Ready"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r"}]}}),
    );
}

#[test]
fn other_lists_are_replaced() {
    spec(
        json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x", "y"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["z"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["z"]}]}),
    );
}

#[test]
fn lists_of_scalars() {
    let meta = |list: Value| json!({"metadata": {"finalizers": list}});
    check(POD, meta(json!(["a", "b"])), meta(json!(["c", "a"])), meta(json!(["c", "a", "b"])));
    check(
        POD,
        meta(json!(["a", "b"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        meta(json!(["b"])),
    );
    check(
        POD,
        json!({"metadata": {}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {}}),
    );
    check(
        POD,
        meta(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["d", "a"], "finalizers": ["d"]}}),
        meta(json!(["d", "a", "c"])),
    );
}

#[test]
fn element_order() {
    let list = |names: &[&str]| json!({"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
    let order = |names: &[&str], patch: Value| {
        let mut patch = patch;
        patch["$setElementOrder/containers"] = list(names)["containers"].clone();
        patch
    };
    spec(list(&["a", "b", "c"]), order(&["c", "a"], json!({})), list(&["b", "c", "a"]));
    spec(list(&["a", "b"]), order(&["a", "n", "b"], json!({"containers": [{"name": "n"}]})), list(&["a", "n", "b"]));
    spec(list(&["a", "b"]), order(&["b"], json!({"containers": [{"$patch": "delete", "name": "a"}]})), list(&["b"]));
    spec(
        list(&["s", "a", "b"]),
        order(&["a", "b"], json!({"containers": [{"name": "b", "image": "i"}]})),
        json!({"containers": [{"name": "s"}, {"name": "a"}, {"name": "b", "image": "i"}]}),
    );
    spec(json!({}), order(&["a"], json!({"containers": [{"name": "a"}]})), list(&["a"]));
    spec(json!({}), order(&["a"], json!({})), json!({}));
}

#[test]
fn retain_keys() {
    let volumes = |volume: Value| json!({"volumes": [volume]});
    spec(
        volumes(json!({"name": "v", "emptyDir": {}})),
        volumes(json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}})),
        volumes(json!({"name": "v", "hostPath": {"path": "/"}})),
    );
    check(
        "io.k8s.api.apps.v1.Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    fails(
        json!({"volumes": [{"name": "v"}]}),
        volumes(json!({"name": "v", "$retainKeys": ["name"], "hostPath": {}})),
        "400 invalid patch format of retainKeys",
    );
}

#[test]
fn types_may_change() {
    let service = |port: Value| json!({"spec": {"ports": [{"port": 80, "targetPort": port}]}});
    check("io.k8s.api.core.v1.Service", service(json!("http")), service(json!(8080)), service(json!(8080)));
    check("io.k8s.api.core.v1.Service", service(json!(1)), service(json!(8080)), service(json!(8080)));
}

#[test]
fn bad_patches() {
    let one = || json!({"containers": [{"name": "a"}]});
    fails(
        one(),
        json!({"containers": [{"image": "x"}]}),
        "500 map: map[image:x] does not contain declared merge key: name",
    );
    fails(
        one(),
        json!({"containers": [{"$patch": "delete"}]}),
        "500 map: map[$patch:delete] does not contain declared merge key: name",
    );
    fails(
        one(),
        json!({"containers": [{"$patch": "gone", "name": "a"}]}),
        "500 unknown patch type: gone in map: map[$patch:gone name:a]",
    );
    fails(one(), json!({"$patch": "gone"}), "500 unknown patch type: gone in map: map[$patch:gone]");
    fails(one(), json!({"containers": [["a"]]}), "422 the server rejected our request due to an error in our request");
    fails(one(), json!({"containers": ["a"]}), "500 list element types are not identical");
    fails(one(), json!({"$setElementOrder/containers": 1}), "400 invalid patch format of setElementOrder list");
    fails(
        one(),
        json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
        "500 The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
    );
}

#[test]
fn long_lists_take_linear_time() {
    let names = |prefix: &str| (0..50_000).map(|i| format!("{prefix}{i}").into()).collect::<Vec<Value>>();
    let meta = |list: Vec<Value>| json!({"metadata": {"finalizers": list}});
    let started = std::time::Instant::now();
    let merged = apply(POD, meta(names("a")), &meta(names("b"))).unwrap();
    assert_eq!(merged["metadata"]["finalizers"].as_array().unwrap().len(), 100_000);
    let containers = |list: Vec<Value>| json!({"spec": {"containers": list.into_iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
    let merged = apply(POD, containers(names("a")), &containers(names("b"))).unwrap();
    assert_eq!(merged["spec"]["containers"].as_array().unwrap().len(), 100_000);
    // Quadratic time would be minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
