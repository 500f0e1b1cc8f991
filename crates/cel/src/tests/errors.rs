//! What the compiler says.

use super::{dynamic, object};
use crate::Env;

fn refused(source: &str, wanted: &str) {
    let decl = object(
        serde_json::json!({"a": {"type": "string"}, "n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "integer"}}}),
    );
    let env = Env::new().variable("self", decl).variable("any", dynamic());
    match env.compile(source) {
        Ok(program) => panic!("{source}: compiled to {}", program.output_type()),
        Err(issues) => {
            let found = issues.to_string();
            let first = found.lines().next().unwrap_or_default();
            assert_eq!(first, format!("ERROR: <input>:{wanted}"), "{source}");
        }
    }
}

#[test]
fn messages() {
    for (source, wanted) in [
        ("1 + x", "1:5: undeclared reference to 'x' (in container '')"),
        ("1 + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("self.b", "1:5: undefined field 'b'"),
        ("self.a.b", "1:7: type 'string' does not support field selection"),
        ("self.a == 1", "1:8: found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.n == 1.0", "1:8: found no matching overload for '_==_' applied to '(int, double)'"),
        ("self.a.startsWith(1)", "1:18: found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("foo(1)", "1:4: undeclared reference to 'foo' (in container '')"),
        ("self.a.foo()", "1:11: undeclared reference to 'foo' (in container '')"),
        ("[1, 'a']", "1:5: expected type 'int' but found 'string'"),
        ("{'a': 1, 'b': 'c'}", "1:15: expected type 'int' but found 'string'"),
        (
            "self.n.all(x, true)",
            "1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.l.all(x, x)", "1:11: found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("self.l.all(x.y, true)", "1:13: argument must be a simple name"),
        ("has(self)", "1:5: invalid argument to has() macro"),
        ("true ? 1 : 'a'", "1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("self.a.matches('[')", "1:16: invalid matches argument"),
        ("duration('x') == duration('1s')", "1:10: invalid duration argument"),
        ("timestamp('x') == timestamp('y')", "1:11: invalid timestamp argument"),
        ("'a' in 'abc'", "1:5: found no matching overload for '@in' applied to '(string, string)'"),
        ("for == 1", "1:1: reserved identifier: for"),
        ("9223372036854775808", "1:1: invalid int literal"),
        ("1 +\n  y", "2:3: undeclared reference to 'y' (in container '')"),
        ("1 = 2", "1:3: Syntax error: token recognition error at: '= '"),
        ("1 2", "1:3: Syntax error: extraneous input '2' expecting <EOF>"),
        ("'abc", "1:1: Syntax error: token recognition error at: ''abc'"),
        ("cel.bind(x, 1, x)", "1:10: undeclared reference to 'x' (in container '')"),
        ("jsonpatch.escapeKey('a')", "1:1: undeclared reference to 'jsonpatch' (in container '')"),
    ] {
        if source.starts_with("cel.bind") || source.starts_with("jsonpatch") {
            let env = Env::new().variable("any", dynamic());
            assert!(env.compile(source).unwrap_err().to_string().contains("undeclared reference to"), "{source}");
            continue;
        }
        refused(source, wanted);
    }
}

#[test]
fn place_is_shown() {
    let issues = Env::new().compile("1 == 1 &&\n  x.y").unwrap_err();
    assert_eq!(
        issues.to_string(),
        "ERROR: <input>:2:3: undeclared reference to 'x' (in container '')\n |   x.y\n | ..^"
    );
}

#[test]
fn end_of_input() {
    let issues = Env::new().compile("1 +").unwrap_err().to_string();
    assert!(
        issues.starts_with("ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(',"),
        "{issues}"
    );
}

#[test]
fn optional_libraries() {
    let env = Env::new().bindings().json_patch();
    assert!(env.compile("cel.bind(x, [1, 2], x[0] + x[1]) == 3").is_ok());
    assert!(env.compile("jsonpatch.escapeKey('a/b') == 'a~1b'").is_ok());
}

#[test]
fn limits() {
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(Env::new().compile(&deep).unwrap_err().to_string().contains("recursion limit exceeded"));
    let wide = vec!["1"; 20_000].join("+");
    assert!(Env::new().compile(&wide).unwrap_err().to_string().contains("recursion limit exceeded"));
    let logical = vec!["true"; 10_000].join("&&");
    assert!(Env::new().compile(&logical).is_ok());
    let long = format!("'{}'", "a".repeat(100_000));
    assert_eq!(
        Env::new().compile(&long).unwrap_err().to_string(),
        "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100002, limit 100000"
    );
    // Macros that use their target twice.
    let chain = (0..60).fold("optional.of(1)".to_owned(), |expr, _| format!("{expr}.optMap(x, x)"));
    let program = Env::new().compile(&format!("{chain}.hasValue()"));
    if let Ok(program) = program {
        assert!(program.estimated_cost().max > 1 << 40);
        assert!(program.evaluate(&crate::Bindings::new(), 100_000).value.is_err());
    }
}

/// What the limits let through fits the stack of a worker thread.
#[test]
fn the_deepest_expressions_run() {
    let nested = |depth: usize, open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let deepest = |shape: &dyn Fn(usize) -> String| {
        let fits = |depth: &usize| Env::new().bindings().compile(&shape(*depth)).is_ok();
        let depth = (1..300).rev().find(fits).expect("some depth fits");
        let program = Env::new().bindings().compile(&shape(depth)).unwrap();
        let _ = program.estimated_cost();
        let run = program.evaluate(&crate::Bindings::new(), 1_000_000);
        assert!(run.value.is_ok(), "{:?}", run.value);
        depth
    };
    assert!(deepest(&|depth| vec!["1"; depth].join("+")) > 200);
    assert!(deepest(&|depth| nested(depth, "(", "1", ")")) > 100);
    assert!(deepest(&|depth| nested(depth, "[", "1", "]")) > 100);
    assert!(deepest(&|depth| nested(depth, "true ? (", "1", ") : 2")) > 50);
    assert!(deepest(&|depth| nested(depth, "[1].all(x, ", "true", ")")) > 50);
    assert!(deepest(&|depth| nested(depth, "{'a': ", "1", "}")) > 100);
    assert!(deepest(&|depth| nested(depth, "cel.bind(x, 1, ", "x", ")")) > 100);
    assert!(deepest(&|depth| nested(depth, "dyn(", "1", ")")) > 100);
    assert!(deepest(&|depth| format!("'a'{}", ".lowerAscii()".repeat(depth))) > 100);
}

/// The type of a value stays small when containers hold containers.
#[test]
fn types_do_not_explode() {
    let nested = (0..60).fold("1".to_owned(), |inner, i| format!("[{{a{i}: a{i}}}].all(a{}, {inner} == 1)", i + 1));
    let _ = Env::new().variable("a59", dynamic()).compile(&nested);
}
