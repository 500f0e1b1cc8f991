//! All encodings of all types: a new kind or field is covered by being in the table.

use serde_json::{Value, json};

use super::{Encoding, samples};
use crate::kinds;
use crate::schema::{builtin, names};

#[track_caller]
fn same_in_every_encoding(object: &Value, schema: &crate::schema::Schema) {
    let mut conformed = object.clone();
    assert_eq!(schema.conform(&mut conformed).unwrap(), Vec::<String>::new(), "{}", schema.name);
    assert_eq!(&conformed, object, "{} is not canonical", schema.name);
    for encoding in Encoding::ALL {
        let bytes = encoding.encode(object, Some(schema)).unwrap();
        let decoded = encoding.decode(&bytes).unwrap();
        assert_eq!(decoded.strict, Vec::<String>::new());
        assert_eq!(&decoded.value, object, "{} as {encoding:?}", schema.name);
        assert_eq!(Encoding::detect(&bytes), encoding, "{}", schema.name);
        assert_eq!(encoding.encode(object, Some(schema)).unwrap(), bytes, "{} is not deterministic", schema.name);
    }
}

#[test]
fn full_objects_of_every_kind() {
    let kinds: Vec<_> = kinds::all().into_iter().chain(kinds::bodies()).collect();
    assert!(kinds.len() > 30);
    for kind in kinds {
        let schema = builtin(&kind.schema).unwrap_or_else(|| panic!("{} has no schema", kind.kind));
        let item = samples::full(schema);
        let mut object = item.clone();
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_ref().into();
        same_in_every_encoding(&object, schema);
        let Some(list_schema) = builtin(&format!("{}List", kind.schema)) else { continue };
        let list = json!({
            "apiVersion": kind.api_version(), "kind": format!("{}List", kind.kind),
            "metadata": {"resourceVersion": "7", "continue": "more", "remainingItemCount": 3},
            "items": [item.clone(), item],
        });
        same_in_every_encoding(&list, list_schema);
    }
}

#[test]
fn full_objects_of_every_type() {
    for name in names() {
        let schema = builtin(&name).unwrap();
        let object = samples::full(schema);
        let message = super::protobuf::encode_message(&object, schema).unwrap();
        assert_eq!(super::protobuf::decode_message(&message, schema).unwrap(), object, "{name}");
        let cbor = super::cbor::encode(&object, Some(schema)).unwrap();
        assert_eq!(super::cbor::decode(&cbor).unwrap().value, object, "{name}");
    }
}
