//! Costs, at run time and estimated. The figures are those that upstream documents in its tests.

use serde_json::{Value as Json, json};

use super::{compile, integer, list, object, run, string};
use crate::limits;

fn check(properties: Json, value: Json, table: &[(&str, u64)]) {
    let decl = object(properties);
    for (source, cost) in table {
        run(&decl, &value, source, |run| {
            assert!(matches!(run.value, Ok(crate::Value::Bool(true))), "{source}: {:?}", run.value);
            assert_eq!(run.cost, *cost, "{source}");
        });
    }
}

#[test]
fn scalars() {
    check(
        json!({"val1": integer(), "val3": integer(), "val4": {"type": "number"}}),
        json!({"val1": 5, "val3": 5, "val4": 10.0}),
        &[
            ("self.val1 == self.val3", 5),
            ("type(self.val1) == int", 4),
            ("self.val3 + 1 == 5 + 1", 5),
            ("double(self.val1) < self.val4", 6),
            ("self.val1 < int(self.val4)", 6),
            ("double(5) < 10.0", 1),
            ("double(self.val1) < 10.0", 4),
        ],
    );
}

#[test]
fn strings() {
    check(
        json!({"val1": string(), "val2": string()}),
        json!({"val1": "Rook takes 👑", "val2": "Rook takes 👑"}),
        &[
            ("self.val1.startsWith('Rook')", 4),
            ("!self.val1.startsWith('knight')", 5),
            ("self.val1.matches('^[^0-9]*$')", 8),
            ("!self.val1.matches('^[0-9]*$')", 7),
            ("type(self.val1) == string", 4),
            ("size(self.val1) == 12", 4),
            ("self.val1.charAt(3) == 'k'", 4),
            ("self.val1.indexOf('o') == 1", 4),
            ("self.val1.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
            ("self.val1.split(' ') == ['Rook', 'takes', '👑']", 6),
            ("self.val1.substring(5) == 'takes 👑'", 5),
            ("self.val1.substring(4, 10).trim() == 'takes'", 6),
            ("self.val1.upperAscii() == 'ROOK TAKES 👑'", 6),
            ("self.val1.lowerAscii() == self.val1.lowerAscii()", 10),
            (
                "'%d %s %f %s %s'.format([1, 'abc', 1.0, duration('1m'), timestamp('2000-01-01T00:00:00.000Z')]) == '1 abc 1.000000 60s 2000-01-01T00:00:00Z'",
                6,
            ),
            ("'%e'.format([3.14]) == '3.140000 × 10⁰⁰'", 3),
            ("'%o %o %o'.format([7, 8, 9]) == '7 10 11'", 2),
            ("'%b %b %b'.format([7, 8, 9]) == '111 1000 1001'", 3),
        ],
    );
    check(
        json!({"d": {"type": "string", "format": "duration"}, "t": {"type": "string", "format": "date-time"}, "s": string(), "b": {"type": "string", "format": "byte"}, "e": {"type": "string", "enum": ["Pending"]}}),
        json!({"d": "1h2m3s4ms", "t": "2011-08-18T19:03:37.010000000+01:00", "s": "10", "b": "MTA=", "e": "Pending"}),
        &[
            ("self.d == duration('1h2m') + duration('3s4ms')", 4),
            ("self.d.getHours() == 1", 4),
            ("type(self.d) == google.protobuf.Duration", 4),
            ("self.t.getDate('01:00') == 18", 4),
            ("self.t == timestamp('2011-08-18T00:00:00.000+01:00') + duration('19h3m37s10ms')", 4),
            ("bytes(self.s) == self.b", 6),
            ("string(self.b) == self.s", 6),
            ("self.e == 'Pending'", 3),
            ("self.e in ['Pending', 'Available']", 2),
        ],
    );
}

#[test]
fn lists() {
    let array = [1, 1, 2, 2, 3, 3, 4, 5];
    check(
        json!({"array": list(integer()), "val1": list(integer()), "val2": list(integer())}),
        json!({"array": array, "val1": [1, 2, 3], "val2": [1, 2, 3]}),
        &[
            ("1 in self.val1", 5),
            ("self.val2[0] in self.val1", 8),
            ("!(0 in self.val1)", 6),
            ("self.val1 + self.val2 == [1, 2, 3, 1, 2, 3]", 6),
            ("self.val1 + [4, 5] == [1, 2, 3, 4, 5]", 4),
            ("has(self.val1) && has(self.val2)", 2),
            ("2 in self.array", 10),
            ("self.array.all(e, e > 0)", 43),
            ("self.array.exists(e, e > 2)", 36),
            ("self.array.exists_one(e, e > 4)", 22),
            ("!self.array.all(e, e < 2)", 21),
            ("!self.array.exists(e, e < 0)", 52),
            ("!self.array.exists_one(e, e == 2)", 25),
            ("size(self.array.filter(e, e%2 == 0)) == 3", 68),
            ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
            ("size(self.array) == 8", 4),
        ],
    );
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": string()});
    check(
        json!({"val1": set, "val2": set, "val3": list(integer())}),
        json!({"val1": ["a", "b", "c"], "val2": ["a", "c", "b"], "val3": (1..=1000).collect::<Vec<_>>()}),
        &[
            ("self.val1 == ['c', 'b', 'a']", 3),
            ("self.val1 + self.val2 == ['a', 'b', 'c']", 6),
            ("sets.contains(self.val1, ['a'])", 6),
            ("sets.equivalent(self.val1, ['a', 'b', 'c'])", 21),
            ("sets.contains(self.val3, [1])", 1003),
            ("!sets.equivalent(self.val3, [1, 2, 3])", 6004),
        ],
    );
}

#[test]
fn objects() {
    let entry = json!({"type": "object", "properties": {"k": string(), "v": string(), "v2": string()}});
    let keyed =
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": entry});
    check(
        json!({"listMap": keyed, "objs": list(keyed.clone()), "val": {"type": "object", "additionalProperties": integer()}}),
        json!({
            "listMap": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}],
            "objs": [
                [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}], [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}],
                [{"k": "b", "v": "3"}, {"k": "a", "v": "1"}], [{"k": "c", "v": "4"}],
            ],
            "val": {"b": 1, "d": 2},
        }),
        &[
            ("has(self.listMap[0].v)", 3),
            ("self.listMap.all(m, m.k.startsWith('a'))", 21),
            ("self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 21),
            ("self.listMap.exists(m, m.k.endsWith('1'))", 13),
            ("self.listMap.exists_one(m, m.k == 'a3')", 15),
            ("!self.listMap.all(m, m.k.endsWith('1'))", 18),
            ("!self.listMap.exists_one(m, m.k.startsWith('a'))", 20),
            ("size(self.listMap.filter(m, m.k == 'a1')) == 1", 27),
            ("self.listMap.exists(m, m.k == 'a1' && m.v == 'b1')", 16),
            ("self.listMap.map(m, m.v).exists(v, v == 'b1')", 55),
            ("self.listMap.exists(m, has(m.v2) && m.v2 == 'z')", 21),
            ("!self.listMap.all(m, has(m.v2) && m.v2 != 'z')", 10),
            ("self.listMap.exists_one(m, has(m.v2) && m.v2 == 'z')", 12),
            ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').size() == 1", 24),
            ("self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 25),
            ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1", 39),
            ("self.listMap.exists(m, m.v2 == 'z')", 24),
            ("!self.listMap.all(m, m.v2 != 'z')", 22),
            ("self.objs[0] == self.objs[1]", 7),
            ("self.objs[0] + self.objs[2] == self.objs[2]", 11),
            ("self.objs[0] == [self.objs[0][1], self.objs[0][0]]", 22),
            ("size(self.objs[0] + [self.objs[3][0]]) == 3", 20),
            ("!('a' in self.val)", 4),
            ("!has(self.val.a)", 3),
            ("self.val.all(k, self.val[k] > 0)", 17),
            ("self.val.exists_one(k, self.val[k] == 2)", 14),
            ("size(self.val.filter(k, self.val[k] > 1)) == 1", 26),
        ],
    );
    check(
        json!({"something": {"x-kubernetes-int-or-string": true}, "min": {"x-kubernetes-int-or-string": true}, "current": integer(), "available": integer()}),
        json!({"something": "25%", "min": "50%", "current": 5, "available": 10}),
        &[
            ("type(self.something) == int ? self.something == 1 : self.something == '25%'", 7),
            ("self.something == 1 || self.something == '25%'", 6),
            (r"type(self.min) == string && self.min.matches(r'(\d+(\.\d+)?%)')", 10),
            (
                "type(self.min) == int ? self.current <= self.min : double(self.current) / double(self.available) >= double(self.min.replace('%', '')) / 100.0",
                17,
            ),
        ],
    );
}

