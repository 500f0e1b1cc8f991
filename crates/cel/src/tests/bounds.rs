//! What a run builds and looks at is bounded also where upstream's costs are not.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{compile, dynamic, list, object, run};
use crate::{Bindings, Decl, Error};

/// Enough to make the values, and for no more than a few million comparisons.
const COST: u64 = 20_000;

fn large() -> (Arc<Decl>, Json) {
    let decl = object(json!({
        "big": {"type": "string"}, "data": {"type": "string", "format": "byte"}, "l": list(json!({"type": "integer"})),
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }));
    let value = json!({
        "big": "a".repeat(1 << 20), "data": "QUJD".repeat(1 << 18), "l": (0..50_000).collect::<Vec<_>>(), "set": ["x"],
    });
    (decl, value)
}

fn limited(source: &str) {
    let (decl, value) = large();
    run(&decl, &value, source, |run| {
        assert_eq!(run.value.map(|_| ()), Err(Error::CostLimit), "{source}");
    });
}

fn holds(source: &str) {
    let (decl, value) = large();
    run(&decl, &value, source, |run| assert_eq!(run.value.unwrap().as_bool(), Some(true), "{source}"));
}

#[test]
fn one_value() {
    limited("self.big.replace('a', self.big) == ''");
    limited("'%s'.format([['x'].map(x, self.l.map(y, self.big))]) == ''");
    limited("self.l.map(x, self.big).join() == ''");
    let doubled = (0..40).fold("self.l".to_owned(), |list, _| format!("[{list}].map(a, a + a)[0]"));
    let (decl, value) = large();
    run(&decl, &value, &format!("{doubled}.size() > 0"), |run| assert!(run.value.is_err()));
}

/// Results that are kept, each of them small enough.
#[test]
fn many_values() {
    for item in [
        "'%s'.format([self.big])",
        "'a'.replace('a', self.big)",
        "'%x'.format([self.data])",
        "'ab'.replace('', self.big)",
        "['', ''].join(self.big.replace('b', ''))",
        "bytes('%s'.format([self.big]))",
        "self.data",
        "[self.data]",
        "[self][0].data",
        "[self.?data]",
        "self.set + ['%s'.format([self.big])]",
    ] {
        limited(&format!("self.l.map(x, {item}).size() == 50000"));
        limited(&format!("self.l.all(x, dyn({item}) != null)"));
    }
    // Nothing is built here: values are shared.
    for item in ["self.big", "self.l + self.l", "dyn(self.big)"] {
        holds(&format!("self.l.map(x, {item}).size() == 50000"));
    }
    holds("['%s'.format([self.big])].all(s, self.l.map(x, dyn(s)).size() == 50000)");
}

/// Values inside each other, of which each holds the one before twice.
#[test]
fn comparisons() {
    let bomb = (0..50).fold("[[0]]".to_owned(), |list, _| format!("{list}.map(a, [a, a])"));
    for test in [
        "z in [z]",
        "z == z",
        "[z].indexOf(z) == 0",
        "[z].lastIndexOf(z) == 0",
        "sets.contains([z], [z])",
        "sets.equivalent([z], [z])",
        "sets.intersects([z], [z])",
        "[z].indexOf(dyn(0)) == -1",
        "dyn([z]).isSorted()",
        "{'a': z} == {'a': z}",
        "'%s'.format([z]) == ''",
    ] {
        let source = format!("{bomb}.all(z, {test})");
        let program = compile(&dynamic(), &source);
        let run = program.evaluate(&Bindings::new(), COST);
        assert_eq!(run.value.map(|_| ()), Err(Error::CostLimit), "{test}");
    }
    // A tenth of what one run may cost is no more than a tenth of a second.
    let bomb = (0..20).fold("[[0]]".to_owned(), |list, _| format!("{list}.map(a, [a, a])"));
    let program = compile(&dynamic(), &format!("{bomb}.all(z, z == z)"));
    let run = program.evaluate(&Bindings::new(), 100_000);
    assert_eq!(run.value.map(|_| ()), Err(Error::CostLimit));
    // Long ones, of the same list again and again.
    let doubled = (0..14).fold("self.l".to_owned(), |list, _| format!("[{list}].map(a, a + a)[0]"));
    limited(&format!("sets.contains({doubled}, [])"));
    limited(&format!("[{doubled}].all(a, self.l.all(x, a.map(y, '').join() == ''))"));
}

/// What looking costs is no more than upstream's figures where those tell.
#[test]
fn looking_is_not_counted_twice() {
    let decl = object(json!({"l": list(json!({"type": "integer"}))}));
    let value = json!({"l": (0..5000).collect::<Vec<_>>()});
    for (source, cost) in [("self.l.indexOf(-1) == -1", 5003), ("self.l.sum() > 0", 5003), ("!(-1 in self.l)", 5003)] {
        run(&decl, &value, source, |run| {
            assert_eq!(run.value.unwrap().as_bool(), Some(true), "{source}");
            assert_eq!(run.cost, cost, "{source}");
        });
    }
}

/// Sets and keyed lists of much the same.
#[test]
fn merging() {
    let keyed = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
    });
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let decl = object(json!({"a": set, "l": list(keyed)}));
    let value = json!({
        "a": ["c", "a", "b"], "l": [
            [{"k": "2", "v": 1}, {"k": "1", "v": 2}], [{"k": "3", "v": 3}, {"k": "2", "v": 4}, {"k": "3", "v": 5}],
        ],
    });
    for source in [
        "(self.a + ['d', 'a', 'd']).map(x, x) == ['c', 'a', 'b', 'd']",
        "(self.a + []).map(x, x) == ['c', 'a', 'b']",
        "(self.l[0] + self.l[1]).map(x, x.v) == [4, 2, 5]",
    ] {
        run(&decl, &value, source, |run| assert_eq!(run.value.unwrap().as_bool(), Some(true), "{source}"));
    }
}

/// A pattern that is no literal is compiled once, not in every round; many different ones are too many.
#[test]
fn patterns() {
    holds("self.l.all(x, 'b'.matches('[' + 'ab]'))");
    holds("self.l.filter(x, x < 1000).all(x, !'b'.matches('^a' + string(x)))");
    limited("self.l.all(x, !'b'.matches('a' + string(x)))");
}
