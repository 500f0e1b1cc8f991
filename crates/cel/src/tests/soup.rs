//! No input panics, and none takes long.

use proptest::prelude::*;
use serde_json::json;

use super::object;
use crate::{Bindings, Env, Value};

const WORDS: [&str; 62] = [
    "self",
    "x",
    "y",
    "1",
    "0",
    "-1",
    "2u",
    "1.5",
    "'a'",
    "b'a'",
    "true",
    "null",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "?",
    ":",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    " in ",
    ".?",
    "[?",
    "size(",
    ".all(x, ",
    ".exists(x, ",
    ".map(x, ",
    ".filter(x, ",
    ".optMap(x, ",
    "has(self.a)",
    "self.l",
    "self.a",
    "self.m",
    "self.o.p",
    "string(",
    "int(",
    "dyn(",
    "optional.of(",
    "duration('1s')",
    "quantity('1')",
    ".format([",
    ".split(",
    ".matches(",
    ".transformList(x, y, ",
    "ip('::1')",
    "'%s%d'",
    "type(",
    "@",
];

fn judge(source: &str) {
    let decl = object(json!({
        "a": {"type": "string"}, "l": {"type": "array", "items": {"type": "integer"}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "o": {"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true}}},
    }));
    let env = Env::new().variable("self", decl.clone()).bindings().json_patch();
    let Ok(program) = env.compile(source) else { return };
    let value = json!({"a": "b", "l": [1, 2, 3], "m": {"k": "v"}, "o": {"p": 1}});
    let _ = program.estimated_cost();
    let bindings = Bindings::new().with("self", Value::from_json(&value, Some(&decl)).unwrap());
    let _ = program.evaluate(&bindings, 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words(parts in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..24)) {
        judge(&parts.concat());
        // Closed, so that more of them compile.
        let source = parts.concat();
        let mut close = String::new();
        for c in source.chars() {
            match c {
                '(' => close.insert(0, ')'),
                '[' => close.insert(0, ']'),
                '{' => close.insert(0, '}'),
                ')' | ']' | '}' => { close = close.chars().skip(1).collect(); }
                _ => {}
            }
        }
        judge(&format!("{source}{close}"));
    }

    #[test]
    fn characters(source in "\\PC{0,40}") {
        judge(&source);
        let _ = keelson_api::go_regex::compile(&source);
    }

    #[test]
    fn functions(name in prop::sample::select(FUNCTIONS.clone()), args in prop::collection::vec(prop::sample::select(&VALUES[..]), 0..4)) {
        judge(&format!("{name}({})", args.join(", ")));
        if let Some((target, rest)) = args.split_first() {
            judge(&format!("{target}.{name}({})", rest.join(", ")));
            judge(&format!("dyn({target}).{name}({})", rest.join(", ")));
        }
    }
}

const VALUES: [&str; 24] = [
    "1",
    "-1",
    "9223372036854775807",
    "0u",
    "1.5",
    "0.0/0.0",
    "''",
    "'é1'",
    "'%s %d'",
    "b'a'",
    "[]",
    "[1]",
    "['a', 'b']",
    "{}",
    "{'a': 1}",
    "duration('1h')",
    "timestamp('2000-01-01T00:00:00Z')",
    "quantity('1')",
    "ip('::1')",
    "cidr('10.0.0.0/8')",
    "url('https://a')",
    "semver('1.2.3')",
    "optional.none()",
    "dyn(self)",
];

static FUNCTIONS: std::sync::LazyLock<Vec<&'static str>> = std::sync::LazyLock::new(|| {
    include_str!("../functions.txt").lines().filter_map(|line| line.split(" | ").next()).collect()
});
