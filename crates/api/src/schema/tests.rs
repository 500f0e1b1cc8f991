use serde_json::{Value, json};

use super::{Type, builtin, names};

#[test]
fn every_type_parses() {
    let mut fields = 0;
    for name in names() {
        let schema = builtin(&name).unwrap();
        fields += schema.fields.len();
        assert!(schema.fields.windows(2).all(|w| w[0].name < w[1].name), "{name} has a field twice");
    }
    assert!(fields > 1_500, "{fields}");
}

fn conform(name: &str, mut object: Value) -> Result<(Value, Vec<String>), String> {
    let unknown = builtin(name).unwrap().conform(&mut object).map_err(|e| e.to_string())?;
    Ok((object, unknown))
}

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

#[test]
fn unknown_fields_go_and_are_named() {
    let (object, unknown) = conform(POD, json!({
        "apiVersion": "v1", "kind": "Pod", "colour": 1, "metadata": {"name": "a", "labels": {"any": "b"}},
        "spec": {"foo": 1, "containers": [{"name": "x"}, {"name": "y", "imagePullPolic": "z", "env": [{"name": "E", "v": 1}]}],
            "volumes": [{"name": "v", "emptyDir": {}, "emptydir": {}}]},
    })).unwrap();
    let expected = [
        r#"unknown field "colour""#,
        r#"unknown field "spec.containers[1].env[0].v""#,
        r#"unknown field "spec.containers[1].imagePullPolic""#,
        r#"unknown field "spec.foo""#,
        r#"unknown field "spec.volumes[0].emptydir""#,
    ];
    assert_eq!(unknown, expected);
    assert_eq!(
        object["spec"],
        json!({"containers": [{"name": "x"}, {"name": "y", "env": [{"name": "E"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}]})
    );
}

#[test]
fn nulls_zero_values_and_canonical_forms() {
    let (object, _) = conform(DEPLOYMENT, json!({
        "metadata": {"creationTimestamp": null, "namespace": "", "annotations": {}, "finalizers": []},
        "spec": {"replicas": 0, "paused": false, "minReadySeconds": 0, "strategy": {}, "selector": {}, "template": {
            "metadata": {"creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05.678+02:00"},
            "spec": {"containers": [{"name": "", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x": null}},
                "livenessProbe": {"httpGet": {"port": 0}}, "securityContext": {}}], "terminationGracePeriodSeconds": 0}}},
        "status": {},
    })).unwrap();
    assert_eq!(
        object,
        json!({
            "spec": {"replicas": 0, "selector": {}, "template": {
                "metadata": {"deletionTimestamp": "2026-01-02T01:04:05Z"},
                "spec": {"containers": [{"name": "", "resources": {"limits": {"cpu": "500m", "memory": "1Gi", "x": "0"}},
                    "livenessProbe": {"httpGet": {"port": 0}}, "securityContext": {}}], "terminationGracePeriodSeconds": 0}}},
        })
    );
    let (lease, _) =
        conform("io.k8s.api.coordination.v1.Lease", json!({"spec": {"renewTime": "2026-01-02T03:04:05Z"}})).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2026-01-02T03:04:05.000000Z");
}

#[test]
fn wrong_types() {
    let check = |name: &str, object: Value, message: &str| assert_eq!(conform(name, object).unwrap_err(), message);
    check(
        DEPLOYMENT,
        json!({"spec": {"replicas": "3"}}),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        DEPLOYMENT,
        json!({"spec": {"replicas": 1.5}}),
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        DEPLOYMENT,
        json!({"spec": {"replicas": 3000000000u32}}),
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}}),
        "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
    );
    check(
        DEPLOYMENT,
        json!({"spec": []}),
        "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
    );
    check(
        POD,
        json!({"spec": {"containers": {}}}),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    check(
        POD,
        json!({"metadata": {"labels": {"a": true}}}),
        "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(POD, json!("x"), "json: cannot unmarshal string into Go value of type v1.Pod");
    check("io.k8s.api.core.v1.Secret", json!({"data": {"a": "!"}}), "illegal base64 data at input byte 0");
    check(
        "io.k8s.api.core.v1.Service",
        json!({"spec": {"ports": [{"targetPort": true}]}}),
        "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32",
    );
    check(
        POD,
        json!({"metadata": {"creationTimestamp": "soon"}}),
        "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
    );
    check(
        POD,
        json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
}

#[test]
fn merge_keys() {
    let field = |ty: &str, name: &str| {
        let merge = builtin(ty).unwrap().field(name).unwrap().merge.clone();
        merge.map(|m| (m.patch_key.into_owned(), m.retain_keys, m.list_map_keys.join(",")))
    };
    let some = |key: &str, retain: bool, keys: &str| Some((key.to_owned(), retain, keys.to_owned()));
    assert_eq!(field("io.k8s.api.core.v1.PodSpec", "volumes"), some("name", true, "name"));
    assert_eq!(field("io.k8s.api.core.v1.Container", "ports"), some("containerPort", false, "containerPort,protocol"));
    assert_eq!(field("io.k8s.api.core.v1.EphemeralContainer", "volumeMounts"), some("mountPath", false, "mountPath"));
    assert_eq!(field("io.k8s.api.core.v1.ServiceSpec", "ports"), some("port", false, "port,protocol"));
    assert_eq!(field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers"), some("", false, ""));
    assert_eq!(field("io.k8s.api.core.v1.Container", "image"), None);
}

#[test]
fn inline_messages_are_looked_through() {
    let volume = builtin("io.k8s.api.core.v1.Volume").unwrap();
    assert!(matches!(volume.field("hostPath").unwrap().ty, Type::Struct(_)));
    assert!(volume.field("volumeSource").is_none());
}

/// Our table against `k8s-openapi`, which is made from upstream's published schema: the same fields with the same types.
#[test]
fn the_table_agrees_with_k8s_openapi() {
    let definitions = crate::openapi::definitions();
    let mut compared = 0;
    for (name, definition) in &definitions {
        let (Some(schema), Some(properties)) = (builtin(name), definition["properties"].as_object()) else {
            let values = [
                "Time",
                "MicroTime",
                "Quantity",
                "IntOrString",
                "FieldsV1",
                "RawExtension",
                "Patch",
                "JSON",
                "SubresourceStatus",
            ];
            let discovery = ["API", "GroupVersionForDiscovery", "ServerAddressByClientCIDR"];
            let mut special = values.iter().chain(&discovery);
            let package = &name[..=name.rfind('.').unwrap()];
            // A group version that is not served has no types in the table, one that is has them all.
            assert!(
                special.any(|s| name.contains(s)) || !names().any(|other| other.starts_with(package)),
                "{name} is not in the table"
            );
            continue;
        };
        compared += 1;
        let mut ours: Vec<&str> = Vec::new();
        collect(schema, &mut ours);
        ours.sort_unstable();
        let theirs: Vec<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(ours, theirs, "{name}");
        for (key, property) in properties {
            let field = schema.field(key).unwrap();
            assert_eq!(shape(&field.ty), json_shape(property), "{name}.{key}");
        }
    }
    assert!(compared > 300, "{compared}");
}

fn collect<'a>(schema: &'a super::Schema, names: &mut Vec<&'a str>) {
    names.extend(schema.fields.iter().map(|f| f.name.as_ref()));
    for inline in &schema.inline {
        if let Type::Struct(link) = &inline.ty {
            collect(link, names);
        }
    }
}

fn shape(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".into(),
        Type::Int32 => "integer int32".into(),
        Type::Int64 => "integer int64".into(),
        Type::Double => "number double".into(),
        Type::String | Type::Duration => "string".into(),
        Type::Bytes => "string byte".into(),
        Type::Quantity => "Quantity".into(),
        Type::Time => "Time".into(),
        Type::MicroTime => "MicroTime".into(),
        Type::IntOrString => "IntOrString".into(),
        Type::Any => "RawExtension".into(),
        Type::Fields => "FieldsV1".into(),
        Type::Struct(link) => link.name.rsplit('.').next().unwrap().into(),
        Type::List(item) => format!("list {}", shape(item)),
        Type::Map(item) => format!("map {}", shape(item)),
        Type::Wrapped(inner) => shape(inner),
        Type::Or(item, instead) => {
            let instead = match instead {
                super::Instead::Bool => "Bool",
                super::Instead::List => "Array",
                super::Instead::Strings => "StringArray",
            };
            format!("{}Or{instead}", shape(item))
        }
    }
}

fn json_shape(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit(['.', '/']).next().unwrap();
        return if name == "JSON" { "RawExtension" } else { name }.into();
    }
    match schema["type"].as_str().unwrap() {
        "array" => format!("list {}", json_shape(&schema["items"])),
        "object" => format!("map {}", json_shape(&schema["additionalProperties"])),
        primitive => [primitive, schema["format"].as_str().unwrap_or("")].join(" ").trim().into(),
    }
}

/// All types at once must stay small: they are resident once used.
#[test]
fn the_table_is_small() {
    let fields: usize = names().map(|name| builtin(&name).unwrap().fields.capacity()).sum();
    let merges = 600 * size_of::<super::Merge>();
    let bytes = fields * size_of::<super::Field>() + names().count() * size_of::<super::Schema>() + merges;
    assert!(bytes < 400 * 1024, "{fields} fields of {} bytes: {bytes}", size_of::<super::Field>());
    println!("{fields} fields of {} bytes: {bytes}", size_of::<super::Field>());
}
