//! Estimates beside those that upstream documents in its tests: with no limits in the schema, and with limits everywhere.

use serde_json::{Value as Json, json};

use crate::{Env, declare};

/// A schema by the name that its type or format has; `most` goes wherever a limit can stand.
fn scalar(name: &str, most: Option<u64>) -> Json {
    match name {
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "duration" | "date" | "date-time" => json!({"type": "string", "format": name}),
        "limited string" => limited(json!({"type": "string"}), "maxLength", most),
        "bytes" => limited(json!({"type": "string", "format": "byte"}), "maxLength", most),
        name => json!({"type": name}),
    }
}

fn limited(mut schema: Json, limit: &str, most: Option<u64>) -> Json {
    if let Some(most) = most {
        schema[limit] = most.into();
    }
    schema
}

/// `list of map of number` and the like; the outermost is limited, and those called limited.
fn schema(name: &str, most: Option<u64>, outer: bool) -> Json {
    let outer_limit = most.filter(|_| outer);
    if let Some(items) = name.strip_prefix("list of ") {
        let schema = json!({"type": "array", "items": schema(items, most, false)});
        limited(schema, "maxItems", outer_limit)
    } else if let Some(values) = name.strip_prefix("map of ") {
        let schema = json!({"type": "object", "additionalProperties": schema(values, most, false)});
        limited(schema, "maxProperties", outer_limit)
    } else if name == "required object" {
        json!({"type": "object", "properties": {"required": {"type": "string"}}, "required": ["required"]})
    } else {
        scalar(name, most)
    }
}

fn estimate(schema: &Json, rule: &str) -> u64 {
    let decl = declare(schema, false, "self").unwrap();
    let env = Env::new().variable("self", decl.clone()).variable("oldSelf", decl);
    env.compile(rule).unwrap_or_else(|issues| panic!("{rule}\n{issues}")).estimated_cost().max
}

#[test]
fn as_documented() {
    for (name, rule, open, most, bounded) in [
        ("list of number", "self.all(x, true)", 4_718_591, 10, 32),
        ("list of string", "self.all(x, true)", 3_145_727, 20, 62),
        ("list of boolean", "self.all(x, true)", 1_887_437, 5, 17),
        ("list of list of number", "self.all(x, true)", 3_145_727, 100, 302),
        ("list of required object", "self.all(x, true)", 555_128, 50, 152),
        ("map of number", "self.all(x, true)", 1_348_169, 10, 32),
        ("map of string", "self.all(x, true)", 1_179_647, 3, 11),
        ("map of boolean", "self.all(x, true)", 943_718, 100, 302),
        ("limited string", "self.contains('test')", 314_574, 10, 5),
        ("limited string", "self.startsWith('test')", 2, 15, 2),
        ("limited string", "self.endsWith('test')", 2, 30, 2),
        ("limited string", "size(self + \"hello\") > size(\"hello\")", 314_578, 4, 7),
        ("list of number", "self[1] == 0.0", 2, 5000, 2),
        ("list of string", "self[1] == self[1]", 314_577, 8, 314_577),
        ("limited string", "self.matches(\"x\")", 314_574, 50, 22),
        ("limited string", "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7, 10, 7),
        ("limited string", "self.matches(\"\")", 1, 100, 1),
        ("list of number", "self[3] == 0.0", 2, 0, 2),
        ("map of number", "self[\"x\"] == 0.0", 2, 0, 2),
        ("limited string", "self == \"x\"", 2, 0, 1),
        ("bytes", "self == b\"x\"", 2, 0, 1),
        ("list of number", "self.all(x, x == 0.0)", 6_291_454, 3 * 1024 * 2048, 25_165_826),
        ("list of int-or-string", "self.all(x, true)", 4_718_591, 10, 32),
        ("list of int-or-string", "self[0] == 5", 3, 10, 3),
        ("list of boolean", "self[0] == false", 2, 25, 2),
        ("list of required object", "self[0] == null", 2, 422, 2),
        ("list of list of number", "self[0][0] == -1.0", 3, 51, 3),
        ("list of map of number", "self.all(x, x.y == 25.2)", 6_291_452, 12, 74),
        ("list of map of number", "self[0].x > 2.0", 4, 3000, 4),
        ("list of duration", "self.all(x, true)", 2_359_295, 5, 17),
        ("list of duration", "self[0].getHours() == 2", 4, 525, 4),
        ("list of date", "self.all(x, true)", 725_936, 15, 47),
        ("list of date", "self[2].getDayOfMonth() == 13", 4, 42, 4),
        ("list of date-time", "self.all(x, true)", 428_963, 25, 77),
        ("list of date-time", "self[2].getMinutes() == 45", 4, 99, 4),
        ("map of int-or-string", "self.all(x, true)", 1_348_169, 15, 47),
        ("map of required object", "self.all(x, true)", 428_963, 20, 62),
        ("map of map of number", "self.all(x, true)", 1_179_647, 10, 32),
        ("map of list of number", "self.all(x, true)", 1_179_647, 25, 77),
        ("map of duration", "self.all(x, true)", 1_048_577, 5, 17),
        ("map of date", "self.all(x, true)", 524_288, 10, 32),
        ("map of date-time", "self.all(x, true)", 349_526, 25, 77),
        ("limited string", "self.find('[0-9]+') == ''", 629_147, 10, 11),
        ("list of limited string", "self.join(' ') == 'aa bb'", 329_853_068_905, 10, 43),
        ("list of limited string", "self.isSorted() == true", 329_854_432_052, 10, 52),
        ("limited string", "self.lowerAscii() == 'lower!'", 314_575, 10, 6),
        ("map of integer", "oldSelf.size() == self.size()", 5, 10, 5),
        ("map of date-time", "self[\"a\"] == self[\"b\"]", 8, 7, 8),
    ] {
        assert_eq!(estimate(&schema(name, None, true), rule), open, "{name}: {rule}, no limits");
        assert_eq!(estimate(&schema(name, Some(most), true), rule), bounded, "{name}: {rule}, at most {most}");
    }
}

#[test]
fn loops_in_loops() {
    let (two, three) = ("self.all(x, self.all(y, true))", "self.all(x, self.all(y, self.all(z, true)))");
    assert_eq!(estimate(&schema("list of number", Some(10), true), two), 352);
    assert_eq!(estimate(&schema("list of number", Some(10), true), three), 3552);
    for rule in [two, three] {
        assert!(estimate(&schema("list of number", None, true), rule) > crate::limits::STATIC_ESTIMATED_COST);
    }
}

/// The result of a call has a size, too.
#[test]
fn results() {
    let text = |most| limited(json!({"type": "string"}), "maxLength", most);
    let replace = |most| {
        json!({"type": "object", "properties": {
            "str": text(most), "before": {"type": "string", "maxLength": 2}, "after": {"type": "string", "maxLength": 4},
        }})
    };
    let rule = "self.str.replace(self.before, self.after) == 'does not matter'";
    assert_eq!((estimate(&replace(None), rule), estimate(&replace(Some(4)), rule)), (629_154, 12));
    let split = |most| json!({"type": "object", "properties": {"str": text(most), "separator": text(most)}});
    let rule = "self.str.split(self.separator) == []";
    assert_eq!((estimate(&split(None), rule), estimate(&split(Some(10)), rule)), (629_160, 22));
}
