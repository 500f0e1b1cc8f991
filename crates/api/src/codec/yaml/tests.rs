use serde_json::{Value, json};

use super::{decode, encode};

#[test]
fn reads_documents() {
    let ok = |text: &str, expected: Value| assert_eq!(decode(text.as_bytes()).unwrap().value, expected, "{text}");
    ok(
        "a: 1\nb: [x, \"2\", true, null, 1.5, 2026-01-02]\n",
        json!({"a": 1, "b": ["x", "2", true, null, 1.5, "2026-01-02"]}),
    );
    ok("---\na: |\n  one\n  two\n", json!({"a": "one\ntwo\n"}));
    ok("1: x\ntrue: z\n", json!({"1": "x", "true": "z"}));
    ok("base: &b {x: 1}\nuse: *b\n", json!({"base": {"x": 1}, "use": {"x": 1}}));
    ok("{\"json\": [1, {\"a\": null}]}", json!({"json": [1, {"a": null}]}));
    ok("a: -9223372036854775808\nb: 0x10\n", json!({"a": i64::MIN, "b": 16}));
}

#[test]
fn duplicates_are_strict_errors() {
    let decoded = decode(b"a:\n- x: 1\n  x: 2\n").unwrap();
    assert_eq!(decoded.value, json!({"a": [{"x": 2}]}));
    let line = r#"line 3: key "x" already set in map"#;
    assert_eq!(decoded.strict, [format!("yaml: unmarshal errors:\n  {line}")]);
    assert_eq!(super::warnings(decoded.strict[0].clone()), [line]);
    // The line is that of the value, and what is inside comes first.
    let decoded = decode(b"a: 1\nb: {c: 1, c: 2}\na:\n  d: [1, 2]\n  d: {e: x}\n").unwrap();
    let expected = [
        r#"line 2: key "c" already set in map"#,
        r#"line 5: key "d" already set in map"#,
        r#"line 4: key "a" already set in map"#,
    ];
    assert_eq!(super::warnings(decoded.strict[0].clone()), expected);
    assert_eq!(super::warnings("unknown field \"x\"".into()), ["unknown field \"x\""]);
}

#[test]
fn bad_documents() {
    for text in ["a: [", "a: b: c", "a: *none", "a: 1\n---\nb: 2\n", "\u{1}"] {
        let error = decode(text.as_bytes()).unwrap_err().0;
        assert!(error.starts_with("error converting YAML to JSON: yaml: "), "{text:?}: {error}");
    }
    assert!(decode(b"a: \xff").is_err());
}

#[test]
fn aliases_cannot_explode() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(decode(bomb.as_bytes()).is_err());
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(decode(deep.as_bytes()).is_err());
}

#[test]
fn what_is_written_reads_back() {
    for text in [
        "yes",
        "no",
        "on",
        "null",
        "~",
        "1",
        "1e3",
        "0x1",
        "- a",
        "a: b",
        "",
        " lead",
        "two\nlines\n",
        "#c",
        "2026-01-02",
        "'q\"",
        "!t",
        "é\u{7f}",
    ] {
        let value = json!({"k": [text, {"n": {text: text}}], "e": {}, "l": []});
        let yaml = encode(&value).unwrap();
        assert_eq!(decode(yaml.as_bytes()).unwrap().value, value, "{yaml}");
    }
}
