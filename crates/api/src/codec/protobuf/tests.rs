use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    ENVELOPE_TAIL, decode, decode_message, encode, encode_message, item_len, list_head, open, put_item_head,
    schema_for, watch_frame,
};
use crate::codec::{MAX_DEPTH, samples};
use crate::schema::{builtin, names};

/// What kubectl 1.35 sends for `create deployment foo --image a`.
const FROM_KUBECTL: &[u8] =
    b"k8s\x00\x0a\x15\x0a\x07apps/v1\x12\x0aDeployment\x12\xa3\x01\x0a\x1f\x0a\x03foo\x12\x00\x1a\x00\
    \x22\x00*\x002\x008\x00B\x00Z\x0a\x0a\x03app\x12\x03foo\x12r\x08\x01\x12\x0c\x0a\x0a\x0a\x03app\
    \x12\x03foo\x1aX\x0a\x1c\x0a\x00\x12\x00\x1a\x00\x22\x00*\x002\x008\x00B\x00Z\x0a\x0a\x03app\
    \x12\x03foo\x128\x12\x1a\x0a\x01a\x12\x01a*\x00B\x00j\x00r\x00\x80\x01\x00\x88\x01\x00\x90\x01\
    \x00\xa2\x01\x00\x1a\x002\x00B\x00J\x00R\x00X\x00`\x00h\x00\x82\x01\x00\x8a\x01\x00\x9a\x01\x00\
    \xc2\x01\x00\x22\x02\x0a\x00(\x008\x00\x1a\x0c\x08\x00\x10\x00\x18\x00 \x00(\x008\x00\x1a\x00\
    \x22\x00";

#[test]
fn reads_what_kubectl_sends() {
    let envelope = open(FROM_KUBECTL).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("apps/v1", "Deployment"));
    let schema = schema_for(&envelope.api_version, &envelope.kind).unwrap();
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "foo", "labels": {"app": "foo"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "foo"}},
            "template": {
                "metadata": {"labels": {"app": "foo"}},
                "spec": {"containers": [{"name": "a", "image": "a"}], "securityContext": {}},
            },
        },
    });
    let mut object = decode(FROM_KUBECTL, schema).unwrap();
    assert_eq!(super::decode_any(FROM_KUBECTL).unwrap(), object);
    let unknown = super::decode_any(b"k8s\0\x0a\x06\x0a\x01v\x12\x01K").unwrap_err();
    assert_eq!(unknown.0, "no kind \"K\" is registered for version \"v\"");
    object["spec"]["template"]["spec"]["securityContext"] = json!({});
    assert_eq!(object, expected);
}

#[test]
fn custom_resources_are_not_mistaken_for_built_in_kinds() {
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("storage.k8s.io/v1", "StorageClass"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("example.com/v1", "DeleteOptions"),
        ("v1", "Status"),
    ] {
        assert!(schema_for(api_version, kind).is_some(), "{api_version} {kind}");
    }
    for (api_version, kind) in [
        ("apps.example.com/v1", "Deployment"),
        ("apps.k8s.io/v1", "Deployment"),
        ("storage.example.com/v1", "StorageClass"),
        ("core/v1", "Pod"),
        ("example.com/v1", "Status"),
        ("example.com/v1", "APIGroup"),
    ] {
        assert!(schema_for(api_version, kind).is_none(), "{api_version} {kind}");
    }
}

#[track_caller]
fn round_trip(api_version: &str, kind: &str, object: Value) {
    let mut object = object;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let schema = schema_for(api_version, kind).unwrap();
    assert_eq!(decode(&encode(&object, schema).unwrap(), schema).unwrap(), object);
}

