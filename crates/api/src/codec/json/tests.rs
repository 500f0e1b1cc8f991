use serde_json::json;

use super::decode;

#[test]
fn reads_what_serde_json_reads() {
    for text in
        ["null", "true", "-1", "18446744073709551615", "1.5", "\"a\\u0000b\"", "[]", "{\"a\":[1,{\"b\":null}]}", " {} "]
    {
        let decoded = decode(text.as_bytes()).unwrap();
        assert_eq!(decoded.value, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert!(decoded.strict.is_empty());
    }
}

#[test]
fn duplicates_are_named_by_path_and_the_last_wins() {
    let text = br#"{"a":1,"spec":{"x":[{},{"n":1,"n":2,"n":3}],"b":{"c":1,"c":1}},"a":2}"#;
    let decoded = decode(text).unwrap();
    assert_eq!(decoded.value, json!({"a": 2, "spec": {"x": [{}, {"n": 3}], "b": {"c": 1}}}));
    let expected = [r#"duplicate field "spec.x[1].n""#, r#"duplicate field "spec.b.c""#, r#"duplicate field "a""#];
    assert_eq!(decoded.strict, expected);
    assert_eq!(
        super::super::strict_error(&decoded.strict),
        r#"strict decoding error: duplicate field "spec.x[1].n", duplicate field "spec.b.c", duplicate field "a""#
    );
}

#[test]
fn bad_documents() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{\"a\":\"", "unexpected end of JSON input"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("'", r"invalid character '\'' looking for beginning of value"),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} {}", "invalid character '{' after top-level value"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
    ] {
        assert_eq!(decode(text.as_bytes()).unwrap_err().0, message, "{text}");
    }
}

#[test]
fn bad_utf8_is_replaced() {
    assert_eq!(decode(b"\"a\xffb\"").unwrap().value, json!("a\u{fffd}b"));
}

#[test]
fn depth_is_limited() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(decode(nested(super::MAX_DEPTH).as_bytes()).is_ok());
    for n in [super::MAX_DEPTH + 1, 1_000_000] {
        assert_eq!(decode(nested(n).as_bytes()).unwrap_err().0, "exceeded max depth");
    }
}
