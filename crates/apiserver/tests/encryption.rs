//! Encryption at rest through the API: nothing shows in the store's files, keys are rotated, what cannot be read is named.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use keelson_apiserver::{ApiServer, Config, EncryptionFile, UserInfo};
use keelson_store::etcd::{self, process::Etcd};
use keelson_store::{EtcdStore, LocalStore, Store};
use serde_json::{Value, json};
use support::{Api, TestServer};

const SECRET: &str = "correct-horse-battery-staple";

fn write_config(path: &Path, providers: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, widgets.example.com]\n  providers: {providers}\n"
    );
    std::fs::write(path, text).unwrap();
}

fn provider(name: &str, keys: &[(&str, u8)]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, byte)| {
            let secret = base64::engine::general_purpose::STANDARD.encode([*byte; 32]);
            json!({"name": name, "secret": secret})
        })
        .collect();
    json!({name: {"keys": keys}}).to_string()
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"hush": SECRET}}, "stringData": {"password": SECRET}})
}

/// A server over a store, with that configuration.
async fn server(store: &Arc<LocalStore>, path: &Path) -> Api {
    let file = EncryptionFile { path: path.to_owned(), automatic_reload: true, made: false };
    let config = Config { encryption: Some(file), ..Config::default() };
    let server = ApiServer::new(config, store.clone()).await.unwrap();
    Api::new(server, UserInfo::new("admin", ["system:masters"]))
}

/// The server looks at its file once a minute.
async fn a_minute_passes() {
    // Answers from memory let no other task run: the server's have to begin to wait.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
}

async fn stored(store: &LocalStore, key: &str) -> String {
    let value = store.get(key).await.unwrap().unwrap().value;
    String::from_utf8_lossy(&value).into_owned()
}

/// Whether a file somewhere under `dir` holds the text, also in base64.
fn shows(dir: &Path, text: &str) -> bool {
    let forms = [text.to_owned(), base64::engine::general_purpose::STANDARD.encode(text)];
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return shows(&path, text);
        }
        let bytes = std::fs::read(path).unwrap();
        let content = String::from_utf8_lossy(&bytes);
        forms.iter().any(|form| content.contains(form))
    })
}

/// Writes Secrets in every way, and one ConfigMap that says `plain-text`.
async fn write_secrets(api: &Api) {
    api.ok("POST /api/v1/namespaces/default/secrets", secret("a")).await;
    api.ok("POST /api/v1/namespaces/default/secrets", secret("b")).await;
    let patch = json!({"metadata": {"annotations": {"also": SECRET}}});
    api.ok("PATCH+merge /api/v1/namespaces/default/secrets/a", patch).await;
    let finalizer = json!({"metadata": {"finalizers": ["example.com/stay"]}});
    api.ok("PATCH+merge /api/v1/namespaces/default/secrets/b", finalizer).await;
    api.ok("DELETE /api/v1/namespaces/default/secrets/b", Value::Null).await;
    api.ok(
        "POST /api/v1/namespaces/default/configmaps",
        json!({"metadata": {"name": "c"}, "data": {"k": "plain-text"}}),
    )
    .await;
}

#[tokio::test]
async fn nothing_of_a_secret_shows_in_the_stores_files() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("store"), dir.path().join("encryption.yaml"));
    let file = EncryptionFile::own(path.clone()).unwrap();
    assert!(file.made);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let store = Arc::new(LocalStore::open(&data, Default::default()).unwrap());
    let config = Config { encryption: Some(file), ..Config::default() };
    let api = ApiServer::new(config, store.clone()).await.unwrap();
    let api = Api::new(api, UserInfo::new("admin", ["system:masters"]));
    write_secrets(&api).await;
    assert!(stored(&store, "/registry/secrets/default/a").await.starts_with("k8s:enc:secretbox:v1:key1:"));
    store.snapshot_to(&data.join("backup")).unwrap();
    assert!(shows(&data, "plain-text"), "the search finds what is there");
    assert!(!shows(&data, SECRET));

    // The same file again: it is not made anew, and what is stored is read.
    drop(api);
    let file = EncryptionFile::own(path.clone()).unwrap();
    assert!(!file.made);
    let api = server(&store, &path).await;
    let read = api.ok("GET /api/v1/namespaces/default/secrets/a", Value::Null).await;
    let password = base64::engine::general_purpose::STANDARD.encode(SECRET);
    assert_eq!(
        (&read["data"]["password"], &read["metadata"]["annotations"]["also"]),
        (&password.into(), &SECRET.into())
    );

    // Another file made by a server that was not given the right one is refused, and not left for the next start.
    std::fs::remove_file(&path).unwrap();
    let config = Config { encryption: Some(EncryptionFile::own(path.clone()).unwrap()), ..Config::default() };
    let error = ApiServer::new(config, store.clone()).await.err().unwrap().to_string();
    assert!(error.contains("encrypted with another key"), "{error}");
    assert!(!path.exists());
}

