//! Who gets what: refusals, errors, indentation, compression.

use std::io::Read;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http_body_util::BodyExt;
use keelson_api::codec::Encoding;
use serde_json::{Value, json};

use super::support::TestServer;
use super::wire::{call, read};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn refusals() {
    let test = TestServer::start().await;
    let api = test.admin();
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor";
    let refused = async |request: &str, accept: &str, message: &str| {
        let answer = call(&api, request, accept, None).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (406, "application/json"), "{request} {accept}");
        assert_eq!((&answer.value()["reason"], &answer.value()["message"]), (&json!("NotAcceptable"), &json!(message)));
    };
    refused(&format!("GET {MAPS}"), "text/html", &format!("only the following media types are accepted: {all}")).await;
    let streams =
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq";
    let message = format!("only the following media types are accepted: {streams}");
    refused(&format!("GET {MAPS}?watch=1"), "text/plain", &message).await;
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let message = "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
    refused(&format!("GET {MAPS}"), partial, message).await;
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let message = "you requested PartialObjectMetadataList, but the requested object is not a list (*core.Namespace)";
    refused("GET /api/v1/namespaces/default", partial, message).await;

    // Nothing is written whose result could not be shown.
    let body = json!({"metadata": {"name": "unseen"}}).to_string();
    let answer = call(&api, &format!("POST {MAPS}"), "text/html", Some((body.as_bytes(), Encoding::Json))).await;
    assert_eq!(answer.code, 406);
    assert_eq!(call(&api, &format!("GET {MAPS}/unseen"), "", None).await.code, 404);

    let (code, status) = api.call(&format!("POST+text/html {MAPS}"), json!({})).await;
    let message = format!("the body of the request was in an unknown format - accepted media types include: {all}");
    assert_eq!((code, &status["message"]), (415, &json!(message)));
    let options = format!("GET {MAPS}?includeObject=All");
    let answer = call(&api, &options, "application/json;as=Table;g=meta.k8s.io;v=v1", None).await;
    let message = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty";
    assert_eq!((answer.code, &answer.value()["message"]), (400, &json!(message)));
}

#[tokio::test]
async fn errors_come_in_the_encoding_asked_for() {
    let test = TestServer::start().await;
    let api = test.admin();
    for encoding in Encoding::ALL {
        let answer = call(&api, &format!("GET {MAPS}/none"), encoding.media_type(), None).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (404, encoding.media_type()));
        let status = answer.value();
        assert_eq!(
            (&status["kind"], &status["apiVersion"], &status["code"]),
            (&json!("Status"), &json!("v1"), &json!(404))
        );
        assert_eq!(
            (&status["message"], &status["details"]["name"]),
            (&json!("configmaps \"none\" not found"), &json!("none"))
        );
        let answer =
            call(&api, &format!("POST {MAPS}"), encoding.media_type(), Some((b"\xff\xff\xff", encoding))).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (400, encoding.media_type()));
        let message = answer.value()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("the object provided is unrecognized (must be of type ConfigMap): "), "{message}");
        assert!(message.ends_with("(ffffff)"), "{message}");
    }
}

/// What is accepted from binary encodings is held to the same rules.
#[tokio::test]
async fn bodies_are_judged_alike() {
    let test = TestServer::start().await;
    let api = test.admin();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "nonsense": 1});
    let cbor = Encoding::Cbor.encode(&object, None).unwrap();
    let answer = call(&api, &format!("POST {MAPS}?fieldValidation=Strict"), "", Some((&cbor, Encoding::Cbor))).await;
    assert_eq!(answer.code, 400);
    assert!(answer.value()["message"].as_str().unwrap().contains("unknown field \"nonsense\""), "{}", answer.value());
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": 1}});
    let cbor = Encoding::Cbor.encode(&wrong, None).unwrap();
    let answer = call(&api, &format!("POST {MAPS}"), "", Some((&cbor, Encoding::Cbor))).await;
    assert!(answer.value()["message"].as_str().unwrap().contains("cannot unmarshal number"), "{}", answer.value());
    // A duplicate key makes CBOR invalid.
    let answer = call(&api, &format!("POST {MAPS}"), "", Some((b"\xa2\x41a\x01\x41a\x02", Encoding::Cbor))).await;
    assert!(answer.value()["message"].as_str().unwrap().contains("duplicate map key"), "{}", answer.value());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    let protobuf = Encoding::Protobuf.encode(&pod, keelson_api::codec::protobuf::schema_for("v1", "Pod")).unwrap();
    let answer = call(&api, &format!("POST {MAPS}"), PROTOBUF, Some((&protobuf, Encoding::Protobuf))).await;
    let message = "Pod in version \"v1\" cannot be handled as a ConfigMap";
    assert_eq!((answer.code, &answer.value()["message"]), (400, &json!(message)));
}