#[test]
fn budget() {
    let decl = object(json!({"l": list(integer())}));
    let value = json!({"l": (0..2000).collect::<Vec<_>>()});
    run(&decl, &value, "self.l.all(x, self.l.all(y, true))", |run| {
        assert_eq!(run.value.unwrap_err().to_string(), "operation cancelled: actual cost limit exceeded");
        assert!(run.cost > limits::PER_CALL_LIMIT);
    });
}

fn estimate(properties: Json, source: &str) -> u64 {
    compile(&object(properties), source).estimated_cost().max
}

/// Lists without limits are as long as a request allows.
#[test]
fn estimates() {
    let numbers = |most: u64| json!({"l": {"type": "array", "maxItems": most, "items": {"type": "integer"}}});
    // The range, and for each item the condition (2), `@result` (1) and the body; then the result.
    assert_eq!(estimate(numbers(10), "self.l.all(x, x == x)"), 2 + 10 * (2 + 1 + 2) + 1);
    assert_eq!(estimate(numbers(10), "self.l.all(x, true)"), 2 + 10 * 3 + 1);
    assert_eq!(estimate(json!({"l": list(integer())}), "self.l.all(x, true)"), 3 + 3 * (3 * 1024 * 1024 - 2) / 2);
    // A tenth of four bytes a character.
    let text = json!({"s": {"type": "string", "maxLength": 100}, "t": {"type": "string", "maxLength": 50}});
    assert_eq!(estimate(text.clone(), "self.s == self.t"), 4 + 20);
    assert_eq!(estimate(text.clone(), "self.s.startsWith('abc')"), 2 + 1);
    assert_eq!(estimate(text.clone(), "self.s.contains('a')"), 2 + 40);
    assert_eq!(estimate(text.clone(), "self.s.matches('^[a-z]*$')"), 2 + 41 * 2);
    assert_eq!(estimate(text, "self.s + self.t == 'x'"), 4 + 60 + 1);
    assert_eq!(estimate(json!({"a": integer(), "b": integer()}), "self.a == self.b"), 4);
    assert_eq!(estimate(json!({"a": integer()}), "has(self.a)"), 1);
    assert_eq!(estimate(json!({"a": integer()}), "self == oldSelf"), 2);
    // What no schema bounds.
    assert!(estimate(json!({"a": integer()}), "'a' + string(self.a) == 'a1'") > 1 << 60);
}

/// Upstream refuses loops over unbounded lists of unbounded strings, and accepts them with limits.
#[test]
fn accepted_and_refused() {
    let limit = limits::STATIC_ESTIMATED_COST;
    let names = |bounded: bool| match bounded {
        true => json!({"l": {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 64}}}),
        false => json!({"l": list(string())}),
    };
    for (source, open, bounded) in [
        ("self.l.all(x, x.startsWith('a'))", true, true),
        ("self.l.all(x, x.matches('^a'))", false, true),
        ("self.l.all(x, self.l.exists_one(y, x == y))", false, true),
        ("self.l.all(x, x == 'foo')", true, true),
        ("self.l == oldSelf.l", true, true),
    ] {
        assert_eq!(estimate(names(false), source) <= limit, open, "{source}");
        assert_eq!(estimate(names(true), source) <= limit, bounded, "{source}");
    }
}
