//! Client certificates, good and bad. A bad one is answered with 401 on a connection that stands.

use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;

use super::wire::{WHO_REQUEST, exchange, send, whoami};
use crate::support::{Pki, TestServer, tls_connect};
use hyper_util::rt::TokioIo;
use keelson_apiserver::Pem;

fn params(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params
}

#[tokio::test]
async fn a_certificate_names_its_user() {
    let test = TestServer::start().await;
    let address = test.listen();
    let mut jane = params("jane", &["dev"]);
    jane.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    jane.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "u-1");
    let user = whoami(&test, address, Some(test.pki.sign(jane)), &[]).await.unwrap();
    assert_eq!((&user["username"], &user["uid"]), (&json!("jane"), &json!("u-1")));
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().to_owned();
    assert!(credential.starts_with("X509SHA256=") && credential.len() == 11 + 64, "{credential}");
    // Without a name it is nobody's, and nobody is anonymous, who may not review itself.
    assert_eq!(whoami(&test, address, Some(test.pki.sign(params("", &[]))), &[]).await, Err(403));
}

#[tokio::test]
async fn a_bad_certificate_is_unauthorized() {
    let test = TestServer::start().await;
    let address = test.listen();
    let masters = ["system:masters"];
    let mut expired = params("admin", &masters);
    expired.not_before = rcgen::date_time_ymd(2000, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let mut future = params("admin", &masters);
    future.not_before = rcgen::date_time_ymd(3000, 1, 1);
    future.not_after = rcgen::date_time_ymd(3001, 1, 1);
    let mut serving = params("admin", &masters);
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut two_uids = params("admin", &masters);
    two_uids.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57683, 3], vec![5, 0]));
    two_uids.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "");
    // Forged: it says what it likes, but nobody who is trusted has signed that.
    let key = KeyPair::generate().unwrap();
    let own = (params("admin", &masters).self_signed(&key).unwrap().pem(), key.serialize_pem());
    let stranger = Pki::new().sign(params("admin", &masters));
    for (what, identity) in [
        ("expired", test.pki.sign(expired)),
        ("not yet valid", test.pki.sign(future)),
        ("for servers", test.pki.sign(serving)),
        ("an empty UID", test.pki.sign(two_uids)),
        ("self-signed", own),
        ("another authority's", stranger),
    ] {
        let (code, status) = send(&test.pki, address, Some(identity), "GET /api", &[], json!(null)).await;
        assert_eq!((code, &status["reason"]), (401, &json!("Unauthorized")), "{what}: {status}");
    }
}

#[tokio::test]
async fn new_authorities_are_taken_up_and_old_ones_given_up() {
    let (old, new) = (Pki::new(), Pki::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, &old.ca_pem).unwrap();
    let test = TestServer::start_with(|config| config.client_ca = Some(Pem::File(file.clone()))).await;
    let address = test.listen();
    let sign = |pki: &Pki| pki.sign(params("admin", &["system:masters"]));
    let stream = tls_connect(&test.pki, address, Some(sign(&old)), b"http/1.1").await;
    let (mut kept, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    assert_eq!(exchange(&mut kept, WHO_REQUEST, &[], json!({})).await.0, 201);
    assert_eq!(whoami(&test, address, Some(sign(&new)), &[]).await, Err(401));

    // What makes no sense changes nothing.
    std::fs::write(&file, "no certificate").unwrap();
    let next = dir.path().join("next");
    std::fs::write(&next, &new.ca_pem).unwrap();
    assert_eq!(exchange(&mut kept, WHO_REQUEST, &[], json!({})).await.0, 201);
    std::fs::rename(&next, &file).unwrap();
    let map = "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let text = |pem: &str| pem.replace("\r\n", "\n");
    let shows_new = |_: u16, map: &serde_json::Value| {
        map["data"]["client-ca-file"].as_str().is_some_and(|shown| shown.contains(&text(&new.ca_pem)))
    };
    let both = test.admin().eventually(map, shows_new).await;
    assert!(both["data"]["client-ca-file"].as_str().unwrap().contains(&text(&old.ca_pem)));
    whoami(&test, address, Some(sign(&new)), &[]).await.unwrap();
    assert_eq!(exchange(&mut kept, WHO_REQUEST, &[], json!({})).await.0, 401, "also on an old connection");
    drop(kept);
    let _ = task.await;
}
