//! An object of every kind, written as JSON, read in every encoding and shape, and written back from protobuf and CBOR.

use keelson_api::codec::convert::convert;
use keelson_api::codec::{Encoding, protobuf, yaml};
use keelson_api::schema::{Schema, Type};
use serde_json::{Value, json};

use super::support::{Api, TestServer};
use super::wire::{call, read, read_as};

/// Answered with the state of something else: tested by itself.
const NOT_ALONE: [&str; 1] = ["Binding"];
const PARTIAL: &str = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PARTIAL_LIST: &str = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = ";as=Table;g=meta.k8s.io;v=v1";

/// A resource, as discovery describes it.
struct Served {
    api_version: String,
    kind: String,
    /// Of the collection, in the default namespace.
    path: String,
    verbs: Vec<String>,
}

impl Served {
    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Every resource that is served; custom resources are no kinds of ours.
async fn discover(api: &Api) -> Vec<Served> {
    let mut roots = vec!["/api/v1".to_owned()];
    for group in api.ok("GET /apis", json!(null)).await["groups"].as_array().unwrap() {
        let versions = group["versions"].as_array().unwrap().iter();
        roots.extend(versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap())));
    }
    let mut served = Vec::new();
    for root in roots {
        let list = api.ok(&format!("GET {root}"), json!(null)).await;
        for resource in list["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if name.contains('/') {
                continue;
            }
            let namespace = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
            served.push(Served {
                api_version: list["groupVersion"].as_str().unwrap().to_owned(),
                kind: resource["kind"].as_str().unwrap().to_owned(),
                path: format!("{root}{namespace}/{name}"),
                verbs: resource["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect(),
            });
        }
    }
    served
}

fn manifests() -> Vec<Value> {
    let text = include_str!("manifests.yaml");
    text.split("\n---\n").map(|document| yaml::decode(document.as_bytes()).unwrap().value).collect()
}

/// The manifest for a kind.
fn manifest(kind: &Served) -> Value {
    let found = manifests().into_iter().find(|m| m["apiVersion"] == *kind.api_version && m["kind"] == *kind.kind);
    found.unwrap_or_else(|| {
        panic!(
            "{} {} is served: add a valid object of it to tests/encodings/manifests.yaml",
            kind.api_version, kind.kind
        )
    })
}

fn same(found: &Value, expected: &Value, what: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}\n found {found}\n not   {expected}")) }
}

/// The object as a decoder that knows its type leaves it. In CBOR a `double` is a float even when it is whole. In protobuf
/// `resources: {}` is the same as nothing there, as it is for Go, and objects in others (the claim templates of a
/// StatefulSet) have no type.
fn as_read(object: &Value, schema: &Schema, encoding: Encoding) -> Value {
    let mut object = object.clone();
    if matches!(encoding, Encoding::Cbor | Encoding::Protobuf) {
        schema.conform(&mut object).unwrap();
    }
    if encoding == Encoding::Protobuf {
        for (key, value) in object.as_object_mut().unwrap() {
            drop_types(&schema.field(key).unwrap().ty, value);
        }
    }
    object
}

fn drop_types(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Struct(link), Value::Object(map)) => {
            map.retain(|key, _| link.field(key).is_some_and(|field| field.tag != 0));
            map.iter_mut().for_each(|(key, value)| drop_types(&link.field(key).unwrap().ty, value));
        }
        (Type::List(item), Value::Array(items)) => items.iter_mut().for_each(|value| drop_types(item, value)),
        (Type::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| drop_types(item, value)),
        _ => {}
    }
}

