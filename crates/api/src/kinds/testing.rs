//! `check(kind, object, expected)`: objects go through a kind's defaults, preparation and rules as in the API server.

use serde_json::{Value, json};

use crate::kind::{Cell, Kind, Write};

/// The built-in kind `apps/v1 Deployment` or `v1 Pod`, also those that are only bodies.
pub(crate) fn kind(name: &str) -> Kind {
    let all = crate::kinds::all().into_iter().chain(crate::kinds::bodies());
    all.into_iter()
        .find(|k| format!("{} {}", k.api_version(), k.kind) == name)
        .unwrap_or_else(|| panic!("no kind {name}"))
}

/// `spec` with the fields of `patch` set over it, by JSON merge patch.
pub(crate) fn with(base: &Value, patch: Value) -> Value {
    let mut object = base.clone();
    json_patch::merge(&mut object, &patch);
    object
}

pub(crate) fn created(kind_name: &str, object: Value) -> Value {
    let kind = kind(kind_name);
    let mut object = decoded(&kind, object);
    kind.strategy.default(&mut object);
    let once = object.clone();
    kind.strategy.default(&mut object);
    assert_eq!(once, object, "defaults are idempotent");
    kind.strategy.prepare(&mut object, Write::Create);
    object
}

/// As the schema leaves what a client sent.
fn decoded(kind: &Kind, mut object: Value) -> Value {
    let schema = kind.structure().unwrap_or_else(|| panic!("no schema {}", kind.schema));
    schema.conform(&mut object).unwrap_or_else(|e| panic!("{e}: {object}"));
    object
}

