use std::collections::BTreeSet;

use serde_json::Value;

use crate::kind::{Scope, Verb};
use crate::kinds;

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&super::v3_document(&kinds::all(), &super::group_version_path(group, version)).unwrap())
        .unwrap()
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

/// Parts of other servers' documents.
const NONE: &[super::Part] = &[];

#[test]
fn documents_are_whole() {
    let kinds = kinds::all();
    let index: Value = serde_json::from_slice(&super::Hashes::new(&kinds).v3_index(Vec::new())).unwrap();
    assert!(index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    for kind in &kinds {
        let path = super::group_version_path(&kind.group, &kind.version);
        assert!(index["paths"].get(&path).is_some(), "{path}");
        let document = document(&kind.group, &kind.version);
        check_references(&document);
        let schema = &document["components"]["schemas"][kind.schema.as_ref()];
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], kind.kind.as_ref(), "{}", kind.schema);
    }
    check_references(&serde_json::from_slice(&super::v2_document(&kinds, NONE)).unwrap());
    assert!(super::v3_document(&kinds, "apis/none/v1").is_none());
}

/// Each operation of a document as `METHOD path`, with the operation and its path's item.
fn operations(document: &Value) -> Vec<(String, &Value, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters");
            methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation, item))
        })
        .collect()
}

