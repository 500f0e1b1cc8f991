use serde_json::{Value, json};

use super::{Converted, convert, documents};
use crate::codec::Encoding;

const TWO: &str = "\
# a comment
---
apiVersion: v1
kind: Secret
metadata: {name: a}
data: {k: AAE=}
---
# nothing
--- # more
apiVersion: example.com/v1
kind: Thing
metadata: {name: t}
any: [1, 1.5, {x: null}]
";

fn values(bytes: &[u8]) -> Vec<Value> {
    documents(bytes).unwrap().into_iter().map(|d| d.value).collect()
}

#[test]
fn several_documents() {
    let expected = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "AAE="}}),
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "any": [1, 1.5, {"x": null}]}),
    ];
    for output in [Encoding::Json, Encoding::Yaml, Encoding::Cbor] {
        let Converted { bytes, warnings } = convert(TWO.as_bytes(), output).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(values(&bytes), expected, "{output:?}");
        // There and back.
        for back in [Encoding::Json, Encoding::Yaml, Encoding::Cbor] {
            assert_eq!(values(&convert(&bytes, back).unwrap().bytes), expected, "{output:?} {back:?}");
        }
    }
}

#[test]
fn every_encoding_to_every_other() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5}}}]},
    });
    let mut canonical = pod.clone();
    canonical["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "500m".into();
    for from in Encoding::ALL {
        let bytes = convert(pod.to_string().as_bytes(), from).unwrap().bytes;
        for to in Encoding::ALL {
            let converted = convert(&bytes, to).unwrap();
            assert_eq!(to.decode(&converted.bytes).unwrap().value, canonical, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn lists() {
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "nonsense": 1},
        {"apiVersion": "example.com/v1", "kind": "Thing", "spec": {}},
    ]});
    for to in Encoding::ALL {
        let Converted { bytes, warnings } = convert(list.to_string().as_bytes(), to).unwrap();
        assert_eq!(warnings, ["items[0]: unknown field \"nonsense\""]);
        let back = to.decode(&bytes).unwrap().value;
        assert_eq!(
            back["items"],
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, list["items"][1]])
        );
    }
}

#[test]
fn errors_say_where() {
    let error = |input: &str, output| convert(input.as_bytes(), output).unwrap_err().0;
    let protobuf = Encoding::Protobuf;
    assert_eq!(error(TWO, protobuf), "2 documents: protobuf has no way to hold more than one; put them into a List");
    let thing = "apiVersion: example.com/v1\nkind: Thing\n";
    assert_eq!(error(thing, protobuf), "example.com/v1 Thing is no built-in kind: it has no protobuf form");
    assert_eq!(error("# nothing\n", Encoding::Json), "no objects in it");
    assert_eq!(error("a: 1\n", Encoding::Json), "Object 'Kind' is missing in it");
    let wrong = format!("{thing}---\napiVersion: v1\nkind: Pod\nspec: 3\n");
    assert_eq!(
        error(&wrong, Encoding::Json),
        "document 2: json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec"
    );
    assert_eq!(error("{\"a\": 1} {\"b\"", Encoding::Json), "unexpected end of JSON input");
    assert!(error("a: [", Encoding::Json).starts_with("error converting YAML to JSON"));
    assert!(convert(b"k8s\0\x0a\x06\x0a\x01v\x12\x01K", Encoding::Json).unwrap_err().0.contains("no kind \"K\""));
    assert!(convert(b"\xd9\xd9\xf7\xa1", Encoding::Json).is_err());
    let twice = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"kind\":\"Pod\"}";
    assert_eq!(convert(twice.as_bytes(), Encoding::Yaml).unwrap().warnings, ["duplicate field \"kind\""]);
}
