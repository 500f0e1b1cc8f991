//! Validation rules of custom resources and expressions of policies, over HTTP.

mod support;

use serde_json::{Value, json};
use support::{Api, TestServer};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const PATH: &str = "/apis/rules.example.com/v1/namespaces/default/things";

fn definition(rule: &str) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "max": {"type": "integer"}, "fixed": {
                "type": "string", "maxLength": 10,
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}],
            }},
            "x-kubernetes-validations": [{"rule": rule, "messageExpression": "'%d is too many'.format([self.replicas])"}],
        },
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.ready >= 0"}]},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.rules.example.com"},
        "spec": {
            "group": "rules.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}}}],
        },
    })
}

async fn refused(api: &Api, request: &str, body: Value, wanted: &str) {
    let (code, answer) = api.call(request, body).await;
    assert_eq!(code, 422, "{answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.ends_with(wanted), "{message}");
}

#[tokio::test]
async fn rules_hold() {
    let server = TestServer::start().await;
    let api = server.admin();
    let bad =
        "compilation failed: ERROR: <input>:1:5: undefined field 'replica'\n | self.replica <= self.max\n | ....^";
    refused(&api, &format!("POST {CRDS}"), definition("self.replica <= self.max"), bad).await;

    let (code, answer) = api.call(&format!("POST {CRDS}"), definition("self.replicas <= self.max")).await;
    assert_eq!(code, 201, "{answer}");
    api.eventually(&format!("GET {PATH}"), |code, _| code == 200).await;
    let thing = |replicas: i64, fixed: &str| json!({"metadata": {"name": "a"}, "spec": {"replicas": replicas, "max": 5, "fixed": fixed}});
    let post = format!("POST {PATH}");
    refused(&api, &post, thing(7, "x"), "is invalid: spec: Invalid value: \"object\": 7 is too many").await;
    let (code, created) = api.call(&post, thing(3, "x")).await;
    assert_eq!(code, 201, "{created}");

    let mut changed = created.clone();
    changed["spec"]["fixed"] = "y".into();
    let one = format!("{PATH}/a");
    refused(&api, &format!("PUT {one}"), changed, "spec.fixed: Invalid value: \"string\": is immutable").await;
    let mut status = created.clone();
    status["status"] = json!({"ready": -1});
    let wanted = "status: Invalid value: \"object\": failed rule: self.ready >= 0";
    refused(&api, &format!("PUT {one}/status"), status.clone(), wanted).await;
    status["status"]["ready"] = 1.into();
    let (code, answer) = api.call(&format!("PUT {one}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn policies_are_checked() {
    let server = TestServer::start().await;
    let api = server.admin();
    let policy = |expression: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                }]},
                "validations": [{"expression": expression}],
            },
        })
    };
    let path = "POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let wanted = "spec.validations[0].expression: Invalid value: \"object.x\": must evaluate to bool";
    refused(&api, path, policy("object.x"), wanted).await;
    let (code, answer) = api.call(path, policy("object.metadata.name != 'x'")).await;
    assert_eq!(code, 201, "{answer}");
}
