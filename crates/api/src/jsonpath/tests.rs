use serde_json::{Value, json};

use super::{Error, JsonPath};

#[track_caller]
fn check(path: &str, expected: Value) {
    let document = json!({
        "a": {"b": 1, "c.d": 2, "*": 9}, "list": [{"n": "x", "v": 1, "on": true}, {"n": "y", "v": 2}, {"n": "z", "v": 3}],
        "deep": {"list": [{"v": 7}]}, "words": ["p", "q", "r", "s"], "limit": 2,
    });
    let found = JsonPath::parse(path).and_then(|path| path.find(&document).map(|v| json!(v)));
    assert_eq!(found, Ok(expected), "{path}");
}

#[test]
fn paths() {
    check(".a.b", json!([1]));
    check("a.b", json!([1]));
    check("$.a.b", json!([1]));
    check(".a['b']", json!([1]));
    check(r".a.c\.d", json!([2]));
    check(r".a['c.d']", json!([2]));
    check(r".a['c\.d']", json!([2]));
    check(".a['b','c.d']", json!([1, 2]));
    check(".nothing.here", json!([]));
    check(".a.b.c", json!([]));
    check(".words[0]", json!(["p"]));
    check(".words[-1]", json!(["s"]));
    check(".words[9]", json!([]));
    check(".words[1:3]", json!(["q", "r"]));
    check(".words[:-1]", json!(["p", "q", "r"]));
    check(".words[::2]", json!(["p", "r"]));
    check(".words[3:1]", json!([]));
    check(".words[0,2]", json!(["p", "r"]));
    check(".list[*].n", json!(["x", "y", "z"]));
    check(".list.*.n", json!(["x", "y", "z"]));
    check(".a.*", json!([9, 1, 2]));
    check("..v", json!([7, 1, 2, 3]));
}

#[test]
fn filters() {
    check(r#".list[?(@.n=="y")].v"#, json!([2]));
    check(".list[?(@.n == 'y')].v", json!([2]));
    check(".list[?(@.v>=2)].n", json!(["y", "z"]));
    check(".list[?(@.v!=2)].n", json!(["x", "z"]));
    check(".list[?(@.v<$.limit)].n", json!(["x"]));
    check(".list[?(@.on)].n", json!(["x"]));
    check(".list[?(@.on==true)].n", json!(["x"]));
    check(".list[?(@.n>1)].n", json!([]));
}

#[test]
fn what_is_no_path() {
    for path in [".a[", ".a[1", ".a['b", ".a[?(@.b", ".a[?(x)]", ".a b", ".a[x]", "a..", ".a.{b}", ".a[0:1:0]", "[]"] {
        assert!(matches!(JsonPath::parse(path), Err(Error::Syntax(_))), "{path}");
    }
    let nested = format!("{}@{}", "[?(@".repeat(20), ")]".repeat(20));
    assert!(JsonPath::parse(&nested).is_err());
    assert!(JsonPath::parse(&".a".repeat(4000)).is_err());
}

#[test]
fn a_search_has_an_end() {
    let wide = Value::Array(vec![json!([1, 2, 3, 4]); 5_000]);
    let path = JsonPath::parse("..[?(@..[?(@..x)])]").unwrap();
    let twice = Value::Array(vec![wide; 20]);
    assert_eq!(path.find(&twice), Err(Error::TooMuch));
    assert_eq!(path.first(&twice), None);
}

#[test]
fn operands_are_not_copied() {
    let text = "x".repeat(1 << 20);
    let document = json!({"text": text, "list": vec![json!({"n": "x", "in": [1]}); 50_000]});
    let find = |path: &str| JsonPath::parse(path).and_then(|path| path.find(&document).map(|found| found.len()));
    assert_eq!(find(".list[?(@.n==$.text)]"), Ok(0));
    assert_eq!(find(".list[?(@.n!=$.text)]"), Ok(50_000));
    // Long texts cost more than short ones.
    assert_eq!(find(".list[?($.text==$.text)]"), Err(Error::TooMuch));
    // Lists and maps have no equals.
    assert_eq!(find(".list[?($.list==$.list)]"), Err(Error::NotComparable));
    assert_eq!(find(".list[?(@.in!=1)]"), Err(Error::NotComparable));
}
