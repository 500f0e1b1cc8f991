//! What expressions come to.

use serde_json::{Value as Json, json};

use super::{dynamic, object, run};

/// The expression is true.
fn holds(source: &str) {
    run(&dynamic(), &Json::Null, source, |run| {
        assert_eq!(run.value.as_ref().map(crate::Value::as_bool), Ok(Some(true)), "{source}: {:?}", run.value);
    });
}

/// The expression fails.
fn fails(source: &str, error: &str) {
    run(&dynamic(), &Json::Null, source, |run| {
        assert_eq!(
            run.value.map(|value| format!("{value:?}")).map_err(|error| error.to_string()),
            Err(error.to_owned()),
            "{source}"
        );
    });
}

fn all_hold(sources: &[&str]) {
    for source in sources {
        holds(source);
    }
}

#[test]
fn operators() {
    all_hold(&[
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && -7 % 3 == -1",
        "1.5 + 1.5 == 3.0",
        "2u * 3u == 6u",
        "-9223372036854775808 < 0",
        "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2",
        "1 < 1.5 && 2u > 1 && dyn(1) == 1.0 && dyn(1u) == 1",
        "dyn(1) != 'a' && dyn('a') != 1",
        "!false && !!true",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab'",
        "[1] + [2] == [1, 2]",
        "true ? 1 == 1 : 1 / 0 == 0",
        "'a' < 'b' && false < true && b'a' < b'b'",
        "1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1}",
        "[1, 2][1] == 2 && {'a': 1}['a'] == 1 && {'a': 1}.a == 1",
        "{1: 'a'}[1] == 'a' && {true: 1}[true] == 1",
        "0x1F == 31 && 1e3 == 1000.0 && .5 == 0.5",
        r#"'\x41\u00e9\101' == 'AéA' && r'\n' == '\\n' && '''a'b''' == "a'b""#,
        "b'\\xff'.size() == 1 && size('é') == 1",
        "null == null && type(null) == null_type",
        "1 == 1 // comment",
    ]);
    fails("9223372036854775807 + 1 == 0", "integer overflow");
    fails("-9223372036854775808 - 1 == 0", "integer overflow");
    fails("0u - 1u == 0u", "unsigned integer overflow");
    fails("1 / 0 == 1", "division by zero");
    fails("1 % 0 == 1", "modulus by zero");
    fails("[1][5] == 1", "index out of bounds: 5");
    fails("{'a': 1}.b == 1", "no such key: b");
    fails("dyn('a') + dyn(1) == 1", "no such overload");
    fails("dyn('a') < dyn(1)", "no such overload");
    fails("self == 1 ? dyn(1) < 'a' : dyn(1) < 'a'", "no such overload");
}

#[test]
fn errors_are_absorbed() {
    all_hold(&[
        "true || 1 / 0 == 0",
        "1 / 0 == 0 || true",
        "!(false && 1 / 0 == 0)",
        "!(1 / 0 == 0 && false)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 1 / x > 1)",
    ]);
    fails("1 / 0 == 0 && true", "division by zero");
    fails("1 / 0 == 0 || false", "division by zero");
    fails("[0, 1].all(x, 1 / x == 1)", "division by zero");
    fails("[1, 0].exists_one(x, 1 / x == 1)", "division by zero");
    fails("[1, 0].map(x, 1 / x) == []", "division by zero");
}

#[test]
fn macros() {
    all_hold(&[
        "[1, 2].all(x, x > 0) && ![1, 2].all(x, x > 1) && [].all(x, x > 0)",
        "[1, 2].exists(x, x == 2) && ![].exists(x, true)",
        "[1, 2].exists_one(x, x == 2) && ![2, 2].exists_one(x, x == 2)",
        "[1, 2].map(x, x * 2) == [2, 4] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b']) && {'a': 1}.map(k, k) == ['a']",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "[[1, 2], [3]].all(x, x.all(y, y > 0)) && [[1], [2]].map(x, x.map(x, x + 1)) == [[2], [3]]",
        "[10, 20].all(i, v, v == (i + 1) * 10) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].existsOne(i, v, v == 2)",
        "[1, 2].transformList(i, v, i + v) == [1, 3] && [1, 2].transformList(i, v, v > 1, v) == [2]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
    ]);
    fails("[1, 1].transformMapEntry(i, v, {v: i}) == {}", "insert failed: key 1 already exists");
}

