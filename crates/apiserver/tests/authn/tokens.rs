//! Bearer tokens that the server itself can judge.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keelson_apiserver::{Pem, ServiceAccountKeys};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::wire::{bearer, send, whoami};
use crate::support::TestServer;

const ISSUER: &str = "https://kubernetes.default.svc";

/// Keys, of which the second was in use before, and a stranger's.
pub struct Keys {
    pub now: KeyPair,
    before: KeyPair,
    stranger: KeyPair,
}

impl Keys {
    pub fn new() -> Self {
        let key = || KeyPair::generate().unwrap();
        Self { now: key(), before: key(), stranger: key() }
    }

    pub fn config(&self) -> ServiceAccountKeys {
        let pem = |key: &KeyPair| Pem::from(key.public_key_pem());
        ServiceAccountKeys {
            other_issuers: vec!["https://old.example.com".into()],
            max_token_expiration: Some(Duration::from_secs(7200)),
            ..ServiceAccountKeys::new(self.now.serialize_pem().into(), vec![pem(&self.now), pem(&self.before)], ISSUER)
        }
    }
}

fn sign(key: &KeyPair, claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}

async fn server(keys: &Keys) -> TestServer {
    let config = keys.config();
    TestServer::start_with(|server| server.service_account = Some(config)).await
}

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// The claims of a good token for `default/robot`, which is made.
async fn claims(test: &TestServer) -> Value {
    let account = test.admin().ok(&format!("POST {ACCOUNTS}"), json!({"metadata": {"name": "robot"}})).await;
    let now = jiff::Timestamp::now().as_second();
    json!({
        "iss": ISSUER, "aud": [ISSUER], "iat": now, "nbf": now, "exp": now + 3600, "jti": "j-1",
        "sub": "system:serviceaccount:default:robot",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "robot", "uid": account["metadata"]["uid"]}},
    })
}

fn with(claims: &Value, key: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[key] = value;
    claims
}

#[tokio::test]
async fn a_bad_token_is_unauthorized_whatever_is_bad_about_it() {
    let keys = Keys::new();
    let test = server(&keys).await;
    let address = test.listen();
    let good = claims(&test).await;
    let user = bearer(&test, address, &sign(&keys.now, &good)).await.unwrap();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["extra"], json!({"authentication.kubernetes.io/credential-id": ["JTI=j-1"]}));
    bearer(&test, address, &sign(&keys.before, &good)).await.expect("a rotated key that is still listed");
    bearer(&test, address, &sign(&keys.now, &with(&good, "iss", json!("https://old.example.com")))).await.unwrap();

    let now = jiff::Timestamp::now().as_second();
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&good));
    let public = EncodingKey::from_secret(keys.now.public_key_pem().as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good, &public).unwrap();
    let signed = sign(&keys.now, &good);
    let (head, rest) = signed.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut forged = good.clone();
    forged["sub"] = "system:serviceaccount:kube-system:admin".into();
    let tampered = format!("{head}.{}.{signature}", encode(&forged));
    let huge = with(&good, "padding", json!("x".repeat(40_000)));
    for (what, token) in [
        ("expired", sign(&keys.now, &with(&good, "exp", json!(now - 120)))),
        ("not yet valid", sign(&keys.now, &with(&good, "nbf", json!(now + 3600)))),
        ("for another audience", sign(&keys.now, &with(&good, "aud", json!(["elsewhere"])))),
        ("another issuer's", sign(&keys.now, &with(&good, "iss", json!("https://evil.example.com")))),
        ("signed with a key that is not listed", sign(&keys.stranger, &good)),
        ("alg none", none),
        ("HS256 with the public key", confused),
        ("tampered with", tampered),
        ("for another subject", sign(&keys.now, &forged)),
        ("of an account with another UID", {
            let mut other = good.clone();
            other["kubernetes.io"]["serviceaccount"]["uid"] = "u".into();
            sign(&keys.now, &other)
        }),
        ("without claims", sign(&keys.now, &json!({"iss": ISSUER}))),
        ("malformed", "a.b.c".into()),
        ("not even that", "x".into()),
        ("huge and a stranger's", sign(&keys.stranger, &huge)),
    ] {
        let authorization = format!("Bearer {token}");
        let (code, status) =
            send(&test.pki, address, None, "GET /api", &[("authorization", &authorization)], json!(null)).await;
        assert_eq!((code, &status["reason"]), (401, &json!("Unauthorized")), "{what}: {status}");
        assert_eq!(status["message"], "Unauthorized", "nothing is told about it");
    }
    // Huge, but good: it is only long.
    bearer(&test, address, &sign(&keys.now, &huge)).await.unwrap();
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    let keys = Keys::new();
    let test = server(&keys).await;
    let (address, api) = (test.listen(), test.admin());
    claims(&test).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "robot", "automountServiceAccountToken": false, "nodeName": "gone",
        "containers": [{"name": "c", "image": "i"}]}});
    api.ok("POST /api/v1/namespaces/default/pods", pod).await;
    api.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    api.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let create = format!("POST {ACCOUNTS}/robot/token");
    for (kind, path) in [
        ("Pod", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0"),
        ("Secret", "/api/v1/namespaces/default/secrets/s"),
        ("Node", "/api/v1/nodes/n"),
    ] {
        let name = kind[..1].to_lowercase();
        let bound = json!({"kind": kind, "apiVersion": "v1", "name": name});
        let mut review = json!({"spec": {"boundObjectRef": bound}});
        let token = api.ok(&create, review.clone()).await["status"]["token"].as_str().unwrap().to_owned();
        let user = bearer(&test, address, &token).await.unwrap();
        let extra = |key: &str| user["extra"][format!("authentication.kubernetes.io/{key}")][0].clone();
        assert!(extra("credential-id").as_str().unwrap().starts_with("JTI="), "{user}");
        match kind {
            "Pod" => {
                assert_eq!((extra("pod-name"), extra("node-name")), (json!("p"), json!("gone")));
                assert_eq!((extra("pod-uid").is_string(), extra("node-uid")), (true, Value::Null));
            }
            "Node" => assert_eq!((extra("node-name"), extra("node-uid").is_string()), (json!("n"), true)),
            _ => assert_eq!(extra("pod-name"), Value::Null),
        }
        api.ok(&format!("DELETE {path}"), json!(null)).await;
        assert_eq!(bearer(&test, address, &token).await, Err(401), "{kind}");
        let answer = api.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}}));
        let why = "[invalid bearer token, service account token has been invalidated]";
        assert_eq!(answer.await["status"], json!({"user": {}, "error": why}));
        review["spec"]["boundObjectRef"]["uid"] = "u".into();
        assert_eq!(api.call(&create, review).await.0, 404, "{kind}");
    }
}