#[test]
fn special_types() {
    let time = "2026-01-02T03:04:05Z";
    round_trip(
        "v1",
        "Service",
        json!({"metadata": {"name": "a", "creationTimestamp": time}, "spec": {"ports": [
        {"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}, {"port": 0}]}}),
    );
    round_trip(
        "coordination.k8s.io/v1",
        "Lease",
        json!({"spec": {"renewTime": "2026-01-02T03:04:05.123456Z", "leaseDurationSeconds": -1}}),
    );
    round_trip("v1", "Secret", json!({"data": {"a": "AAEC/w==", "empty": ""}, "type": "Opaque"}));
    round_trip(
        "v1",
        "Pod",
        json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "100m"}},
        "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k", "optional": false}}}],
        "livenessProbe": {"httpGet": {"port": 1, "path": "/"}, "periodSeconds": 3}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
        "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "a"}]}}),
    );
    round_trip("apps/v1", "ControllerRevision", json!({"data": {"spec": {"x": [1, null, "y"]}}, "revision": 3}));
    round_trip(
        "authentication.k8s.io/v1",
        "TokenReview",
        json!({"spec": {"token": "t"}, "status": {"authenticated": true,
        "user": {"username": "u", "groups": ["g", ""], "extra": {"k": ["v", "w"], "none": []}}}}),
    );
    round_trip(
        "v1",
        "Pod",
        json!({"metadata": {"managedFields": [{"manager": "m", "operation": "Update", "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}}}}]}, "spec": {"nodeName": "n"}}),
    );
    round_trip(
        "v1",
        "PodList",
        json!({"metadata": {"resourceVersion": "7", "remainingItemCount": 0}, "items": [{"metadata": {"name": "a"}}]}),
    );
    round_trip(
        "apps/v1",
        "DeleteOptions",
        json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}),
    );
    round_trip(
        "v1",
        "Status",
        json!({"status": "Failure", "code": 404, "reason": "NotFound", "details": {"name": "x", "causes": [{"reason": "r"}]}}),
    );
    round_trip(
        "autoscaling/v1",
        "Scale",
        json!({"spec": {"replicas": 2}, "status": {"replicas": 0, "selector": "a=b"}}),
    );
    round_trip("policy/v1", "Eviction", json!({"metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}}));
    round_trip(
        "authentication.k8s.io/v1",
        "TokenRequest",
        json!({"spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "uid": "u"}}, "status": {"token": "t", "expirationTimestamp": time}}),
    );
}

#[test]
fn lists_and_watch_frames() {
    let schema = schema_for("v1", "ConfigMap").unwrap();
    let items: Vec<_> =
        ["a", "b"].into_iter().map(|n| encode_message(&json!({"metadata": {"name": n}}), schema).unwrap()).collect();
    let length = items.iter().map(|item| item_len(item.len())).sum();
    let mut list = list_head("v1", "ConfigMapList", &json!({"resourceVersion": "9"}), length).unwrap();
    for item in &items {
        put_item_head(&mut list, item.len());
        list.extend_from_slice(item);
    }
    list.extend_from_slice(&ENVELOPE_TAIL);
    assert_eq!(
        decode(&list, schema_for("v1", "ConfigMapList").unwrap()).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"},
            "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}],
        })
    );
    let object =
        encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "x".repeat(300)}}), schema).unwrap();
    let frame = watch_frame("ADDED", &object);
    assert_eq!(u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize, frame.len() - 4);
    let mut expected = b"\x0a\x05ADDED\x12".to_vec();
    super::wire::put_varint(&mut expected, object.len() as u64 + 3);
    expected.push(0x0a);
    super::wire::put_varint(&mut expected, object.len() as u64);
    expected.extend_from_slice(&object);
    assert_eq!(&frame[4..], expected);
}

/// What is nested deeper than JSON may be could be stored but never read again.
#[test]
fn depth_is_counted_through_embedded_json() {
    let schema = schema_for("apps/v1", "ControllerRevision").unwrap();
    let revision = |levels: usize| {
        let data: Value = (0..levels).fold(Value::Null, |inner, _| json!([inner]));
        let mut message = Vec::new();
        super::wire::put_nested(&mut message, 2, |out| {
            super::wire::put_bytes(out, 1, data.to_string().as_bytes());
            Ok::<_, super::Error>(())
        })
        .unwrap();
        decode_message(&message, schema)
    };
    let deepest = revision(MAX_DEPTH - 1).unwrap();
    assert!(crate::codec::json::decode(deepest.to_string().as_bytes()).is_ok());
    assert_eq!(revision(MAX_DEPTH).unwrap_err().0, "data: exceeded max depth");
}

#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    let pod = schema_for("v1", "Pod").unwrap();
    for raw in
        [&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"[..], b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x80\x80\x80\x80\x08\x00"]
    {
        assert_eq!(decode_message(raw, pod).unwrap_err().0, "unexpected EOF");
    }
}

#[test]
fn bad_messages() {
    let pod = schema_for("v1", "Pod").unwrap();
    let error = |body: &[u8]| decode(body, pod).unwrap_err().0;
    assert!(error(b"{}").starts_with("provided data does not appear to be a protobuf message"));
    assert_eq!(error(b"k8s\0\x12\x05ab"), "unexpected EOF");
    assert_eq!(error(b"k8s\0\x12\x02\x0a\x05"), "unexpected EOF");
    assert_eq!(error(b"k8s\0\x12\x02\x08\x05"), "proto: wrong wireType for field metadata");
    assert_eq!(error(b"k8s\0\x12\x01\x0f"), "proto: illegal wireType 7");
    assert_eq!(error(b"k8s\0\x1a\x04gzip"), "content encoding \"gzip\" is not supported");
    let bad = encode(&json!({"apiVersion": "v1", "kind": "Pod", "spec": 3}), pod).unwrap_err();
    assert_eq!(bad.0, "spec: number has no protobuf form here");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(seed: u64, pick: prop::sample::Index) {
        let all: Vec<String> = names().collect();
        let schema = builtin(&all[pick.index(all.len())]).unwrap();
        let mut object = samples::random(schema, seed);
        prop_assert_eq!(schema.conform(&mut object).unwrap(), Vec::<String>::new());
        let message = encode_message(&object, schema).unwrap();
        prop_assert_eq!(decode_message(&message, schema).unwrap(), object);
    }

    #[test]
    fn damaged_messages_do_not_panic(seed: u64, at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let schema = schema_for("v1", "Pod").unwrap();
        let mut message = encode(&samples::random(schema, seed), schema).unwrap();
        let at = at.index(message.len());
        message[at] = byte;
        let _ = decode(&message, schema);
        message.truncate(cut.index(message.len()));
        let _ = decode(&message, schema);
    }

    #[test]
    fn any_bytes_do_not_panic(bytes: Vec<u8>) {
        let schema = schema_for("v1", "PodList").unwrap();
        let _ = decode_message(&bytes, schema);
        let _ = decode(&[&super::MAGIC, &*bytes].concat(), schema);
    }
}
