//! What following field ownership costs: `cargo run --release -p keelson-api --example ownership`. Prints microseconds per
//! call for a small ConfigMap and a Deployment.

use std::hint::black_box;
use std::time::Instant;

use keelson_api::apply::{OneVersion, Reset, Writer, apply, update};
use keelson_api::schema::builtin;
use serde_json::{Value, json};

const CALLS: u32 = 20_000;

fn main() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default", "labels": {"l": "1"}},
        "data": {"a": "x".repeat(900), "b": "2"}});
    measure("ConfigMap", "v1", "io.k8s.api.core.v1.ConfigMap", map, |object| object["data"]["b"] = "3".into());
    let container = |name: &str| {
        json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "ports": [{"containerPort": 80, "protocol": "TCP"}], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})
    };
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"type": "Recreate"}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [container("one"), container("two")], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "volumes": [{"name": "v", "emptyDir": {}}]}}}});
    let name = "io.k8s.api.apps.v1.Deployment";
    measure("Deployment", "apps/v1", name, deployment, |object| object["spec"]["replicas"] = 2.into());
}

fn measure(kind: &str, api_version: &str, schema: &str, object: Value, change: impl Fn(&mut Value)) {
    let Some(schema) = builtin(schema) else { return };
    let reset = Reset::Fields(&[&["f:status"]]);
    let (now, versions) = ("2026-01-01T00:00:00Z", &OneVersion);
    let writer = Writer { manager: "m", api_version, kind, schema, subresource: "", now, reset, versions };
    let time = |what: &str, call: &mut dyn FnMut()| {
        let begin = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        println!("{kind} {what}: {:.2} µs", begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
    };
    time("copy", &mut || drop(black_box(object.clone())));
    time("copy and create", &mut || {
        let mut new = object.clone();
        let _ = black_box(update(&writer, None, &mut new));
    });
    let mut live = object.clone();
    let _ = update(&writer, None, &mut live);
    time("copy and update of nothing", &mut || {
        let mut new = live.clone();
        let _ = black_box(update(&writer, Some(&live), &mut new));
    });
    let mut changed = live.clone();
    change(&mut changed);
    time("copy and update by another", &mut || {
        let mut new = changed.clone();
        let _ = black_box(update(&Writer { manager: "other", ..writer }, Some(&live), &mut new));
    });
    time("apply of the same", &mut || drop(black_box(apply(&writer, Some(&live), &object, false))));
}