#[test]
fn conversions() {
    all_hold(&[
        "int('5') == 5 && int(5.9) == 5 && int(5u) == 5 && int(timestamp('1970-01-01T00:00:05Z')) == 5",
        "uint('5') == 5u && double('1.5') == 1.5 && double(2) == 2.0",
        "string(1) == '1' && string(1.5) == '1.5' && string(1000000.0) == '1e+06' && string(123456.0) == '123456' && string(true) == 'true' && string(b'a') == 'a'",
        "string(duration('1h2m3s4ms')) == '3723.004s' && string(timestamp('2000-01-01T00:00:00.5Z')) == '2000-01-01T00:00:00.5Z'",
        "bytes('a') == b'a' && bool('true') && !bool('f')",
        "type(1) == int && type(1.0) == double && type('a') == string && type([]) == list && type({}) == map",
        "type(type(1)) == type && type(duration('1s')) == google.protobuf.Duration",
        "duration('1.5h') == duration('90m') && duration('-1s') < duration('0')",
        "timestamp('2000-01-01T00:00:00Z') + duration('1h') == timestamp('2000-01-01T01:00:00Z')",
        "timestamp('2000-01-01T01:00:00Z') - timestamp('2000-01-01T00:00:00Z') == duration('1h')",
        "timestamp('2000-02-03T04:05:06.007Z').getFullYear() == 2000",
        "timestamp('2000-02-03T04:05:06.007Z').getMonth() == 1 && timestamp('2000-02-03T04:05:06.007Z').getDate() == 3",
        "timestamp('2000-02-03T04:05:06.007Z').getDayOfYear() == 33 && timestamp('2000-02-03T04:05:06Z').getDayOfWeek() == 4",
        "timestamp('2000-02-03T04:05:06.007Z').getHours() == 4 && timestamp('2000-02-03T04:05:06.007Z').getMilliseconds() == 7",
        "timestamp('2000-02-03T04:05:06Z').getHours('+02:30') == 6 && timestamp('2000-02-03T04:05:06Z').getMinutes('-00:10') == 55",
        "timestamp('2000-07-03T04:05:06Z').getHours('Europe/Berlin') == 6 && timestamp('2000-01-03T04:05:06Z').getHours('Asia/Kolkata') == 9",
        "duration('3723.004s').getHours() == 1 && duration('3723.004s').getMinutes() == 62",
    ]);
    fails("int('x') == 1", "type conversion error from 'string' to 'int'");
    fails("int(1e30) == 1", "integer overflow");
    fails("uint(-1) == 1u", "unsigned integer overflow");
    fails("timestamp('2000-01-01T00:00:00Z').getHours('Nowhere/City') == 1", "unknown time zone Nowhere/City");
    // Whatever the machine's own database would find.
    fails("timestamp('2000-01-01T00:00:00Z').getHours('posixrules') == 1", "unknown time zone posixrules");
    fails("timestamp('2000-01-01T00:00:00Z').getHours('europe/berlin') == 1", "unknown time zone europe/berlin");
}