/// Write-ahead log, database and snapshots of a real etcd, while it runs, after compaction, and once it has stopped.
#[tokio::test]
async fn nothing_of_a_secret_shows_in_etcds_files() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut etcd = Etcd::start(dir.path(), &["--snapshot-count=5"]).unwrap();
    let data = dir.path().join("data");
    let store = Arc::new(EtcdStore::connect(etcd::Options::new(vec![etcd.endpoint()])).await.unwrap());
    let keys = tempfile::tempdir().unwrap();
    let file = EncryptionFile::own(keys.path().join("encryption.yaml")).unwrap();
    let config = Config { encryption: Some(file), ..Config::default() };
    let server = ApiServer::new(config, store.clone()).await.unwrap();
    let api = Api::new(server, UserInfo::new("admin", ["system:masters"]));
    write_secrets(&api).await;
    let read = api.ok("GET /api/v1/namespaces/default/secrets/a", Value::Null).await;
    assert_eq!(read["metadata"]["annotations"]["also"], SECRET);
    let value = store.get("/registry/secrets/default/a").await.unwrap().unwrap().value;
    assert!(value.starts_with(b"k8s:enc:secretbox:v1:key1:"));
    assert!(shows(&data, "plain-text"), "the search finds what is there");
    assert!(!shows(&data, SECRET));
    store.compact(store.revision().await.unwrap()).await.unwrap();
    drop(api);
    etcd.stop();
    assert!(shows(&data, "plain-text") && !shows(&data, SECRET));
}

#[tokio::test]
async fn a_rotated_key_reencrypts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("encryption.yaml");
    let store = Arc::new(LocalStore::open(&dir.path().join("store"), Default::default()).unwrap());
    write_config(&path, "[{identity: {}}]");
    let api = server(&store, &path).await;
    api.ok("POST /api/v1/namespaces/default/secrets", secret("a")).await;
    let key = "/registry/secrets/default/a";
    assert!(stored(&store, key).await.starts_with("{\"kind\":\"Secret\""));

    let first = provider("aesgcm", &[("one", 1)]);
    let rotated = provider("aesgcm", &[("two", 2), ("one", 1)]);
    for (providers, prefix) in [
        (format!("[{first}, {{identity: {{}}}}]"), "k8s:enc:aesgcm:v1:one:"),
        (format!("[{rotated}]"), "k8s:enc:aesgcm:v1:two:"),
        (format!("[{}, {rotated}]", provider("aescbc", &[("three", 3)])), "k8s:enc:aescbc:v1:three:"),
        (format!("[{{identity: {{}}}}, {}]", provider("aescbc", &[("three", 3)])), "{\"kind\""),
    ] {
        write_config(&path, &providers);
        a_minute_passes().await;
        let before = api.ok("GET /api/v1/namespaces/default/secrets/a", Value::Null).await;
        let mut after = Value::Null;
        for _ in 0..200 {
            after = api.ok("PUT /api/v1/namespaces/default/secrets/a", before.clone()).await;
            if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let form = stored(&store, key).await;
        assert!(form.starts_with(prefix), "{prefix}: {form}");
        assert_eq!(after["data"], before["data"]);
        let again = api.ok("PUT /api/v1/namespaces/default/secrets/a", after.clone()).await;
        assert_eq!(again, after, "{prefix}: what is not stale is not written");
    }
}