#[tokio::test]
async fn requests_for_tokens_are_checked_and_bounded() {
    let keys = Keys::new();
    let test = server(&keys).await;
    let api = test.admin();
    claims(&test).await;
    let create = format!("POST {ACCOUNTS}/robot/token");
    api.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    let bound = |bound: Value| json!({"spec": {"boundObjectRef": bound}});
    for (body, code, message) in [
        (
            json!({"metadata": {"name": "other"}, "spec": {}}),
            422,
            "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: Invalid value: \"other\": must match the \
             service account name if specified",
        ),
        (
            json!({"spec": {"expirationSeconds": 599}}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a \
             duration less than 10 minutes",
        ),
        (
            bound(json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "c"})),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (bound(json!({"kind": "Secret", "apiVersion": "v1", "name": "none"})), 404, "secrets \"none\" not found"),
        (
            bound(json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "u"})),
            409,
            "Operation cannot be fulfilled on Secret \"s\": the UID in the bound object reference (u) does not match the UID in \
             record. The object might have been deleted and then recreated",
        ),
    ] {
        let (got, status) = api.call(&create, body).await;
        assert_eq!((got, status["message"].as_str().unwrap()), (code, message));
    }
    let (code, text, warnings) = api.raw(&create, json!({"spec": {"expirationSeconds": 9000}}).to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(warnings, ["299 - \"requested expiration of 9000 seconds shortened to 7200 seconds\""]);
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made["spec"]["expirationSeconds"], 7200);
    let claims = made["status"]["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
}

#[tokio::test]
async fn a_secret_of_a_service_account_holds_a_token_without_end() {
    let keys = Keys::new();
    let test = server(&keys).await;
    let (address, api) = (test.listen(), test.admin());
    let good = claims(&test).await;
    let of = |name: &str, id: &str| {
        sign(
            &keys.now,
            &json!({
                "iss": "kubernetes/serviceaccount", "jti": id, "sub": "system:serviceaccount:default:robot",
                "kubernetes.io/serviceaccount/namespace": "default",
                "kubernetes.io/serviceaccount/secret.name": name,
                "kubernetes.io/serviceaccount/service-account.name": "robot",
                "kubernetes.io/serviceaccount/service-account.uid": good["kubernetes.io"]["serviceaccount"]["uid"],
            }),
        )
    };
    let token = of("legacy", "1");
    assert_eq!(bearer(&test, address, &token).await, Err(401), "there is no Secret");
    let secret = json!({
        "metadata": {"name": "legacy", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": BASE64_STANDARD.encode(&token)},
    });
    api.ok("POST /api/v1/namespaces/default/secrets", secret).await;
    let user = bearer(&test, address, &token).await.unwrap();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(bearer(&test, address, &of("legacy", "2")).await, Err(401), "another token than the Secret's");
    let label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}});
        api.ok("PATCH+merge /api/v1/namespaces/default/secrets/legacy", patch).await;
    };
    label(json!("2026-01-01")).await;
    assert_eq!(bearer(&test, address, &token).await, Err(401), "marked as no longer good");
    label(json!(null)).await;
    bearer(&test, address, &token).await.unwrap();
    api.ok("DELETE /api/v1/namespaces/default/secrets/legacy", json!(null)).await;
    assert_eq!(bearer(&test, address, &token).await, Err(401));
}