#[test]
fn strings() {
    all_hold(&[
        "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.size() == 3",
        "'tacocat'.charAt(3) == 'o' && 'abc'.charAt(3) == ''",
        "'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('ello', 2) == 7 && 'hello'.indexOf('x') == -1",
        "'hello mellow'.lastIndexOf('ello') == 7 && 'hello mellow'.lastIndexOf('ello', 6) == 1",
        "'abcd'.lastIndexOf('cd', 2) == 2 && 'abcd'.lastIndexOf('cd', 3) == 2 && 'abcd'.lastIndexOf('bcde', 3) == -1",
        "'aéaé'.lastIndexOf('é', 2) == 1 && 'aéaé'.lastIndexOf('é', 3) == 3 && 'xéé'.lastIndexOf('é', 1) == 1",
        "'a😀b😀'.lastIndexOf('b', 1) == -1 && 'a😀b😀'.lastIndexOf('😀', 2) == 1 && 'a😀b😀'.lastIndexOf('b😀') == 2",
        "'abc'.indexOf('', 2) == 2 && 'abc'.lastIndexOf('', 1) == 1 && 'abc'.lastIndexOf('') == 3 && ''.indexOf('') == 0",
        "'abc'.indexOf('c', 3) == -1 && 'abc'.indexOf('c', 30) == -1 && 'abc'.lastIndexOf('c', 30) == -1",
        "['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'",
        "'ABC'.lowerAscii() == 'abc' && 'abç'.upperAscii() == 'ABç'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'a b c'.split(' ') == ['a', 'b', 'c'] && 'a b c'.split(' ', 2) == ['a', 'b c'] && 'abc'.split('') == ['a', 'b', 'c']",
        "'a b'.split(' ', 0) == [] && ''.split('') == [] && ''.split(',') == ['']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "'  a \\n'.trim() == 'a'",
        r#"strings.quote('a"b\n') == '"a\\"b\\n"'"#,
        "'%d %s %f %s %s'.format([1, 'abc', 1.0, duration('1m'), timestamp('2000-01-01T00:00:00.000Z')]) == '1 abc 1.000000 60s 2000-01-01T00:00:00Z'",
        "'%e'.format([3.14]) == '3.140000 × 10⁰⁰' && '%.2f%%'.format([1.239]) == '1.24%'",
        "'%o %x %X %b'.format([8, 255, 'hi', 5]) == '10 ff 6869 101' && '%s'.format([['b', 'a']]) == '[b, a]'",
        "'abc123'.matches('[a-z]+[0-9]+$') && !'abc'.matches('^b')",
        r"'a1'.matches(r'^\w\d$') && !'é'.matches(r'^\w$') && '[x]'.matches(r'^[[]x[]]$')",
        "'123 abc 456'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']",
    ]);
    fails("'abc'.charAt(4) == 'a'", "index out of range: 4");
    fails("'abc'.lastIndexOf('c', -1) == 0", "index out of range: -1");
    fails("'abc'.substring(2, 1) == 'a'", "invalid substring range. start: 2, end: 1");
    fails("'%d'.format(['a']) == ''", "error during formatting: decimal clause cannot be used on string");
    fails("'%d'.format([]) == ''", "index 0 out of range");
}

#[test]
fn lists_and_sets() {
    all_hold(&[
        "[1, 2, 3].isSorted() && ![2, 1].isSorted() && ['a', 'b'].isSorted() && [].isSorted()",
        "[1, 2].sum() == 3 && [1.5, 1.5].sum() == 3.0 && [duration('1m'), duration('1s')].sum() == duration('1m1s')",
        "type([1].filter(x, false).sum()) == int && type([1u].filter(x, false).sum()) == uint && [].sum() == 0",
        "type([1.5].filter(x, false).sum()) == double && [duration('1m')].filter(x, false).sum() == duration('0s')",
        "type(dyn([1.5].filter(x, false)).sum()) == int",
        "[1, 3, 2].max() == 3 && ['a', 'b'].min() == 'a'",
        "[1, 2, 2, 3].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && ['a'].indexOf('b') == -1",
        "sets.contains([1, 2], [2]) && !sets.contains([1], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1, 2], [2, 3])",
        "size([1, 2]) == 2 && {'a': 1}.size() == 1",
    ]);
    fails("[].max() == 1", "max called on empty list");
}

