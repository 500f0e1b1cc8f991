//! Headers that say who a request is from: believed from the front proxy, and from nobody else.

use keelson_apiserver::{Pem, RequestHeader};
use serde_json::{Value, json};

use super::wire::{send, whoami};
use crate::support::{Pki, TestServer};

const HEADERS: [(&str, &str); 6] = [
    ("X-Remote-User", "jane"),
    ("X-Remote-Uid", "u-1"),
    ("X-Remote-Group", "dev"),
    ("X-Remote-Group", "ops"),
    ("X-Remote-Extra-Example.Com%2fScopes", "read"),
    ("X-Remote-Extra-Example.Com%2fScopes", "write"),
];

async fn server(proxies: &Pki) -> TestServer {
    let headers =
        RequestHeader::usual(Pem::Inline(proxies.ca_pem.clone().into_bytes()), vec!["front-proxy-client".into()]);
    TestServer::start_with(|config| config.authentication.request_header = Some(headers)).await
}

#[tokio::test]
async fn the_front_proxy_speaks_for_others() {
    let proxies = Pki::new();
    let test = server(&proxies).await;
    let address = test.listen();
    let proxy = || Some(proxies.issue("front-proxy-client", &[]));
    let user = whoami(&test, address, proxy(), &HEADERS).await.unwrap();
    assert_eq!(
        user,
        json!({
            "username": "jane", "uid": "u-1", "groups": ["dev", "ops", "system:authenticated"],
            "extra": {"example.com/scopes": ["read", "write"]},
        })
    );
    // Without a name in the headers it is a stranger's certificate like any other.
    assert_eq!(whoami(&test, address, proxy(), &[("X-Remote-Group", "system:masters")]).await, Err(401));
}

#[tokio::test]
async fn front_proxy_headers_from_anyone_but_the_front_proxy_say_nothing() {
    let proxies = Pki::new();
    let test = server(&proxies).await;
    let address = test.listen();
    let forged = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    // Nobody; somebody with a certificate of the cluster; one whose name is that of the proxy, but not its authority.
    let (code, _) = send(&test.pki, address, None, "GET /api/v1/secrets", &forged, json!(null)).await;
    assert_eq!(code, 403);
    let user = whoami(&test, address, Some(test.pki.issue("bob", &["dev"])), &forged).await.unwrap();
    assert_eq!((&user["username"], &user["groups"]), (&json!("bob"), &json!(["dev", "system:authenticated"])));
    let user = whoami(&test, address, Some(test.pki.issue("front-proxy-client", &[])), &forged).await.unwrap();
    assert_eq!(user["username"], "front-proxy-client");
    // The right authority, another name.
    assert_eq!(whoami(&test, address, Some(proxies.issue("another", &[])), &forged).await, Err(401));
}

#[tokio::test]
async fn other_servers_are_told_by_what_to_know_clients() {
    let proxies = Pki::new();
    let test = server(&proxies).await;
    let map = "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = test.admin().ok(map, Value::Null).await["data"].clone();
    let text = |pem: &str| pem.replace("\r\n", "\n");
    assert_eq!(
        data,
        json!({
            "client-ca-file": text(&test.pki.ca_pem), "requestheader-client-ca-file": text(&proxies.ca_pem),
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        })
    );
    // Deleted, it comes back.
    test.admin().ok(&map.replace("GET", "DELETE"), Value::Null).await;
    let back = test.admin().eventually(map, |code, _| code == 200).await;
    assert_eq!(back["data"], data);
}
