use http::Method;

use super::*;
use crate::http::query::Query;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: Request
  resources: [{group: "", resources: [pods/*, "*/scale"]}]
  omitStages: [ResponseStarted]
- level: RequestResponse
  userGroups: [admins]
  namespaces: [kube-system, ""]
  omitManagedFields: false
- level: Metadata
  resources: [{group: "", resources: [secrets], resourceNames: [one]}, {group: apps}]
- level: Metadata
  nonResourceURLs: [/version, "/health*"]
"#;

fn level(policy: &Policy, user: (&str, &[&str]), request: &str) -> Option<(Level, usize, bool)> {
    let (method, uri) = request.split_once(' ').unwrap();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let info = RequestInfo::parse(&method.parse::<Method>().unwrap(), path, &Query::parse(query));
    let user = UserInfo::new(user.0, user.1.iter().copied());
    let verdict = policy.verdict(Some(&user), &info)?;
    Some((verdict.level, verdict.omit_stages.len(), verdict.omit_managed_fields))
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = Policy::parse(POLICY).unwrap();
    let ann: (&str, &[&str]) = ("ann", &[]);
    let admin: (&str, &[&str]) = ("bob", &["admins"]);
    for (user, request, expected) in [
        (("system:kube-proxy", &[][..]), "GET /api/v1/services?watch=1", None),
        (ann, "GET /api/v1/namespaces/a/pods/p/log", Some((Level::Request, 2, true))),
        (ann, "GET /api/v1/namespaces/a/pods/p", Some((Level::Request, 2, true))),
        (ann, "PUT /api/v1/namespaces/a/replicationcontrollers/p/scale", Some((Level::Request, 2, true))),
        (ann, "GET /api/v1/namespaces/kube-system/configmaps", None),
        (admin, "GET /api/v1/namespaces/kube-system/configmaps", Some((Level::RequestResponse, 1, false))),
        (admin, "GET /api/v1/nodes", Some((Level::RequestResponse, 1, false))),
        (admin, "GET /version", Some((Level::Metadata, 1, true))),
        (admin, "GET /apis", None),
        (ann, "GET /healthz", Some((Level::Metadata, 1, true))),
        (ann, "GET /api/v1/namespaces/a/secrets/one", Some((Level::Metadata, 1, true))),
        (ann, "GET /api/v1/namespaces/a/secrets/two", None),
        (ann, "GET /apis/apps/v1/namespaces/a/deployments/x/status", Some((Level::Metadata, 1, true))),
    ] {
        assert_eq!(level(&policy, user, request), expected, "{request}");
    }
    // Who could not prove who he is has no name and no groups.
    let info = RequestInfo::parse(&Method::GET, "/api/v1/nodes", &Query::parse(""));
    assert_eq!(policy.verdict(None, &info), None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    for (text, why) in [
        ("kind: Policy", "must be Policy of audit.k8s.io/v1"),
        ("rules: {", "failed decoding"),
        (&format!("{head}rules: []"), "0 rules"),
        (&format!("{head}rules: [{{level: All}}]"), "unknown variant `All`"),
        (&format!("{head}rules: [{{}}]"), "missing field `level`"),
        (&format!("{head}rules: [{{level: None, nonResourceURLs: [version]}}]"), "must begin with a '/'"),
        (&format!("{head}rules: [{{level: None, nonResourceURLs: [/a*/b]}}]"), "must be the final character"),
        (&format!("{head}rules: [{{level: None, namespaces: [a], nonResourceURLs: [/a]}}]"), "cannot apply to both"),
        (
            &format!("{head}rules: [{{level: None, resources: [{{resourceNames: [a]}}]}}]"),
            "requires at least one resource",
        ),
        (&format!("{head}rules: [{{level: None, resources: [{{group: apps/v1}}]}}]"), "is no API group"),
    ] {
        let error = Policy::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn unknown_fields_are_named() {
    let text = r#"{"rules": [{"level": "None", "userGroup": ["a"]}], "omitStage": []}"#;
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(unknown_fields(&value), ["omitStage", "rules[0].userGroup"]);
}