fn without_type(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    object
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// What the objects need to be there.
async fn prepare(api: &Api) {
    let account = json!({"metadata": {"name": "default"}});
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", account).await;
}

#[tokio::test]
async fn is_the_same_in_every_encoding() {
    let test = TestServer::start().await;
    let api = test.admin();
    prepare(&api).await;
    let kinds = discover(&api).await;
    assert!(kinds.len() >= 30, "{}", kinds.len());
    let mut stored = 0;
    for kind in kinds.iter().filter(|kind| !NOT_ALONE.contains(&kind.kind.as_str())) {
        match (kind.has("create"), kind.has("get")) {
            (true, true) => {
                stored += 1;
                check_stored(&api, kind).await;
            }
            (true, false) => check_answered(&api, kind).await,
            (false, _) => check_computed(&api, kind).await,
        }
    }
    assert!(stored > 20, "{stored}");
}

async fn check_stored(api: &Api, kind: &Served) {
    let manifest = manifest(kind);
    let path = format!("{}/{}", kind.path, manifest["metadata"]["name"].as_str().unwrap());
    let what = format!("{} {}", kind.api_version, kind.kind);
    let created =
        call(api, &format!("POST {}", kind.path), "", Some((manifest.to_string().as_bytes(), Encoding::Json))).await;
    assert_eq!(created.code, 201, "{what}: {}", created.value());
    // Controllers of the server itself may change an object between two reads; then all is read again.
    for _ in 0..100 {
        let object = read(api, &path, Encoding::Json).await.value();
        match read_everywhere(api, kind, &path, &object).await {
            Ok(()) => return write_back(api, &path, &what).await,
            Err(why) => assert_ne!(read(api, &path, Encoding::Json).await.value(), object, "{why}"),
        }
    }
    panic!("{what} never rests");
}

/// Reads an object and its list in every form.
async fn read_everywhere(api: &Api, kind: &Served, path: &str, object: &Value) -> Result<(), String> {
    let what = format!("{} {}", kind.api_version, kind.kind);
    let schema = protobuf::schema_for(&kind.api_version, &kind.kind).unwrap_or_else(|| panic!("{what} has no schema"));
    for encoding in Encoding::ALL {
        let answer = read(api, path, encoding).await;
        let found = answer.value();
        let expected = as_read(object, schema, encoding);
        same(&as_read(&found, schema, encoding), &expected, &format!("{what} in {encoding:?}"))?;
        if encoding != Encoding::Json {
            let made = encoding.encode(object, Some(schema)).unwrap();
            if answer.bytes != made {
                return Err(format!("{what} in {encoding:?} is not what the codec makes of it"));
            }
        }
        // `keelson convert` agrees, both ways.
        let json = convert(&answer.bytes, Encoding::Json).unwrap();
        let json = Encoding::Json.decode(&json.bytes).unwrap().value;
        let canonical = as_read(&expected, schema, Encoding::Cbor);
        same(&json, &canonical, &format!("{what} converted from {encoding:?}"))?;
        let converted = convert(object.to_string().as_bytes(), encoding).unwrap();
        assert_eq!(converted.warnings, [""; 0], "{what}");
        let converted = as_read(&encoding.decode(&converted.bytes).unwrap().value, schema, Encoding::Cbor);
        same(&converted, &canonical, &format!("{what} converted to {encoding:?}"))?;

        let found = read_as(api, path, encoding, PARTIAL).await.value();
        same(&found, &metadata_only(object), &format!("{what}: metadata in {encoding:?}"))?;

        let list = read(api, &kind.path, encoding).await.value();
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!(format!("{}List", kind.kind)), &json!(kind.api_version))
        );
        assert!(list["metadata"]["resourceVersion"].is_string(), "{what} {encoding:?} {}", list["metadata"]);
        let item = of_name(&list["items"], object);
        let item = as_read(&item, schema, encoding);
        same(&item, &without_type(&expected), &format!("{what}: list in {encoding:?}"))?;

        let list = read_as(api, &kind.path, encoding, PARTIAL_LIST).await.value();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        let mut item = of_name(&list["items"], object);
        if encoding == Encoding::Protobuf {
            // Items have no type there.
            item["kind"] = "PartialObjectMetadata".into();
            item["apiVersion"] = "meta.k8s.io/v1".into();
        }
        same(&item, &metadata_only(object), &format!("{what}: list of metadata in {encoding:?}"))?;
    }
    for encoding in [Encoding::Json, Encoding::Yaml] {
        let table = read_as(api, &format!("{path}?includeObject=Object"), encoding, TABLE).await.value();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let rows = table["rows"].as_array().unwrap();
        assert_eq!((rows.len(), rows[0]["cells"].as_array().unwrap().len()), (1, columns.len()), "{what}");
        same(&rows[0]["object"], object, &format!("{what}: table in {encoding:?}"))?;

        let table = read_as(api, &kind.path, encoding, TABLE).await.value();
        assert_eq!(table["columnDefinitions"].as_array().unwrap(), columns);
        let rows: Vec<Value> = table["rows"].as_array().unwrap().iter().map(|row| row["object"].clone()).collect();
        same(
            &of_name(&Value::Array(rows), object),
            &metadata_only(object),
            &format!("{what}: table of all in {encoding:?}"),
        )?;

        let table = read_as(api, &format!("{}?includeObject=None", kind.path), encoding, TABLE).await.value();
        assert!(
            table["rows"].as_array().unwrap().iter().all(|row| row.get("object").is_none_or(Value::is_null)),
            "{what}"
        );
    }
    Ok(())
}

/// The item with the object's name.
#[track_caller]
fn of_name(items: &Value, object: &Value) -> Value {
    let name = &object["metadata"]["name"];
    let items = items.as_array().unwrap_or_else(|| panic!("no list: {items}"));
    items
        .iter()
        .find(|item| item["metadata"]["name"] == *name)
        .unwrap_or_else(|| panic!("no {name} in the list"))
        .clone()
}

/// What was read, written back as it is, changes nothing.
async fn write_back(api: &Api, path: &str, what: &str) {
    for encoding in [Encoding::Protobuf, Encoding::Cbor, Encoding::Yaml] {
        for attempt in 0.. {
            let before = read(api, path, encoding).await;
            let request = format!("PUT {path}");
            let answer = call(api, &request, encoding.media_type(), Some((&before.bytes, encoding))).await;
            if answer.code == 409 && attempt < 100 {
                continue;
            }
            assert_eq!(answer.code, 200, "{what} written back in {encoding:?}: {}", answer.value());
            same(&answer.value(), &before.value(), &format!("{what} written back in {encoding:?}")).unwrap();
            break;
        }
    }
}