#[test]
fn libraries() {
    all_hold(&[
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k').compareTo(quantity('1000')) == 0",
        "quantity('50k').add(20).sub(quantity('20')) == quantity('50k') && quantity('1.5').asApproximateFloat() == 1.5",
        "isQuantity('1.3G') && !isQuantity('1.3GG') && quantity('50000000G').isInteger() && quantity('5k').asInteger() == 5000",
        "quantity('-1').sign() == -1 && quantity('0').sign() == 0 && type(quantity('1')) == kubernetes.Quantity",
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && ip('::1').isLoopback() && isIP('1.2.3.4') && !isIP('1.2.3')",
        "!isIP('::ffff:1.2.3.4') && ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "ip('10.0.0.1').isGlobalUnicast() && ip('169.254.1.1').isLinkLocalUnicast() && ip('224.0.0.1').isLinkLocalMulticast() && ip('0.0.0.0').isUnspecified()",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && cidr('192.168.0.0/24').containsIP(ip('192.168.0.9')) && !cidr('192.168.0.0/24').containsIP('192.168.1.1')",
        "cidr('192.168.0.0/24').containsCIDR('192.168.0.0/25') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23'))",
        "cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24') && cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.1/8').ip() == ip('10.0.0.1')",
        "isCIDR('::/0') && !isCIDR('1.2.3.4/33') && string(ip('1.2.3.4')) == '1.2.3.4' && string(cidr('1.2.3.0/24')) == '1.2.3.0/24'",
        "url('https://example.com:80/path/a b?q=1&q=2').getHost() == 'example.com:80' && url('https://example.com:80/').getHostname() == 'example.com'",
        "url('https://[::1]:80/').getPort() == '80' && url('https://[::1]:80/').getHostname() == '::1' && url('/path').getScheme() == ''",
        "url('https://e/p?q=1&q=2&r=%20').getQuery() == {'q': ['1', '2'], 'r': [' ']} && url('https://e/a b').getEscapedPath() == '/a%20b'",
        "isURL('https://a') && !isURL('../relative') && !isURL('a b')",
        "semver('1.2.3').major() == 1 && semver('1.2.3-alpha.1').isLessThan(semver('1.2.3')) && isSemver('1.0.0+b') && !isSemver('v1.0')",
        "semver('v1.01', true) == semver('1.1.0') && semver('1.0.0-2').isLessThan(semver('1.0.0-10')) && semver('1.0.0').compareTo(semver('2.0.0')) == -1",
        "!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue()",
        "format.named('uuid').value().validate('x').value().size() == 1 && !format.named('nothing').hasValue()",
        "optional.of(1).value() == 1 && !optional.none().hasValue() && optional.ofNonZeroValue('').orValue('x') == 'x'",
        "optional.none().or(optional.of(1)).value() == 1 && {'a': 1}.?b.orValue(2) == 2 && {'a': {'b': 1}}.?a.b.value() == 1",
        "[1][?5].orValue(0) == 0 && [?optional.none(), 1] == [1] && {?'a': optional.of(1)} == {'a': 1}",
        "optional.of(2).optMap(x, x + 1).value() == 3 && !optional.none().optMap(x, x).hasValue() && optional.of(2).optFlatMap(x, optional.of(x)).value() == 2",
    ]);
    fails(
        "quantity('x') == quantity('1')",
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    fails("optional.none().value() == 1", "optional.none() dereference");
}

/// Lists of a set or with keys compare and concatenate as such.
#[test]
fn typed_lists() {
    let keyed = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
    });
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let decl = object(json!({"a": set, "b": set, "l": {"type": "array", "items": keyed}}));
    let value = json!({
        "a": ["x", "y"], "b": ["y", "x"],
        "l": [
            [{"k": "1", "v": 1}, {"k": "2", "v": 2}],
            [{"k": "2", "v": 2}, {"k": "1", "v": 1}],
            [{"k": "2", "v": 3}, {"k": "4", "v": 4}],
        ],
    });
    for source in [
        "self.a == self.b",
        "self.a + self.b == ['x', 'y']",
        "self.a + ['z'] == ['z', 'x', 'y']",
        "self.l[0] == self.l[1]",
        "self.l[0] != self.l[2]",
        "(self.l[0] + self.l[2]).map(e, e.v) == [1, 3, 4]",
        "size(self.l[0] + self.l[0]) == 2",
    ] {
        run(&decl, &value, source, |run| assert_eq!(run.value.unwrap().as_bool(), Some(true), "{source}"));
    }
}

#[test]
fn objects() {
    let decl = object(json!({
        "a-b": {"type": "string"}, "namespace": {"type": "string"}, "n": {"type": "integer", "nullable": true},
        "num": {"type": "number"}, "p": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"}, "for": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "deep": {"type": "object", "properties": {"x": {"type": "string"}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }));
    let value = json!({
        "a-b": "1", "namespace": "ns", "n": null, "num": 1, "p": "25%", "when": "2011-08-18T19:03:37+01:00",
        "for": "1h", "data": "QUI=", "deep": {"x": "y"}, "labels": {"k/1": "v"},
    });
    for source in [
        "self.a__dash__b == '1' && self.__namespace__ == 'ns'",
        "!has(self.n) && has(self.deep.x)",
        "self.num == 1.0 && type(self.num) == double",
        "type(self.p) == string && self.p == '25%' && self.p != 1",
        "self.when.getHours() == 18 && self.__for__ == duration('60m') && self.data == b'AB'",
        "self.labels['k/1'] == 'v' && self.labels.all(k, v, v == 'v') && !has(self.labels.x)",
        "self == self && self.deep == self.deep",
        "self.?deep.?x.orValue('') == 'y'",
    ] {
        run(&decl, &value, source, |run| assert_eq!(run.value.unwrap().as_bool(), Some(true), "{source}"));
    }
}
