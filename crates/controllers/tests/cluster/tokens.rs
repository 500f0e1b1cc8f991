//! Tokens in Secrets: of service accounts, and for bootstrapping.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use keelson_controllers::{Config, Hidden};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{Cluster, config, from, gone, until};

fn account(name: &str) -> ServiceAccount {
    from(json!({"metadata": {"name": name}}))
}

fn secret(name: &str, account: &str) -> Secret {
    from(json!({
        "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token",
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_service_accounts_are_filled_and_go_with_them() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cluster = Cluster::start(Config { service_account_private_key_pem: Hidden(key), ..config() }).await;
    let (accounts, secrets) = (cluster.api::<ServiceAccount>("default"), cluster.api::<Secret>("default"));
    let robot = accounts.create(&PostParams::default(), &account("robot")).await.unwrap();
    secrets.create(&PostParams::default(), &secret("token", "robot")).await.unwrap();
    let has_token =
        |secret: &Secret| secret.data.as_ref().is_some_and(|data| data.get("token").is_some_and(|t| !t.0.is_empty()));
    let filled = until(&secrets, "token", "filled", has_token).await;
    let data = filled.data.unwrap();
    assert_eq!((data["namespace"].0.as_slice(), data["ca.crt"].0.starts_with(b"-----BEGIN")), (&b"default"[..], true));
    assert_eq!(filled.metadata.annotations.unwrap()["kubernetes.io/service-account.uid"], robot.metadata.uid.unwrap());
    let token = String::from_utf8(data["token"].0.clone()).unwrap();
    assert_eq!(token.split('.').count(), 3);

    // What is taken out comes back, and another account of the same name does not get it.
    let mut emptied = secrets.get("token").await.unwrap();
    emptied.data.as_mut().unwrap().remove("token");
    secrets.replace("token", &PostParams::default(), &emptied).await.unwrap();
    until(&secrets, "token", "filled again", has_token).await;
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    gone(&secrets, "token").await;
    secrets.create(&PostParams::default(), &secret("lost", "nobody")).await.unwrap();
    gone(&secrets, "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_tokens_sign_the_clusters_address_until_their_time_is_over() {
    let cluster = Cluster::start(config()).await;
    let (secrets, maps) = (cluster.api::<Secret>("kube-system"), cluster.api::<ConfigMap>("kube-public"));
    let token = |id: &str, expiration: String| -> Secret {
        from(json!({
            "metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true",
                "expiration": expiration,
            },
        }))
    };
    let map: ConfigMap = from(json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "content"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let soon = (jiff::Timestamp::now() + std::time::Duration::from_secs(4)).to_string();
    secrets.create(&PostParams::default(), &token("short1", soon)).await.unwrap();
    secrets.create(&PostParams::default(), &token("long12", "2999-01-01T00:00:00Z".into())).await.unwrap();
    let signed_by = |map: &ConfigMap, id: &str| {
        map.data.as_ref().is_some_and(|data| data.contains_key(&format!("jws-kubeconfig-{id}")))
    };
    until(&maps, "cluster-info", "signed", |map| signed_by(map, "short1") && signed_by(map, "long12")).await;
    gone(&secrets, "bootstrap-token-short1").await;
    until(&maps, "cluster-info", "signed by one", |map| !signed_by(map, "short1") && signed_by(map, "long12")).await;
    secrets.get("bootstrap-token-long12").await.unwrap();
}
