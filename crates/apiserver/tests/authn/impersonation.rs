//! Acting as somebody else.

use http_body_util::BodyExt;
use keelson_apiserver::UserInfo;
use serde_json::{Value, json};

use super::wire::WHO_REQUEST;
use crate::support::{Api, TestServer};

async fn who(api: &Api, headers: &[(&str, &str)]) -> (u16, Value) {
    let response = api.send_with(WHO_REQUEST, "{}", headers).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    (code, if code == 201 { answer["status"]["userInfo"].clone() } else { answer["message"].clone() })
}

/// Boss, who may act as jane, as `default/robot`, in the group dev, with a UID and with a scope.
async fn boss(test: &TestServer) -> Api {
    let api = test.admin();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let verbs = ["impersonate"];
    let rule = |group: &str, resource: &str, name: &str| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource], "resourceNames": [name]});
    let own = "authentication.k8s.io";
    let rules = json!([
        rule("", "users", "jane"),
        rule("", "users", "system:anonymous"),
        rule("", "groups", "dev"),
        rule("", "groups", "system:authenticated"),
        rule("", "serviceaccounts", "robot"),
        rule(own, "uids", "u-1"),
        rule(own, "userextras/example.com/scopes", "read"),
    ]);
    api.ok(&format!("POST {rbac}/clusterroles"), json!({"metadata": {"name": "boss"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "boss"}, "subjects": [{"kind": "User", "name": "boss"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "boss"},
    });
    api.ok(&format!("POST {rbac}/clusterrolebindings"), binding).await;
    test.api(UserInfo::new("boss", Vec::<String>::new()))
}

const JANE: (&str, &str) = ("Impersonate-User", "jane");

#[tokio::test]
async fn one_acts_as_whom_one_may() {
    let test = TestServer::start().await;
    let boss = boss(&test).await;
    let (_, user) = who(
        &boss,
        &[
            JANE,
            ("Impersonate-Group", "dev"),
            ("Impersonate-Uid", "u-1"),
            ("Impersonate-Extra-Example.com%2FScopes", "read"),
        ],
    )
    .await;
    let expected = json!({
        "username": "jane", "uid": "u-1", "groups": ["dev", "system:authenticated"],
        "extra": {"example.com/scopes": ["read"]},
    });
    assert_eq!(user, expected);
    let (_, user) = who(&boss, &[("Impersonate-User", "system:serviceaccount:default:robot")]).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user, json!({"username": "system:serviceaccount:default:robot", "groups": groups}));
    // Nobody is not authenticated, whatever a group says. He may not ask who he is.
    let nobody = [("Impersonate-User", "system:anonymous"), ("Impersonate-Group", "system:authenticated")];
    assert_eq!(who(&boss, &nobody[..1]).await.0, 403);
    let (_, user) = who(&boss, &nobody).await;
    assert_eq!(user["groups"], json!(["system:authenticated", "system:unauthenticated"]));
}

#[tokio::test]
async fn one_acts_as_nobody_else() {
    let test = TestServer::start().await;
    let boss = boss(&test).await;
    let denied = |what: &str| format!("{what} is forbidden: User \"boss\" cannot impersonate resource ");
    for (headers, message) in [
        (vec![("Impersonate-User", "admin")], denied("users \"admin\"")),
        (vec![JANE, ("Impersonate-Group", "system:masters")], denied("groups \"system:masters\"")),
        (vec![JANE, ("Impersonate-Uid", "u-2")], denied("uids.authentication.k8s.io \"u-2\"")),
        (
            vec![JANE, ("Impersonate-Extra-Example.com%2FScopes", "write")],
            denied("userextras.authentication.k8s.io \"write\""),
        ),
        (vec![("Impersonate-User", "system:serviceaccount:default:other")], denied("serviceaccounts \"other\"")),
        // No account has such a name, so this is a plain user's.
        (
            vec![("Impersonate-User", "system:serviceaccount:default:robot:x")],
            denied("users \"system:serviceaccount:default:robot:x\""),
        ),
    ] {
        let (code, got) = who(&boss, &headers).await;
        assert_eq!(code, 403, "{headers:?}: {got}");
        assert!(got.as_str().unwrap().starts_with(&message), "{headers:?}: {got}");
    }
    let (code, got) = who(&boss, &[("Impersonate-Group", "dev")]).await;
    let why = "requested [{Group  dev    }] without impersonating a user";
    assert_eq!((code, got.as_str().unwrap().ends_with(why)), (500, true), "{got}");
}