#[tokio::test]
async fn the_keys_of_tokens_are_public_to_those_who_may_ask() {
    let keys = Keys::new();
    let test = server(&keys).await;
    let address = test.listen();
    let token = sign(&keys.now, &claims(&test).await);
    let header = format!("Bearer {token}");
    let get = async |path: &str, headers: &[(&str, &str)]| {
        send(&test.pki, address, None, &format!("GET {path}"), headers, json!(null)).await
    };
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert_eq!(get(path, &[]).await.0, 403, "{path}");
    }
    // Service accounts have the role system:service-account-issuer-discovery.
    let (code, discovery) = get("/.well-known/openid-configuration", &[("authorization", &header)]).await;
    assert_eq!((code, &discovery["issuer"]), (200, &json!(ISSUER)));
    let (code, jwks) = get("/openid/v1/jwks", &[("authorization", &header)]).await;
    assert_eq!((code, jwks["keys"].as_array().unwrap().len()), (200, 2));
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
    validation.set_audience(&[ISSUER]);
    let verifies = |jwk| {
        let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
        jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok()
    };
    assert_eq!(set.keys.iter().filter(|jwk| verifies(jwk)).count(), 1);
}

#[tokio::test]
async fn static_tokens_and_bootstrap_tokens_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.csv");
    std::fs::write(&file, "s3cret,jane,u-1,\"dev,ops\"\n").unwrap();
    let test = TestServer::start_with(|config| {
        config.authentication.token_file = Some(file);
        config.authentication.bootstrap_tokens = true;
    })
    .await;
    let (address, api) = (test.listen(), test.admin());
    let user = bearer(&test, address, "s3cret").await.unwrap();
    assert_eq!(user, json!({"username": "jane", "uid": "u-1", "groups": ["dev", "ops", "system:authenticated"]}));
    assert_eq!(bearer(&test, address, "s3crets").await, Err(401));

    let token = "abcdef.0123456789abcdef";
    assert_eq!(bearer(&test, address, token).await, Err(401));
    let data = json!({
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "expiration": "2999-01-01T00:00:00Z", "auth-extra-groups": "system:bootstrappers:workers,system:bootstrappers:a",
    });
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token", "stringData": data,
    });
    let path = "/api/v1/namespaces/kube-system/secrets";
    api.ok(&format!("POST {path}"), secret).await;
    let user = bearer(&test, address, token).await.unwrap();
    let groups =
        ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:workers", "system:authenticated"];
    assert_eq!(user, json!({"username": "system:bootstrap:abcdef", "groups": groups}));
    assert_eq!(bearer(&test, address, "abcdef.0123456789abcdee").await, Err(401));
    for (key, value) in [
        ("expiration", "2001-01-01T00:00:00Z"),
        ("expiration", "tomorrow"),
        ("usage-bootstrap-authentication", "false"),
        ("auth-extra-groups", "system:masters"),
        ("token-id", "abcdeg"),
    ] {
        let patch = |value: &Value| json!({"stringData": {key: value}});
        api.ok(&format!("PATCH+merge {path}/bootstrap-token-abcdef"), patch(&json!(value))).await;
        assert_eq!(bearer(&test, address, token).await, Err(401), "{key}: {value}");
        api.ok(&format!("PATCH+merge {path}/bootstrap-token-abcdef"), patch(&data[key])).await;
        bearer(&test, address, token).await.unwrap();
    }
    // Reviewed as it would be in a request.
    let review = |token: &str, audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let reviews = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    let own = "https://kubernetes.default.svc.cluster.local";
    let status = api.ok(reviews, review("s3cret", json!([own, "x"]))).await["status"].clone();
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([own])));
    let status = api.ok(reviews, review("s3cret", json!(["x"]))).await["status"].clone();
    assert_eq!(status, json!({"user": {}, "error": "invalid bearer token"}));
}

#[tokio::test]
async fn anonymous_requests_go_where_they_may() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authentication.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                anonymous: {enabled: true, conditions: [{path: /livez}]}\n";
    std::fs::write(&file, text).unwrap();
    let some = TestServer::start_with(|config| config.authentication.config_file = Some(file)).await;
    let none = TestServer::start_with(|config| config.authentication.anonymous = Some(false)).await;
    for (test, path, expected) in
        [(&some, "/livez", 200), (&some, "/readyz", 401), (&some, "/livez/ping", 401), (&none, "/livez", 401)]
    {
        let address = test.listen();
        let (code, _) = send(&test.pki, address, None, &format!("GET {path}"), &[], json!(null)).await;
        assert_eq!(code, expected, "{path}");
    }
    let address = some.listen();
    whoami(&some, address, Some(some.pki.issue("bob", &[])), &[]).await.unwrap();
}
