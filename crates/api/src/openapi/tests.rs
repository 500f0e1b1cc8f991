use serde_json::Value;

use crate::kinds;

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&super::v3_document(&kinds::all(), group, version).unwrap()).unwrap()
}

/// Every `$ref` in the value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => found.push(target),
                    value => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn check_references(document: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
    }
}

#[test]
fn documents_are_whole() {
    let kinds = kinds::all();
    let index: Value = serde_json::from_slice(&super::v3_index(&kinds)).unwrap();
    assert!(index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    for kind in &kinds {
        let path = super::group_version_path(&kind.group, &kind.version);
        assert!(index["paths"].get(&path).is_some(), "{path}");
        let document = document(&kind.group, &kind.version);
        check_references(&document);
        let schema = &document["components"]["schemas"][kind.schema.as_ref()];
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], kind.kind.as_ref(), "{}", kind.schema);
    }
    check_references(&serde_json::from_slice(&super::v2_document(&kinds)).unwrap());
    assert!(super::v3_document(&kinds, "none", "v1").is_none());
}

#[test]
fn deployments_are_described_as_upstream_does() {
    let document = document("apps", "v1");
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert!(spec["properties"]["replicas"]["description"].as_str().unwrap().starts_with("Number of desired pods."));
    let strategy = &spec["properties"]["strategy"];
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(strategy["default"], serde_json::json!({}));
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], serde_json::json!(["name"]));
    assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");

    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(item["patch"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(item["patch"]["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["put"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(
        document["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"],
        "listAppsV1DeploymentForAllNamespaces"
    );
}

#[test]
fn hashes_follow_the_kinds() {
    let kinds = kinds::all();
    assert_eq!(super::v3_hash(&kinds, "apps", "v1"), super::v3_hash(&kinds, "apps", "v1"));
    assert_ne!(super::v3_hash(&kinds, "apps", "v1"), super::v3_hash(&kinds[..kinds.len() / 2], "", "v1"));
    assert_ne!(super::v2_hash(&kinds), super::v2_hash(&kinds[1..]));
}

/// Finds fields of messages by their numbers.
fn messages<'a>(mut raw: &'a [u8], path: &[u32], found: &mut Vec<&'a [u8]>) {
    use crate::codec::protobuf::wire;
    let Some((first, rest)) = path.split_first() else { return found.push(raw) };
    while let Some((tag, field)) = wire::next(&mut raw).unwrap() {
        if let (true, wire::Field::Bytes(inner)) = (tag == *first, field) {
            messages(inner, rest, found);
        }
    }
}

#[test]
fn v2_as_protobuf() {
    let kinds = kinds::all();
    let document: Value = serde_json::from_slice(&super::v2_document(&kinds)).unwrap();
    let message = super::v2_protobuf(&kinds);
    let get = |path: &[u32]| {
        let mut found = Vec::new();
        messages(&message, path, &mut found);
        found.into_iter().map(|raw| String::from_utf8_lossy(raw).into_owned()).collect::<Vec<_>>()
    };
    let keys = |key: &str| document[key].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(get(&[1]), ["2.0"]);
    assert_eq!(get(&[9, 1, 1]), keys("definitions"));
    assert_eq!(get(&[8, 2, 1]), keys("paths"));
    // Extensions of definitions, and their names.
    let extensions = get(&[9, 1, 2, 31, 1]);
    assert!(extensions.contains(&"x-kubernetes-group-version-kind".to_owned()), "{extensions:?}");
}
