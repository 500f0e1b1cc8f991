use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Object, decode, decode_sequence, encode};
use crate::codec::{MAX_DEPTH, samples};
use crate::schema::{builtin, names};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn show(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[track_caller]
fn written(value: Value, expected: &str) {
    let bytes = encode(&value, None).unwrap();
    assert_eq!(show(&bytes), format!("d9d9f7{expected}"), "{value}");
    assert_eq!(decode(&bytes).unwrap().value, value);
}

#[test]
fn shortest_forms_and_sorted_keys() {
    written(json!(null), "f6");
    written(json!(true), "f5");
    written(json!(23), "17");
    written(json!(24), "1818");
    written(json!(256), "190100");
    written(json!(65_536), "1a00010000");
    written(json!(4_294_967_296_i64), "1b0000000100000000");
    written(json!(-1), "20");
    written(json!(i64::MIN), "3b7fffffffffffffff");
    written(json!(1.5), "f93e00");
    written(json!(100_000.5), "fa47c35040");
    written(json!(0.1), "fb3fb999999999999a");
    written(json!("ü"), "42c3bc");
    written(json!([1, [], {}]), "830180a0");
    written(json!({"bb": 1, "a": 2, "c": 3, "ab": 4}), "a441610241630342616204426262 01".replace(' ', "").as_str());
}

#[test]
fn bytes_travel_as_bytes() {
    let schema = builtin("io.k8s.api.core.v1.Secret").unwrap();
    let secret = json!({"data": {"k": "AAEC/w=="}});
    let bytes = encode(&secret, Some(schema)).unwrap();
    assert_eq!(show(&bytes), "d9d9f7a14464617461a1416bd644000102ff");
    assert_eq!(decode(&bytes).unwrap().value, secret);
    // The same text where no bytes are meant.
    assert_eq!(show(&encode(&secret, None).unwrap()), "d9d9f7a14464617461a1416b4841414543 2f773d3d".replace(' ', ""));
}

#[test]
fn what_others_write() {
    let ok = |text: &str, expected: Value| assert_eq!(decode(&hex(text)).unwrap().value, expected, "{text}");
    ok("6161", json!("a"));
    ok("bf6161014162 9f0203ffff", json!({"a": 1, "b": [2, 3]}));
    ok("7f61616162ff", json!("ab"));
    ok("5f41614162ff", json!("ab"));
    ok("41ff", json!("\u{fffd}"));
    ok("d542fbff", json!("-_8"));
    ok("d642fbff", json!("+/8="));
    ok("d742fbff", json!("FBFF"));
    ok("c074323032362d30312d30325430333a30343a30355a", json!("2026-01-02T03:04:05Z"));
    ok("c100", json!("1970-01-01T00:00:00Z"));
    ok("c1f93e00", json!("1970-01-01T00:00:01.500000Z"));
    ok("d820 6161", json!("a"));
    ok("fa3fc00000", json!(1.5));
    ok("1b7fffffffffffffff", json!(i64::MAX));
}

#[test]
fn bad_documents() {
    for (text, message) in [
        ("", "unexpected EOF"),
        ("62", "unexpected EOF"),
        ("a1", "unexpected EOF"),
        ("9bffffffffffffffff", "unexpected EOF"),
        ("5bffffffffffffffff00", "unexpected EOF"),
        ("bbffffffffffffffff", "unexpected EOF"),
        ("0000", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("a2416101416102", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("a2416101616102", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("a10102", "cbor: cannot use u8 as a map key"),
        ("f97e00", "cbor: number is not finite"),
        ("f97c00", "cbor: number is not finite"),
        ("f7", "cbor: undefined has no JSON form"),
        ("e0", "cbor: simple has no JSON form"),
        ("c249010000000000000000", "cbor: bignum is not supported"),
        ("1b8000000000000000", "cbor: cannot unmarshal 9223372036854775808 into Go value of type int64 (overflow)"),
        ("c0616e", "cbor: cannot set \"n\" for time.Time"),
        ("ff", "cbor: break has no JSON form"),
    ] {
        assert_eq!(decode(&hex(text)).unwrap_err().0, message, "{text}");
    }
    assert!(decode(&hex("61ff")).unwrap_err().0.starts_with("cbor: "), "text that is not UTF-8");
    assert!(decode(&hex("1c")).is_err());
}

#[test]
fn depth_and_size_are_limited() {
    let nested = |n: usize| [vec![0x81; n], vec![0xf6]].concat();
    assert!(decode(&nested(MAX_DEPTH)).is_ok());
    for n in [MAX_DEPTH + 1, 1_000_000] {
        assert_eq!(decode(&nested(n)).unwrap_err().0, format!("cbor: exceeded max nested level {MAX_DEPTH}"));
    }
    assert!(decode(&vec![0xc6; 1_000_000]).is_err(), "tags nest too");
    let many = [hex("9f"), vec![0xf6; 3 << 20]].concat();
    assert!(decode(&many).unwrap_err().0.starts_with("cbor: more than"));
}

#[test]
fn sequences() {
    let both = [encode(&json!({"a": 1}), None).unwrap(), encode(&json!(2), None).unwrap()].concat();
    let values: Vec<Value> = decode_sequence(&both).unwrap().into_iter().map(|d| d.value).collect();
    assert_eq!(values, [json!({"a": 1}), json!(2)]);
}

#[test]
fn objects_with_and_without_their_type() {
    let all =
        json!({"kind": "K", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": 1}, "veryLongField": [1]});
    for left_out in
        [&[][..], &["kind"], &["apiVersion"], &["kind", "apiVersion"], &["metadata", "data"], &["veryLongField"]]
    {
        let mut value = all.clone();
        value.as_object_mut().unwrap().retain(|key, _| !left_out.contains(&key.as_str()));
        let object = Object::new(&value, None).unwrap();
        let mut out = super::MAGIC.to_vec();
        object.put(&mut out);
        assert_eq!(out, encode(&value, None).unwrap());
        assert!(out.len() <= object.max_len() + super::MAGIC.len());
        let mut item = Vec::new();
        object.put_item(&mut item);
        value.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
        assert_eq!(decode(&item).unwrap().value, value, "without {left_out:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(seed: u64, pick: prop::sample::Index) {
        let all: Vec<String> = names().collect();
        let schema = builtin(&all[pick.index(all.len())]).unwrap();
        let mut object = samples::random(schema, seed);
        schema.conform(&mut object).unwrap();
        for schema in [None, Some(schema)] {
            let bytes = encode(&object, schema).unwrap();
            prop_assert_eq!(&decode(&bytes).unwrap().value, &object);
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes: Vec<u8>) {
        if let Ok(decoded) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&decoded.value, None).unwrap()).unwrap().value, decoded.value);
        }
    }
}