#[tokio::test]
async fn what_cannot_be_decrypted_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("encryption.yaml");
    let store = Arc::new(LocalStore::open(&dir.path().join("store"), Default::default()).unwrap());
    let both = provider("aesgcm", &[("two", 2), ("one", 1)]);
    write_config(&path, &format!("[{}]", provider("aesgcm", &[("one", 1)])));
    server(&store, &path).await.ok("POST /api/v1/namespaces/default/secrets", secret("old")).await;
    write_config(&path, &format!("[{both}]"));
    let api = server(&store, &path).await;
    for name in ["new", "ol"] {
        api.ok("POST /api/v1/namespaces/default/secrets", secret(name)).await;
    }
    api.ok("GET /api/v1/namespaces/default/secrets/old", Value::Null).await;

    write_config(&path, &format!("[{}]", provider("aesgcm", &[("two", 2)])));
    let api = server(&store, &path).await;
    let why = "Internal error occurred: unable to transform key \"/registry/secrets/default/old\": no matching key was \
               found for the provided AES transformer";
    for request in [
        "GET /api/v1/namespaces/default/secrets/old",
        "GET /api/v1/namespaces/default/secrets",
        "GET /api/v1/secrets",
        "GET /api/v1/secrets?limit=1",
        "PUT /api/v1/namespaces/default/secrets/old",
        "DELETE /api/v1/namespaces/default/secrets/old",
    ] {
        let (code, status) = api.call(request, secret("old")).await;
        assert_eq!(
            (code, &status["reason"], &status["message"]),
            (500, &"InternalError".into(), &why.into()),
            "{request}"
        );
    }
    let (code, _) = api.call("POST /api/v1/namespaces/default/secrets", secret("old")).await;
    assert_eq!(code, 409);
    for name in ["new", "ol"] {
        api.ok(&format!("GET /api/v1/namespaces/default/secrets/{name}"), Value::Null).await;
    }
    api.ok("GET /api/v1/namespaces/kube-system/secrets", Value::Null).await;
    api.ok("GET /api/v1/namespaces/default/configmaps", Value::Null).await;

    // With the key back, the running server reads it again.
    write_config(&path, &format!("[{both}]"));
    a_minute_passes().await;
    api.eventually("GET /api/v1/namespaces/default/secrets/old", |code, _| code == 200).await;
    let list = api.ok("GET /api/v1/namespaces/default/secrets", Value::Null).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);

    // Moved to another name in the store, a value is refused.
    let value = store.get("/registry/secrets/default/new").await.unwrap().unwrap().value;
    store.put("/registry/secrets/default/moved", value, keelson_store::Expect::Absent).await.unwrap();
    let moved = api.eventually("GET /api/v1/namespaces/default/secrets/moved", |code, _| code == 500).await;
    let why = "unable to transform key \"/registry/secrets/default/moved\": cipher: message authentication failed";
    assert!(moved["message"].as_str().unwrap().contains(why), "{moved}");
}

#[tokio::test]
async fn custom_resources_are_encrypted_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("encryption.yaml");
    write_config(&path, &format!("[{}]", provider("aesgcm", &[("one", 1)])));
    let file = EncryptionFile { path, automatic_reload: false, made: false };
    let server = TestServer::start_with(|config| config.encryption = Some(file)).await;
    let api = server.admin();
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    });
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": [version],
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        },
    });
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    api.eventually("GET /apis/example.com/v1/widgets", |code, _| code == 200).await;
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"a": SECRET}});
    let made = api.ok("POST /apis/example.com/v1/namespaces/default/widgets", widget).await;
    let value = server.store.get("/registry/example.com/widgets/default/w").await.unwrap().unwrap().value;
    assert!(value.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    let again = api.ok("PUT /apis/example.com/v1/namespaces/default/widgets/w", made.clone()).await;
    assert_eq!(again, made);
}