/// A question and its answer, in every encoding.
async fn check_answered(api: &Api, kind: &Served) {
    let what = format!("{} {}", kind.api_version, kind.kind);
    let question = manifest(kind);
    let schema = protobuf::schema_for(&kind.api_version, &kind.kind).unwrap_or_else(|| panic!("{what} has no schema"));
    let request = format!("POST {}", kind.path);
    let mut expected = None;
    for encoding in Encoding::ALL {
        let body = encoding.encode(&question, Some(schema)).unwrap();
        let answer = call(api, &request, encoding.media_type(), Some((&body, encoding))).await;
        assert_eq!(
            (answer.code, answer.content_type.as_str()),
            (201, encoding.media_type()),
            "{what}: {}",
            answer.value()
        );
        let answer = as_read(&answer.value(), schema, Encoding::Protobuf);
        same(expected.get_or_insert_with(|| answer.clone()), &answer, &format!("{what} in {encoding:?}")).unwrap();
    }
}

/// What is only read.
async fn check_computed(api: &Api, kind: &Served) {
    let list = read(api, &kind.path, Encoding::Json).await.value();
    for encoding in Encoding::ALL {
        let found = read(api, &kind.path, encoding).await.value();
        same(&found["items"], &list["items"], &format!("{} {} in {encoding:?}", kind.api_version, kind.kind)).unwrap();
    }
}

#[tokio::test]
async fn subresources_have_bodies_in_every_encoding() {
    let test = TestServer::start().await;
    let api = test.admin();
    prepare(&api).await;
    let all = manifests();
    let of = |kind: &str| all.iter().find(|m| m["kind"] == kind).unwrap().clone();
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", of("ServiceAccount")).await;
    api.ok("POST /apis/apps/v1/namespaces/default/deployments", of("Deployment")).await;
    let encode = |value: &Value, encoding: Encoding| {
        let text = |key: &str| value[key].as_str().unwrap();
        encoding.encode(value, protobuf::schema_for(text("apiVersion"), text("kind"))).unwrap()
    };
    for encoding in Encoding::ALL {
        let accept = encoding.media_type();
        let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["x"], "expirationSeconds": 700}});
        let request = "POST /api/v1/namespaces/default/serviceaccounts/all/token";
        let answer = call(&api, request, accept, Some((&encode(&token, encoding), encoding))).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (201, accept), "{:?}", answer.bytes);
        let answer = answer.value();
        assert_eq!((&answer["kind"], &answer["spec"]["expirationSeconds"]), (&json!("TokenRequest"), &json!(700)));
        assert!(answer["status"]["token"].as_str().unwrap().len() > 100);

        let path = "/apis/apps/v1/namespaces/default/deployments/all/scale";
        let mut scale = read(&api, path, encoding).await.value();
        assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
        let replicas = 1 + Encoding::ALL.iter().position(|e| *e == encoding).unwrap();
        scale["spec"] = json!({ "replicas": replicas });
        let answer = call(&api, &format!("PUT {path}"), accept, Some((&encode(&scale, encoding), encoding))).await;
        assert_eq!((answer.code, &answer.value()["spec"]["replicas"]), (200, &json!(replicas)));

        let pods = "/api/v1/namespaces/default/pods";
        api.ok(&format!("POST {pods}"), of("Pod")).await;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "all"}, "target": {"kind": "Node", "name": "n"}});
        let request = format!("POST {pods}/all/binding");
        let answer = call(&api, &request, accept, Some((&encode(&binding, encoding), encoding))).await;
        assert_eq!(
            (answer.code, answer.content_type.as_str(), &answer.value()["status"]),
            (201, accept, &json!("Success"))
        );
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "all"}, "deleteOptions": {"gracePeriodSeconds": 0}});
        let request = format!("POST {pods}/all/eviction");
        let answer = call(&api, &request, accept, Some((&encode(&eviction, encoding), encoding))).await;
        assert_eq!(
            (answer.code, answer.content_type.as_str(), &answer.value()["status"]),
            (201, accept, &json!("Success"))
        );

        let maps = "/api/v1/namespaces/default/configmaps";
        api.ok(&format!("POST {maps}"), of("ConfigMap")).await;
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "wrong"}});
        let request = format!("DELETE {maps}/all");
        let answer = call(&api, &request, accept, Some((&encode(&options, encoding), encoding))).await;
        assert_eq!(
            (answer.code, answer.content_type.as_str(), &answer.value()["reason"]),
            (409, accept, &json!("Conflict"))
        );
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let answer = call(&api, &request, accept, Some((&encode(&options, encoding), encoding))).await;
        assert_eq!(
            (answer.code, answer.content_type.as_str(), &answer.value()["status"]),
            (200, accept, &json!("Success"))
        );
    }
}