fn messages(kind: &Kind, object: &Value, write: Write<'_>) -> Vec<String> {
    kind.strategy.validate(object, write).iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

/// As in the API server, where objects have their type.
fn prepare(kind: &Kind, object: &mut Value, write: Write<'_>) {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
    kind.strategy.prepare(object, write);
    if let Some(map) = object.as_object_mut() {
        map.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
    }
}

/// A create breaks exactly these rules.
#[track_caller]
pub(crate) fn check(kind_name: &str, object: Value, expected: &[&str]) {
    let object = created(kind_name, object);
    assert_eq!(messages(&kind(kind_name), &object, Write::Create), expected, "{object}");
}

/// An update (or, with a subresource's name, a write to it) breaks exactly these rules. Gives the object that would be
/// stored.
#[track_caller]
pub(crate) fn check_write(kind_name: &str, sub: &str, old: &Value, patch: Value, expected: &[&str]) -> Value {
    let kind = kind(kind_name);
    let mut object = decoded(&kind, with(old, patch));
    kind.strategy.default(&mut object);
    let write = if sub.is_empty() { Write::Update(old) } else { Write::Subresource(sub, old) };
    prepare(&kind, &mut object, write);
    let messages: Vec<_> = messages(&kind, &object, write)
        .into_iter()
        .map(|m| m.split('\n').next().unwrap_or_default().to_string())
        .collect();
    assert_eq!(messages, expected, "{object}");
    object
}

/// Rows as `kubectl get` prints them, wide columns after `|`.
#[track_caller]
pub(crate) fn check_row(kind_name: &str, object: Value, expected: &str) {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let mut object = object;
    if object["metadata"]["creationTimestamp"].is_null() {
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let mut wide = false;
    let mut cells = Vec::new();
    for column in &kind(kind_name).columns {
        if column.priority > 0 && !wide {
            wide = true;
            cells.push("|".to_string());
        }
        let Cell::Fn(cell) = column.cell else { panic!("{} has no function", column.name) };
        cells.push(match cell(&object, now) {
            Value::String(text) => text,
            other => other.to_string(),
        });
    }
    assert_eq!(cells.join(" "), expected);
}

/// Everything a kind can be asked about an object, with the answers thrown away.
fn ask_all(kind: &Kind, object: &Value, old: &Value) {
    let writes = [
        Write::Create,
        Write::Update(old),
        Write::Subresource("status", old),
        Write::Subresource("resize", old),
        Write::Subresource("ephemeralcontainers", old),
        Write::Subresource("finalize", old),
        Write::Subresource("scale", old),
    ];
    for write in writes {
        let mut object = object.clone();
        kind.strategy.default(&mut object);
        kind.strategy.prepare(&mut object, write);
        kind.strategy.validate(&object, write);
        kind.strategy.warnings(&object, write);
        crate::validation::meta::before_update(&mut object, old);
        crate::validation::meta::validate_create(kind, &object);
        crate::validation::meta::validate_update(kind, &object, old);
    }
    let mut object = object.clone();
    kind.strategy.grace_period_seconds(&object, None);
    kind.strategy.held(&object);
    kind.strategy.mark_deleted(&mut object);
    for column in &kind.columns {
        if let Cell::Fn(cell) = column.cell {
            cell(&object, jiff::Timestamp::UNIX_EPOCH);
        }
    }
    for field in &kind.field_selectors {
        field.get(&object);
    }
    if let Some(scale) = &kind.scale {
        let read = scale.read(&object);
        scale.write(&mut object, &read);
    }
    if let Some(storage) = kind.storage {
        (storage.to_stored)(&mut object);
        (storage.from_stored)(&mut object);
    }
    let _ = crate::kinds::bind(&mut object, old, jiff::Timestamp::UNIX_EPOCH);
}

#[test]
fn every_kind_survives_odd_objects() {
    let odd = [
        json!({}),
        json!(null),
        json!([]),
        json!("x"),
        json!({"metadata": 1, "spec": [], "status": "x", "data": 3}),
        json!({"spec": {"containers": [1, null, {"ports": {}, "env": [[]]}], "template": [], "selector": 3, "ports": [null]}}),
        json!({"rules": [1], "subjects": {}, "roleRef": [], "endpoints": [2], "subsets": [{"addresses": 4}], "ports": 1}),
    ];
    for kind in crate::kinds::all().into_iter().chain(crate::kinds::bodies()) {
        for object in &odd {
            odd.iter().for_each(|old| ask_all(&kind, object, old));
        }
    }
}

/// JSON made of the words that the kinds look for.
fn wordy() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    const KEYS: [&str; 78] = [
        "conditions",
        "rules",
        "onExitCodes",
        "podFailurePolicy",
        "successPolicy",
        "succeededIndexes",
        "completions",
        "schedule",
        "jobTemplate",
        "metrics",
        "resource",
        "target",
        "behavior",
        "scaleUp",
        "policies",
        "currentMetrics",
        "volumeClaimTemplates",
        "updateStrategy",
        "capacity",
        "accessModes",
        "dataSourceRef",
        "hard",
        "scopes",
        "max",
        "min",
        "schedulingGates",
        "affinity",
        "nodeAffinity",
        "resourceClaims",
        "restartPolicyRules",
        "metadata",
        "spec",
        "status",
        "containers",
        "initContainers",
        "ephemeralContainers",
        "template",
        "selector",
        "matchLabels",
        "matchExpressions",
        "operator",
        "values",
        "key",
        "ports",
        "port",
        "targetPort",
        "nodePort",
        "type",
        "clusterIP",
        "clusterIPs",
        "name",
        "namespace",
        "image",
        "env",
        "valueFrom",
        "fieldRef",
        "fieldPath",
        "apiVersion",
        "resources",
        "limits",
        "requests",
        "cpu",
        "memory",
        "volumes",
        "projected",
        "sources",
        "items",
        "path",
        "strategy",
        "rollingUpdate",
        "maxSurge",
        "maxUnavailable",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "subsets",
        "addresses",
    ];
    const TEXTS: [&str; 20] = [
        "",
        "x",
        "Always",
        "1Gi",
        "-1",
        "25%",
        "%",
        "é",
        "../",
        "/",
        "[",
        "metadata.labels['",
        "v1",
        "None",
        "10.0.0.1",
        "RollingUpdate",
        "LoadBalancer",
        "In",
        "9999999999999999999E",
        "2026-01-01T00:00:00Z",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0), Just(-1), Just(80), Just(i64::MAX), Just(i64::MIN)].prop_map(Value::from),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 96, 8, |inner| {
        let entries = proptest::collection::vec((proptest::sample::select(&KEYS[..]), inner.clone()), 0..8);
        prop_oneof![
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            4 => entries.prop_map(|e| Value::Object(e.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn every_kind_survives_wordy_objects(object in wordy(), old in wordy()) {
        for kind in crate::kinds::all().into_iter().chain(crate::kinds::bodies()) {
            ask_all(&kind, &object, &old);
            ask_all(&kind, &json!({"metadata": old, "spec": object, "status": object}), &json!({"metadata": object, "spec": old}));
        }
    }
}

#[test]
fn names_are_unique() {
    let mut seen = std::collections::HashSet::new();
    for kind in crate::kinds::all() {
        let name = format!("{} {}", kind.version, kind.group_resource());
        for sub in &kind.subresources {
            assert!(seen.insert(format!("{name}/{}", sub.name)));
        }
        assert!(seen.insert(name.clone()), "{name}");
    }
    for kind in crate::kinds::all().into_iter().chain(crate::kinds::bodies()) {
        assert!(crate::schema::builtin(&kind.schema).is_some(), "{} has no schema", kind.schema);
        assert!(!kind.is_stored() || !kind.columns.is_empty(), "{} has no columns", kind.kind);
    }
}

/// What a typed client reads and sends back unchanged changes nothing.
#[test]
fn typed_clients_change_nothing() {
    use k8s_openapi::api;

    fn check<T: serde::Serialize + serde::de::DeserializeOwned>(kind_name: &str, object: Value) {
        let stored = created(kind_name, object);
        let typed: T = serde_json::from_value(stored.clone()).unwrap();
        let kind = kind(kind_name);
        let mut sent = decoded(&kind, serde_json::to_value(typed).unwrap());
        // `created` does not set them; a typed client does.
        for field in ["apiVersion", "kind"] {
            sent.as_object_mut().unwrap().remove(field);
        }
        kind.strategy.default(&mut sent);
        kind.strategy.prepare(&mut sent, Write::Update(&stored));
        assert_eq!(messages(&kind, &sent, Write::Update(&stored)), Vec::<String>::new());
        assert!(crate::validation::same(&sent, &stored), "{sent}\n{stored}");
    }
    let pod = json!({
        "hostNetwork": false, "tolerations": [{"operator": "Exists"}], "overhead": {"cpu": 0.25},
        "initContainers": [{"name": "i", "image": "i", "env": [{"name": "A", "value": ""}]}],
        "containers": [{
            "name": "c", "image": "i:1", "args": [], "stdin": false, "ports": [{"containerPort": 80, "hostPort": 0}],
            "env": [{"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
            "livenessProbe": {"grpc": {"port": 1}, "initialDelaySeconds": 0},
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
        }],
        "volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/"}}, {"name": "c", "emptyDir": {"sizeLimit": "1024Mi"}}],
    });
    let workload = json!({"spec": {
        "paused": false, "minReadySeconds": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": pod},
    }});
    check::<api::core::v1::Pod>("v1 Pod", json!({"spec": pod}));
    check::<api::apps::v1::Deployment>("apps/v1 Deployment", workload.clone());
    check::<api::apps::v1::ReplicaSet>("apps/v1 ReplicaSet", workload.clone());
    let rc = with(&workload, json!({"spec": {"selector": {"matchLabels": null, "a": "b"}, "paused": null}}));
    check::<api::apps::v1::DaemonSet>("apps/v1 DaemonSet", workload.clone());
    check::<api::apps::v1::StatefulSet>(
        "apps/v1 StatefulSet",
        with(
            &workload,
            json!({"spec": {"paused": null, "volumeClaimTemplates": [
                {"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
            ]}}),
        ),
    );
    let once = with(&pod, json!({"restartPolicy": "Never"}));
    let job = json!({"template": {"spec": once}});
    check::<api::batch::v1::Job>("batch/v1 Job", json!({"metadata": {"name": "j", "uid": "u"}, "spec": job}));
    check::<api::batch::v1::CronJob>(
        "batch/v1 CronJob",
        json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job}}}),
    );
    let target = json!({"kind": "Deployment", "name": "d"});
    check::<api::autoscaling::v2::HorizontalPodAutoscaler>(
        "autoscaling/v2 HorizontalPodAutoscaler",
        json!({"spec": {"maxReplicas": 2, "scaleTargetRef": target, "behavior": {}}}),
    );
    check::<api::policy::v1::PodDisruptionBudget>(
        "policy/v1 PodDisruptionBudget",
        json!({"spec": {"minAvailable": 1, "selector": {}}}),
    );
    check::<api::core::v1::PersistentVolume>(
        "v1 PersistentVolume",
        json!({"spec": {"capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}}),
    );
    check::<api::core::v1::PersistentVolumeClaim>(
        "v1 PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    check::<api::core::v1::LimitRange>(
        "v1 LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": 1}}]}}),
    );
    check::<api::core::v1::ResourceQuota>("v1 ResourceQuota", json!({"spec": {"hard": {"pods": 1}}}));
    check::<api::core::v1::ReplicationController>("v1 ReplicationController", rc);
    check::<api::core::v1::PodTemplate>("v1 PodTemplate", json!({"template": workload["spec"]["template"]}));
    check::<api::core::v1::Service>(
        "v1 Service",
        json!({"spec": {"type": "NodePort", "publishNotReadyAddresses": false, "ports": [{"port": 80, "nodePort": 0, "name": ""}]}}),
    );
    check::<api::core::v1::Node>(
        "v1 Node",
        json!({"spec": {"podCIDR": "10.0.0.0/24", "unschedulable": false}, "status": {"capacity": {"cpu": 2}}}),
    );
    check::<api::core::v1::Namespace>("v1 Namespace", json!({"metadata": {"name": "a"}}));
    check::<api::core::v1::Secret>("v1 Secret", json!({"stringData": {"a": "b"}, "immutable": false}));
    check::<api::discovery::v1::EndpointSlice>(
        "discovery.k8s.io/v1 EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}], "ports": [{}]}),
    );
    check::<api::rbac::v1::RoleBinding>(
        "rbac.authorization.k8s.io/v1 RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s", "apiGroup": ""}]}),
    );
    check::<api::scheduling::v1::PriorityClass>(
        "scheduling.k8s.io/v1 PriorityClass",
        json!({"metadata": {"name": "a"}, "value": 0, "globalDefault": false}),
    );
}
