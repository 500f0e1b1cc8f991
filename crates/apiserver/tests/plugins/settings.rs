use std::sync::Arc;

use keelson_apiserver::{ApiServer, Config};
use keelson_store::{LocalStore, Options};
use serde_json::json;

use super::{namespace, pod};
use crate::support::TestServer;

#[tokio::test]
async fn plugins_can_be_turned_off() {
    let server =
        TestServer::start_with(|config| config.disable_admission_plugins = vec!["DefaultTolerationSeconds".into()])
            .await;
    let api = server.admin();
    namespace(&api, "team", json!({})).await;
    let made = api.ok("POST /api/v1/namespaces/team/pods", pod("a")).await;
    assert_eq!(made["spec"].get("tolerations"), None);
    assert_eq!(made["spec"]["priority"], 0);
}

#[tokio::test]
async fn what_nobody_knows_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(dir.path(), Options::default()).unwrap());
    let why = async |config: Config| ApiServer::new(config, store.clone()).await.err().unwrap().to_string();
    let unknown = why(Config { enable_admission_plugins: vec!["AlwaysPullImages".into()], ..Config::default() }).await;
    assert!(unknown.starts_with("--enable-admission-plugins: \"AlwaysPullImages\" is unknown"), "{unknown}");
    let both = Config {
        enable_admission_plugins: vec!["Priority".into()],
        disable_admission_plugins: vec!["Priority".into()],
        ..Config::default()
    };
    assert!(why(both).await.contains("Priority in both enable-admission-plugins and disable-admission-plugins"));
    let file = dir.path().join("admission.yaml");
    let text = "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: PodSecurity, configuration: \
                {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: x}}}]}";
    std::fs::write(&file, text).unwrap();
    let wrong = why(Config { admission_control_config_file: Some(file), ..Config::default() }).await;
    assert!(wrong.contains("defaults.enforce: Invalid value: \"x\": must be one of"), "{wrong}");
}
