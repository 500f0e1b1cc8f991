use serde_json::{Value, json};

use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const MUTATING: &str = "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration";
const VALIDATING: &str = "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration";
const POLICY: &str = "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy";
const BINDING: &str = "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding";

fn rule() -> Value {
    json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]})
}

fn hook(patch: Value) -> Value {
    let base = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule()],
        "clientConfig": {"service": {"namespace": "n", "name": "s"}},
    });
    json!({"webhooks": [with(&base, patch)]})
}

#[test]
fn webhook_defaults_and_columns() {
    let made = created(MUTATING, hook(json!({})));
    let webhook = &made["webhooks"][0];
    let defaults = json!({
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10, "reinvocationPolicy": "Never",
        "namespaceSelector": {}, "objectSelector": {},
    });
    for (field, value) in defaults.as_object().unwrap() {
        assert_eq!(&webhook[field], value, "{field}");
    }
    assert_eq!(
        (&webhook["rules"][0]["scope"], &webhook["clientConfig"]["service"]["port"]),
        (&json!("*"), &json!(443))
    );
    assert_eq!(created(VALIDATING, hook(json!({})))["webhooks"][0].get("reinvocationPolicy"), None);
    assert_eq!(made["metadata"]["generation"], 1);
    check_row(MUTATING, made.clone(), "1 60m");
    check(VALIDATING, hook(json!({})), &[]);
    check(MUTATING, json!({}), &[]);
    let changed = check_write(MUTATING, "", &made, json!({"webhooks": []}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
    for name in [MUTATING, VALIDATING, POLICY, BINDING] {
        assert_eq!(kind(name).categories, ["api-extensions"], "{name}");
        assert!(!kind(name).strategy.unconditional_update(), "{name}");
    }
}

#[test]
fn webhooks() {
    check(
        MUTATING,
        hook(json!({
            "name": "example.com", "failurePolicy": "x", "matchPolicy": "x", "sideEffects": "Some", "timeoutSeconds": 31,
            "reinvocationPolicy": "x", "admissionReviewVersions": ["v1", "v1", "V2"], "objectSelector": {"matchLabels": {"-": ""}},
        })),
        &[
            "webhooks[0].name: Invalid value: \"example.com\": should be a domain with at least three segments separated by dots",
            "webhooks[0].failurePolicy: Unsupported value: \"x\": supported values: \"Fail\", \"Ignore\"",
            "webhooks[0].matchPolicy: Unsupported value: \"x\": supported values: \"Equivalent\", \"Exact\"",
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            "webhooks[0].objectSelector.matchLabels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "webhooks[0].reinvocationPolicy: Unsupported value: \"x\": supported values: \"IfNeeded\", \"Never\"",
            "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
            "webhooks[0].admissionReviewVersions[2]: Invalid value: \"V2\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        VALIDATING,
        hook(
            json!({"name": "", "sideEffects": null, "admissionReviewVersions": [], "clientConfig": {"service": null}}),
        ),
        &[
            "webhooks[0].name: Required value",
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ],
    );
    check(
        VALIDATING,
        hook(json!({"admissionReviewVersions": ["v2"]})),
        &["webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1"],
    );
    let two = hook(json!({}))["webhooks"][0].clone();
    check(VALIDATING, json!({"webhooks": [two, two]}), &["webhooks[1].name: Duplicate value: \"a.example.com\""]);
    check(
        VALIDATING,
        hook(
            json!({"matchConditions": [{"name": "", "expression": " "}, {"name": "a b", "expression": "true"}, {"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
        ),
        &[
            "webhooks[0].matchConditions[0].expression: Required value",
            "webhooks[0].matchConditions[0].name: Required value",
            "webhooks[0].matchConditions[1].name: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "webhooks[0].matchConditions[3].name: Duplicate value: \"a\"",
        ],
    );
    let many = vec![json!({"name": "", "expression": "true"}); 65];
    let object = created(VALIDATING, hook(json!({"matchConditions": many})));
    let errors = kind(VALIDATING).strategy.validate(&object, crate::kind::Write::Create);
    assert_eq!(errors[0].message, "Too many: 65: must have at most 64 items");
}

#[test]
fn webhook_clients() {
    const FORM: &str = "; desired format: https://host[/path]";
    let at = "webhooks[0].clientConfig.url";
    let cases: [(&str, Vec<String>); 7] = [
        ("https://example.com/path", vec![]),
        ("http://example.com", vec![format!("Invalid value: \"http\": 'https' is the only allowed URL scheme{FORM}")]),
        ("https:///path", vec![format!("Invalid value: \"\": host must be provided{FORM}")]),
        ("https://u:p@h", vec!["Invalid value: \"u:p\": user information is not permitted in the URL".into()]),
        ("https://h#f", vec!["Invalid value: \"f\": fragments are not permitted in the URL".into()]),
        ("https://h?q=1", vec!["Invalid value: \"q=1\": query parameters are not permitted in the URL".into()]),
        (
            "",
            vec![
                format!("Invalid value: \"\": 'https' is the only allowed URL scheme{FORM}"),
                format!("Invalid value: \"\": host must be provided{FORM}"),
            ],
        ),
    ];
    for (url, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|why| format!("{at}: {why}")).collect();
        let object = hook(json!({"clientConfig": {"service": null, "url": url}}));
        check(VALIDATING, object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let service = |service: Value| hook(json!({"clientConfig": {"service": service}}));
    check(
        VALIDATING,
        service(json!({"name": "", "port": 0})),
        &[
            "webhooks[0].clientConfig.service.namespace: Required value: service namespace is required",
            "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        VALIDATING,
        service(json!({"path": "/a//b_"})),
        &[
            "webhooks[0].clientConfig.service.path: Invalid value: \"/a//b_\": segment[1] may not be empty",
            "webhooks[0].clientConfig.service.path: Invalid value: \"/a//b_\": segment[2]: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(
        VALIDATING,
        service(json!({"path": "//"})),
        &["webhooks[0].clientConfig.service.path: Invalid value: \"//\": segment[0] may not be empty"],
    );
}

#[test]
fn webhook_rules() {
    let at = "webhooks[0].rules[0]";
    let cases: [(Value, &[&str]); 7] = [
        (json!({"resources": ["pods", "pods/*"], "scope": "Namespaced"}), &[]),
        (
            json!({"operations": [], "apiGroups": [], "apiVersions": [], "resources": []}),
            &[
                "operations: Required value",
                "apiGroups: Required value",
                "apiVersions: Required value",
                "resources: Required value",
            ],
        ),
        (
            json!({"operations": ["*", "READ"], "apiVersions": [""]}),
            &[
                "operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
                "operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "apiVersions[0]: Required value",
            ],
        ),
        (
            json!({"apiGroups": ["*", ""], "apiVersions": ["*", "v1"]}),
            &[
                "apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API groups",
                "apiVersions: Invalid value: [\"*\",\"v1\"]: if '*' is present, must not specify other API versions",
            ],
        ),
        (
            json!({"resources": ["pods/*", "pods/log", "*/scale", "a/scale", ""]}),
            &[
                "resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
                "resources[3]: Invalid value: \"a/scale\": if '*/scale' is present, must not specify a/scale",
                "resources[4]: Required value",
            ],
        ),
        (
            json!({"resources": ["*", "pods"]}),
            &[
                "resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ],
        ),
        (
            json!({"resources": ["*/*", "pods"], "scope": "x"}),
            &[
                "resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
                "scope: Unsupported value: \"x\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ],
        ),
    ];
    for (patch, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|why| format!("{at}.{why}")).collect();
        let object = hook(json!({"rules": [with(&rule(), patch)]}));
        check(VALIDATING, object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn policy(patch: Value) -> Value {
    let base = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [rule()]}, "validations": [{"expression": "true"}],
    }});
    with(&base, patch)
}

#[test]
fn policies() {
    let made = created(POLICY, policy(json!({})));
    assert_eq!(made["spec"]["failurePolicy"], "Fail");
    assert_eq!(
        made["spec"]["matchConstraints"],
        json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [with(&rule(), json!({"scope": "*"}))]})
    );
    check(POLICY, made.clone(), &[]);
    check_row(POLICY, made.clone(), "1 <unset> 60m");
    check_row(
        POLICY,
        policy(json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}})),
        "1 v1/ConfigMap 60m",
    );
    check(
        POLICY,
        json!({"metadata": {"name": "p"}, "spec": {"failurePolicy": "x", "paramKind": {}}}),
        &[
            "spec.failurePolicy: Unsupported value: \"x\": supported values: \"Fail\", \"Ignore\"",
            "spec.paramKind.apiVersion: Required value",
            "spec.paramKind.kind: Required value",
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ],
    );
    check(
        POLICY,
        policy(
            json!({"spec": {"matchConstraints": {"resourceRules": null}, "paramKind": {"apiVersion": "a/b/c", "kind": "Config_Map"}}}),
        ),
        &[
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            "spec.paramKind.kind: Invalid value: \"Config_Map\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            "spec.matchConstraints.resourceRules: Required value",
        ],
    );
    check(
        POLICY,
        policy(json!({"spec": {
            "variables": [{"name": " ", "expression": ""}, {"name": "for", "expression": "1"}, {"name": "a-b", "expression": "1"}],
            "validations": [{"expression": " ", "message": " ", "messageExpression": " ", "reason": "x"}, {"expression": "true", "message": "a\nb"}],
            "auditAnnotations": [{"key": "k", "valueExpression": ""}, {"key": "k", "valueExpression": "x".repeat(5121)}],
        }})),
        &[
            "spec.variables[0].name: Required value: name is not specified",
            "spec.variables[0].expression: Required value: expression is not specified",
            "spec.variables[1].name: Invalid value: \"for\": name is not a valid CEL identifier",
            "spec.variables[2].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
            "spec.validations[0].expression: Required value: expression is not specified",
            "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
            "spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified",
            "spec.validations[0].reason: Unsupported value: \"x\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            "spec.validations[1].message: Invalid value: \"a\\nb\": message must not contain line breaks",
            "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            "spec.auditAnnotations[1].valueExpression: Required value: must not exceed 5120 bytes in length",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
        ],
    );
    let changed = check_write(
        POLICY,
        "status",
        &made,
        json!({"spec": {"failurePolicy": "Ignore"}, "status": {
            "typeChecking": {"expressionWarnings": [{"fieldRef": "", "warning": ""}]},
            "conditions": [{"type": "", "status": "x", "reason": "a b"}],
        }}),
        &[
            "status.typeChecking.expressionWarnings[0].warning: Required value",
            "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
            "status.conditions[0].type: Invalid value: \"\": name part must be non-empty",
            "status.conditions[0].type: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "status.conditions[0].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value: must be set",
            "status.conditions[0].reason: Invalid value: \"a b\": a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
        ],
    );
    assert_eq!((&changed["spec"], &changed["metadata"]["generation"]), (&made["spec"], &json!(1)));
    let changed = check_write(POLICY, "", &made, json!({"spec": {"failurePolicy": "Ignore"}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[test]
fn policy_bindings() {
    let binding = |spec: Value| json!({"spec": spec});
    let made = created(
        BINDING,
        binding(
            json!({"policyName": "p", "validationActions": ["Deny"], "matchResources": {"excludeResourceRules": [rule()]}}),
        ),
    );
    assert_eq!(made["spec"]["matchResources"]["matchPolicy"], "Equivalent");
    assert_eq!(made["spec"]["matchResources"]["excludeResourceRules"][0]["scope"], "*");
    check(BINDING, made.clone(), &[]);
    check_row(BINDING, made, "p <unset> 60m");
    let reference =
        |reference: Value| binding(json!({"policyName": "p", "paramRef": reference, "validationActions": ["Deny"]}));
    check_row(BINDING, reference(json!({"name": "a"})), "p */a 60m");
    check_row(BINDING, reference(json!({"name": "a", "namespace": "n"})), "p n/a 60m");
    check_row(
        BINDING,
        reference(
            json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}}),
        ),
        "p &LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},} 60m",
    );
    check(
        BINDING,
        binding(json!({})),
        &[
            "spec.policyName: Required value",
            "spec.validationActions: Required value: at least one validation action is required",
        ],
    );
    check(
        BINDING,
        reference(json!({"name": "a/b", "selector": {}})),
        &[
            "spec.paramRef.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Required value",
        ],
    );
    check(
        BINDING,
        reference(json!({"parameterNotFoundAction": "x"})),
        &[
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"x\": supported values: \"Deny\", \"Allow\"",
        ],
    );
    check(
        BINDING,
        binding(
            json!({"policyName": "p", "validationActions": ["Deny", "Warn", "Warn", "x"], "matchResources": {"resourceRules": [{"resourceNames": ["a", "a"]}]}}),
        ),
        &[
            "spec.matchResouces.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
            "spec.matchResouces.resourceRules[0].operations: Required value",
            "spec.matchResouces.resourceRules[0].apiGroups: Required value",
            "spec.matchResouces.resourceRules[0].apiVersions: Required value",
            "spec.matchResouces.resourceRules[0].resources: Required value",
            "spec.validationActions[2]: Duplicate value: \"Warn\"",
            "spec.validationActions[3]: Unsupported value: \"x\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"x\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ],
    );
}