/// What the kinds' verbs say that can be asked, and nothing else, is in the documents.
#[test]
fn every_verb_has_its_operation() {
    let kinds = kinds::all();
    let mut expected = BTreeSet::new();
    let mut add = |methods: &[&str], path: &str| {
        for method in methods {
            assert!(expected.insert(format!("{method} {path}")), "{method} {path} twice");
        }
    };
    add(&["GET"], "/api/");
    add(&["GET"], "/apis/");
    add(&["GET"], "/version/");
    add(&["GET"], "/openid/v1/jwks");
    add(&["GET"], "/.well-known/openid-configuration");
    let versions: BTreeSet<_> = kinds.iter().map(|kind| (&*kind.group, &*kind.version)).collect();
    for (group, version) in versions {
        add(&["GET"], &format!("/{}/", super::group_version_path(group, version)));
    }
    for group in kinds.iter().map(|kind| &kind.group).filter(|g| !g.is_empty()).collect::<BTreeSet<_>>() {
        add(&["GET"], &format!("/apis/{group}/"));
    }
    for kind in &kinds {
        let base = format!("/{}", super::group_version_path(&kind.group, &kind.version));
        let space = if kind.scope == Scope::Namespaced { "/namespaces/{namespace}" } else { "" };
        for verb in [
            Verb::Create,
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ] {
            let collection = format!("{base}{space}/{}", kind.resource);
            match verb {
                _ if !kind.has_verb(verb) => {}
                Verb::Create => add(&["POST"], &collection),
                Verb::DeleteCollection => add(&["DELETE"], &collection),
                Verb::List => {
                    add(&["GET"], &collection);
                    if !space.is_empty() {
                        add(&["GET"], &format!("{base}/{}", kind.resource));
                    }
                }
                Verb::Get => add(&["GET"], &format!("{collection}/{{name}}")),
                Verb::Update => add(&["PUT"], &format!("{collection}/{{name}}")),
                Verb::Patch => add(&["PATCH"], &format!("{collection}/{{name}}")),
                Verb::Delete => add(&["DELETE"], &format!("{collection}/{{name}}")),
                Verb::Watch => {
                    let watch = format!("{base}/watch{space}/{}", kind.resource);
                    add(&["GET"], &watch);
                    add(&["GET"], &format!("{watch}/{{name}}"));
                    if !space.is_empty() {
                        add(&["GET"], &format!("{base}/watch/{}", kind.resource));
                    }
                }
            }
        }
        for subresource in &kind.subresources {
            let path = format!("{base}{space}/{}/{{name}}/{}", kind.resource, subresource.name);
            for verb in &subresource.verbs {
                let method = match verb {
                    Verb::Create => "POST",
                    Verb::Get => "GET",
                    Verb::Update => "PUT",
                    Verb::Patch => "PATCH",
                    Verb::Delete => "DELETE",
                    other => panic!("{other:?} of {path}"),
                };
                add(&[method], &path);
                if subresource.name == "proxy" {
                    add(&[method], &format!("{path}/{{path}}"));
                }
            }
            if subresource.name == "proxy" {
                add(&["HEAD", "OPTIONS"], &path);
                add(&["HEAD", "OPTIONS"], &format!("{path}/{{path}}"));
            }
        }
    }
    let v2: Value = serde_json::from_slice(&super::v2_document(&kinds, NONE)).unwrap();
    let of_v2: BTreeSet<String> = operations(&v2).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(of_v2, expected);

    let mut of_v3 = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let index: Value = serde_json::from_slice(&super::Hashes::new(&kinds).v3_index(Vec::new())).unwrap();
    for path in index["paths"].as_object().unwrap().keys() {
        let document: Value = serde_json::from_slice(&super::v3_document(&kinds, path).unwrap()).unwrap();
        for (name, operation, item) in operations(&document) {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", operation["operationId"]);
            // What the path has in braces is declared.
            let mut declared: Vec<_> = item["parameters"].as_array().into_iter().flatten().collect();
            declared.retain(|parameter| parameter["in"] == "path");
            let parts: Vec<_> = name.split('/').filter_map(|part| part.strip_prefix('{')).collect();
            assert_eq!(declared.len(), parts.len(), "{name}");
            assert!(
                parts
                    .iter()
                    .all(|part| declared.iter().any(|p| format!("{}}}", p["name"].as_str().unwrap()) == **part))
            );
            of_v3.insert(name);
        }
    }
    assert_eq!(of_v3, expected);
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
    let common: Vec<_> = item["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(common, ["name", "namespace", "pretty"]);
    let watch = &document["paths"]["/apis/apps/v1/watch/namespaces/{namespace}/deployments/{name}"]["get"];
    assert_eq!(watch["operationId"], "watchAppsV1NamespacedDeployment");
    assert_eq!(watch["x-kubernetes-action"], "watch");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["put"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(
        document["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"],
        "listAppsV1DeploymentForAllNamespaces"
    );
}

#[test]
fn defaults_and_what_is_required_are_as_upstream() {
    let document = document("", "v1");
    let schemas = &document["components"]["schemas"];
    let of = |name: &str| &schemas[format!("io.k8s.api.core.v1.{name}")];
    assert_eq!(of("ContainerPort")["properties"]["protocol"]["default"], "TCP");
    assert_eq!(of("Container")["properties"]["name"]["default"], "");
    assert_eq!(of("LocalObjectReference")["properties"]["name"]["default"], "");
    assert!(of("LocalObjectReference").get("required").is_none());
    assert_eq!(of("SecretKeySelector")["required"], serde_json::json!(["key"]));
    assert_eq!(of("Event")["required"], serde_json::json!(["metadata", "involvedObject"]));
    assert!(of("Pod").get("required").is_none());
    let groups = &of("PodSecurityContext")["properties"]["supplementalGroups"];
    assert_eq!(groups["items"], serde_json::json!({ "type": "integer", "format": "int64", "default": 0 }));
    // A quantity is no object, and so has no `{}`.
    let limits = &of("ResourceRequirements")["properties"]["limits"];
    let quantity = "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity";
    assert_eq!(limits["additionalProperties"], serde_json::json!({ "$ref": quantity }));
    assert_eq!(of("SeccompProfile")["x-kubernetes-unions"][0]["discriminator"], "type");
}

#[test]
fn hashes_follow_the_kinds() {
    let kinds = kinds::all();
    let first = &kinds[0];
    let path = super::group_version_path(&first.group, &first.version);
    let [all, again, fewer] = [&kinds[..], &kinds[..], &kinds[1..]].map(super::Hashes::new);
    assert_eq!((all.v2(), all.v3(&path)), (again.v2(), again.v3(&path)));
    assert_ne!(all.v3(&path), fewer.v3(&path));
    assert_ne!(all.v2(), fewer.v2());
    let other = if path == "apis/batch/v1" { "apis/apps/v1" } else { "apis/batch/v1" };
    assert_eq!(all.v3(other), fewer.v3(other), "another group's document is the same");
    assert!(all.v3("apis/none/v1").is_none());
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
    let document: Value = serde_json::from_slice(&super::v2_document(&kinds, NONE)).unwrap();
    let message = super::v2_protobuf(&kinds, NONE);
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

#[test]
fn enumerated_fields_name_their_values() {
    let documents: Vec<Value> = ["api/v1", "apis/apps/v1", "apis/networking.k8s.io/v1"]
        .map(|path| serde_json::from_slice(&super::v3_document(&kinds::all(), path).unwrap()).unwrap())
        .into();
    let of = |at: usize, pointer: &str| {
        documents[at].pointer(&format!("/components/schemas/io.k8s.api.{pointer}/enum")).cloned()
    };
    let list = |values: &[&str]| Some(Value::from(values.to_vec()));
    assert_eq!(of(0, "core.v1.PodSpec/properties/restartPolicy"), list(&["Always", "Never", "OnFailure"]));
    assert_eq!(of(0, "core.v1.ServiceSpec/properties/ipFamilies/items"), list(&["", "IPv4", "IPv6"]));
    assert_eq!(of(0, "core.v1.PodSpec/properties/nodeName"), None);
    assert_eq!(of(1, "apps.v1.DeploymentStrategy/properties/type"), list(&["Recreate", "RollingUpdate"]));
    assert_eq!(of(2, "networking.v1.NetworkPolicySpec/properties/policyTypes/items"), list(&["Egress", "Ingress"]));
    // Each line is sorted, and names strings that there are.
    for line in include_str!("enums.txt").lines() {
        let (values, fields) = line.split_once(": ").unwrap();
        let values: Vec<_> = values.split(' ').map(|value| value.trim_matches('"')).collect();
        assert!(values.is_sorted(), "{line}");
        for field in fields.split(' ') {
            let (owner, name) = field.rsplit_once('.').unwrap();
            let schema = crate::schema::builtin(&format!("io.k8s.api.{owner}")).unwrap_or_else(|| panic!("{owner}"));
            let ty = &schema.field(name).unwrap_or_else(|| panic!("{field}")).ty;
            use crate::schema::Type;
            let ty = if let Type::List(of) | Type::Map(of) = ty { of } else { ty };
            assert!(matches!(ty, Type::String), "{field}");
        }
    }
}
