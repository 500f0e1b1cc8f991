use std::borrow::Cow;

use serde_json::json;

use super::{FieldSelector, LabelSelector};

#[track_caller]
fn check(selector: &str, labels: serde_json::Value, expected: bool) {
    let parsed = LabelSelector::parse(selector).unwrap();
    assert_eq!(parsed.matches(&labels), expected, "{selector} on {labels}");
    let again = LabelSelector::parse(&parsed.to_string()).unwrap();
    assert_eq!(again.matches(&labels), expected, "{parsed} on {labels}");
}

#[test]
fn labels_match() {
    let web = || json!({"app": "web", "tier": "front", "empty": "", "n": "7"});
    for yes in [
        "",
        "app=web",
        "app==web",
        "app = web , tier=front",
        "app in (web,api)",
        "app in (web)",
        "app notin (api)",
        "x notin (a)",
        "x!=a",
        "app!=api",
        "app",
        "!x",
        "empty=",
        "empty",
        "empty in (,a)",
        "n>6",
        "n<8",
        "n > 6,n<8",
        "example.com/x!=y",
        "in!=x",
        "!notin",
    ] {
        check(yes, web(), true);
    }
    for no in [
        "app=api",
        "app!=web",
        "app in (api)",
        "app notin (web,api)",
        "x",
        "!app",
        "x=",
        "n>7",
        "n<7",
        "app>1",
        "x>1",
        "empty in (a,b)",
    ] {
        check(no, web(), false);
    }
}

#[test]
fn bad_label_selectors() {
    let name_rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
        character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    for (selector, message) in [
        ("a=b,", "found '', expected: identifier after ','".into()),
        ("=b", "found '=', expected: !, identifier, or 'end of string'".into()),
        ("a=!", "unable to parse requirement: found '!', expected: identifier".into()),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".into()),
        ("a in x", "unable to parse requirement: found 'x' expected: '('".into()),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'".into()),
        ("a in ()", "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into()),
        ("a=b c", "found 'c', expected: ',' or 'end of string'".into()),
        ("a>b", "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer".into()),
        ("!", "unable to parse requirement: found '', expected: identifier".into()),
        ("-a=b", format!("unable to parse requirement: <nil>: Invalid value: \"-a\": name part {name_rule}")),
    ] {
        let message: String = message;
        assert_eq!(LabelSelector::parse(selector).unwrap_err().to_string(), message, "{selector}");
    }
}

#[test]
fn json_selectors() {
    let parse = |v: serde_json::Value| LabelSelector::from_json(Some(&v));
    assert_eq!(LabelSelector::from_json(None).unwrap(), LabelSelector::nothing());
    assert!(parse(json!({})).unwrap().matches(&json!({"a": "b"})));
    assert!(!LabelSelector::nothing().matches(&json!({})));
    let both = parse(json!({"matchLabels": {"b": "1"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"},
    ]}))
    .unwrap();
    assert_eq!(both.to_string(), "a in (x,y),b=1,!c");
    let bad = parse(json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})).unwrap_err();
    assert_eq!(bad.to_string(), "\"Is\" is not a valid label selector operator");
}

#[test]
fn field_selectors() {
    let field = |name: &str| -> Cow<'static, str> {
        match name {
            "metadata.name" => "a,b".into(),
            "status.phase" => "Running".into(),
            _ => "".into(),
        }
    };
    for (selector, expected) in [
        ("", true),
        ("metadata.name=a\\,b", true),
        ("status.phase!=Running", false),
        ("status.phase==Running,", true),
        ("status.phase=Running,metadata.name!=x", true),
        ("spec.nodeName=", true),
    ] {
        let parsed = FieldSelector::parse(selector).unwrap();
        assert_eq!(parsed.matches(field), expected, "{selector}");
        assert_eq!(FieldSelector::parse(&parsed.to_string()).unwrap(), parsed);
    }
    for (selector, message) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b\\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(selector).unwrap_err().to_string(), message);
    }
    assert_eq!(FieldSelector::parse("metadata.name=x").unwrap().exact("metadata.name"), Some("x"));
}
