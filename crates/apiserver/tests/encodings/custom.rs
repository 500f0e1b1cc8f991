//! Custom resources: JSON, YAML and CBOR, also of their lists and watches; protobuf of their metadata only.

use keelson_api::codec::{Encoding, cbor};
use serde_json::{Value, json};

use super::support::{Api, TestServer};
use super::wire::{call, read, read_as};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const TEXTS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Cbor];

async fn with_things(api: &Api) {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer"}, "share": {"type": "number"},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}});
    let crd = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    api.ok(&format!("POST {CRDS}"), crd).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while api.call(&format!("GET {THINGS}"), json!(null)).await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "things are not served in time");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn have_all_encodings_but_protobuf() {
    let test = TestServer::start().await;
    let api = test.admin();
    with_things(&api).await;
    let spec = json!({"n": -3, "share": 1.5, "any": {"x": [1, {"y": "AAE="}, 2.25, true]}});
    for (i, encoding) in TEXTS.into_iter().enumerate() {
        let name = format!("t{i}");
        let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec});
        let body = encoding.encode(&thing, None).unwrap();
        let answer = call(&api, &format!("POST {THINGS}"), encoding.media_type(), Some((&body, encoding))).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (201, encoding.media_type()), "{}", answer.value());
        assert_eq!(answer.value()["spec"], spec);
        let path = format!("{THINGS}/{name}");
        let object = read(&api, &path, Encoding::Json).await.value();
        for encoding in TEXTS {
            let answer = read(&api, &path, encoding).await;
            assert_eq!(answer.value(), object, "{encoding:?}");
            let again =
                call(&api, &format!("PUT {path}"), encoding.media_type(), Some((&answer.bytes, encoding))).await;
            assert_eq!((again.code, again.value()), (200, object.clone()), "{encoding:?}");
            let list = read(&api, THINGS, encoding).await.value();
            assert_eq!(list["kind"], "ThingList");
            // Items say their type, as upstream's do.
            assert!(list["items"].as_array().unwrap().contains(&object), "{encoding:?} {list}");
        }
        let metadata = read_as(&api, &path, Encoding::Protobuf, ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
        assert_eq!(metadata.value()["metadata"], object["metadata"]);
    }
    let list = read_as(&api, THINGS, Encoding::Protobuf, ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    assert_eq!(list.value()["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn protobuf_is_refused() {
    let test = TestServer::start().await;
    let api = test.admin();
    with_things(&api).await;
    let protobuf = Encoding::Protobuf.media_type();
    let answer = call(&api, &format!("GET {THINGS}"), protobuf, None).await;
    assert_eq!((answer.code, answer.content_type.as_str()), (406, protobuf), "{:?}", answer.bytes);
    let answer = call(&api, &format!("GET {THINGS}"), &format!("{protobuf},application/json"), None).await;
    assert_eq!((answer.code, answer.content_type.as_str()), (200, "application/json"));
    let answer = call(&api, &format!("POST {THINGS}"), "", Some((b"k8s\0", Encoding::Protobuf))).await;
    let message = "the body of the request was in an unknown format - accepted media types include: \
        application/json, application/yaml, application/cbor";
    assert_eq!((answer.code, &answer.value()["message"]), (415, &json!(message)));
}

#[tokio::test]
async fn are_watched_in_cbor() {
    let test = TestServer::start().await;
    let api = test.admin();
    with_things(&api).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"n": 1}});
    let thing = api.ok(&format!("POST {THINGS}"), thing).await;
    let headers = [("accept", "application/cbor-seq")];
    let response = api.send_with(&format!("GET {THINGS}?watch=1"), "", &headers).await;
    assert_eq!(response.headers()["content-type"], "application/cbor-seq");
    let frame = http_body_util::BodyExt::frame(&mut response.into_body()).await.unwrap().unwrap();
    let event: Value = cbor::decode_sequence(frame.data_ref().unwrap()).unwrap().remove(0).value;
    assert_eq!(event, json!({"type": "ADDED", "object": thing}));
}