#[tokio::test]
async fn discovery_has_all_encodings() {
    let test = TestServer::start().await;
    let api = test.admin();
    for path in ["/api", "/apis", "/apis/apps", "/api/v1", "/apis/apps/v1"] {
        let mut expected = read(&api, path, Encoding::Json).await.value();
        // In upstream's structs these are always there.
        for encoding in [Encoding::Yaml, Encoding::Cbor, Encoding::Protobuf] {
            let mut found = read(&api, path, encoding).await.value();
            for document in [&mut expected, &mut found] {
                document.as_object_mut().unwrap().remove("apiVersion");
                let resources = document.get_mut("resources").and_then(Value::as_array_mut);
                for resource in resources.into_iter().flatten() {
                    resource.as_object_mut().unwrap().retain(|_, value| value != "");
                }
            }
            assert_eq!(found, expected, "{path} in {encoding:?}");
        }
    }
    let discovery = format!("{PROTOBUF};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    assert_eq!(call(&api, "GET /apis", &discovery, None).await.value()["kind"], "APIGroupList");
}

#[tokio::test]
async fn people_get_indentation() {
    let test = TestServer::start().await;
    let api = test.admin();
    let text = async |path: &str, headers: &[(&str, &str)]| {
        let response = api.send_with(&format!("GET {path}"), "", headers).await;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let curl = [("user-agent", "curl/8.5.0")];
    // A list of one moment: the server writes meanwhile.
    let now = api.ok("GET /api/v1/namespaces", json!(null)).await["metadata"]["resourceVersion"].clone();
    let list = format!("/api/v1/namespaces?resourceVersionMatch=Exact&resourceVersion={}", now.as_str().unwrap());
    for path in ["/api/v1/namespaces/default?x=y", &list, "/apis?x=y", "/nothing?x=y"] {
        let plain = text(path, &[]).await;
        assert!(plain.ends_with("}\n") && plain.trim_end().lines().count() == 1, "{plain}");
        let indented = text(path, &curl).await;
        assert!(indented.starts_with("{\n  \""), "{indented}");
        assert_eq!(indented, text(&format!("{path}&pretty=true"), &[]).await);
        assert_eq!(plain, text(&format!("{path}&pretty=false"), &curl).await);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&indented), value(&plain));
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_wants_it() {
    let test = TestServer::start().await;
    let api = test.admin();
    let mut newest = json!(null);
    for i in 0..4 {
        let map = json!({"metadata": {"name": format!("m{i}")}, "data": {"text": "lorem ipsum ".repeat(6_000)}});
        newest = api.ok(&format!("POST {MAPS}"), map).await;
    }
    // The server itself writes too, and a list tells the store's version.
    let version = newest["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let gzip = [("accept-encoding", "gzip")];
    for encoding in Encoding::ALL {
        let plain = read(&api, &path, encoding).await;
        let headers = [gzip[0], ("accept", encoding.media_type())];
        let response = api.send_with(&format!("GET {path}"), "", &headers).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[VARY], "Accept-Encoding");
        assert_eq!(response.headers()[CONTENT_TYPE], encoding.media_type());
        let compressed = response.into_body().collect().await.unwrap().to_bytes();
        assert!(compressed.len() * 10 < plain.bytes.len(), "{} {}", compressed.len(), plain.bytes.len());
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*compressed).read_to_end(&mut bytes).unwrap();
        assert!(plain.bytes == bytes, "{encoding:?}");
    }
    // Small answers and watches are not.
    for path in [format!("{MAPS}/m0"), format!("{MAPS}?watch=1")] {
        let response = api.send_with(&format!("GET {path}"), "", &gzip).await;
        assert!(!response.headers().contains_key(CONTENT_ENCODING), "{path}");
    }
}
