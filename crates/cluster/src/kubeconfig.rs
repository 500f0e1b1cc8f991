//! Kubeconfig files: small ones for components, and the user's, in which a cluster's context is put and taken away while
//! everything else in it stays.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::layout::write_private;
use crate::pki::KeyCert;
use crate::{Context as _, Error, Result};

/// How to reach a cluster, and as whom.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// `https://127.0.0.1:6443`
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub client: &'a KeyCert,
}

/// A whole kubeconfig with one context, as YAML (JSON is YAML).
pub fn render(name: &str, access: &Access<'_>) -> Result<String> {
    to_yaml(&put(Value::Null, name, access)?)
}

/// Puts a context `name` (with a cluster and a user of the same name) into `config` and makes it the current one.
/// Everything else is left alone.
pub fn put(config: Value, name: &str, access: &Access<'_>) -> Result<Value> {
    let base64 = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let mut config = match config {
        Value::Null => json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}),
        Value::Object(map) => Value::Object(map),
        _ => return Err(not_a_config("it is not a mapping")),
    };
    // The server is on this machine: compressing and expanding what it says would only cost time.
    let cluster = json!({
        "server": access.server,
        "certificate-authority-data": base64(access.ca_pem),
        "disable-compression": true,
    });
    let user = json!({
        "client-certificate-data": base64(&access.client.certificate),
        "client-key-data": base64(&access.client.key),
    });
    let context = json!({"cluster": name, "user": name});
    for (list, kind, value) in
        [("clusters", "cluster", cluster), ("users", "user", user), ("contexts", "context", context)]
    {
        let entries = entries(&mut config, list)?;
        entries.retain(|entry| entry["name"] != name);
        entries.push(json!({"name": name, kind: value}));
    }
    config["current-context"] = name.into();
    Ok(config)
}

/// Takes the context `name`, its cluster and its user out of `config`.
pub fn take(mut config: Value, name: &str) -> Result<Value> {
    for list in ["clusters", "users", "contexts"] {
        entries(&mut config, list)?.retain(|entry| entry["name"] != name);
    }
    if config["current-context"] == name {
        config["current-context"] = "".into();
    }
    Ok(config)
}

fn entries<'a>(config: &'a mut Value, list: &str) -> Result<&'a mut Vec<Value>> {
    let map = config.as_object_mut().ok_or_else(|| not_a_config("it is not a mapping"))?;
    let value = map.entry(list).or_insert_with(|| json!([]));
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| not_a_config(&format!("{list} is not a list")))
}

fn not_a_config(why: &str) -> Error {
    Error::BadFile { path: "kubeconfig".into(), why: why.into() }
}

/// Changes the kubeconfig at `path` with `change`, in one step, under the lock file that kubectl uses too.
pub fn update(path: &Path, change: impl FnOnce(Value) -> Result<Value>) -> Result<()> {
    if let Some(dir) = path.parent() {
        crate::layout::make_dir(dir)?;
    }
    let lock = path.with_file_name(format!("{}.lock", path.file_name().unwrap_or_default().to_string_lossy()));
    let locked = std::fs::OpenOptions::new().create_new(true).write(true).open(&lock);
    locked.context(|| format!("locking {} (remove {} if nobody uses it)", path.display(), lock.display()))?;
    let result = read(path).and_then(change).and_then(|config| write_private(path, to_yaml(&config)?.as_bytes()));
    let _ = std::fs::remove_file(&lock);
    result
}

/// Reads a kubeconfig; `Null` when there is no file or nothing in it.
fn read(path: &Path) -> Result<Value> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(Value::Null),
        Ok(text) => serde_saphyr::from_str(&text)
            .map_err(|e| Error::BadFile { path: path.display().to_string(), why: e.to_string() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(e).context(|| format!("reading {}", path.display())),
    }
}

fn to_yaml(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).map_err(|e| not_a_config(&e.to_string()))
}

/// Where kubectl would write: the first file of `$KUBECONFIG`, else `~/.kube/config`.
pub fn default_path(kubeconfig_env: Option<&str>, home: Option<&Path>) -> Option<PathBuf> {
    let first = kubeconfig_env.and_then(|list| list.split(':').find(|p| !p.is_empty()));
    first.map(PathBuf::from).or_else(|| home.map(|h| h.join(".kube/config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(pair: &KeyCert) -> Access<'_> {
        Access { server: "https://127.0.0.1:1", ca_pem: "CA", client: pair }
    }

    #[test]
    fn a_context_comes_and_goes_and_others_stay() {
        let pair = KeyCert { certificate: "C".into(), key: "K".into() };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: mine\nclusters:\n- name: mine\n  cluster: {server: \"https://x\"}\nusers: []\ncontexts:\n- name: mine\n  context: {cluster: mine, user: me, namespace: prod}\n";
        std::fs::write(&path, theirs).unwrap();
        for _ in 0..2 {
            update(&path, |c| put(c, "keelson-a", &access(&pair))).unwrap();
        }
        let config = read(&path).unwrap();
        assert_eq!(config["current-context"], "keelson-a");
        assert_eq!(config["contexts"].as_array().unwrap().len(), 2, "putting twice is putting once");
        assert_eq!(config["contexts"][0]["context"]["namespace"], "prod");
        assert_eq!(config["users"][0]["user"]["client-key-data"], "Sw==");

        update(&path, |c| take(c, "keelson-a")).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["contexts"].as_array().unwrap().len(), 1);
        assert_eq!(config["current-context"], "");
        assert!(!dir.path().join("config.lock").exists());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let pair = KeyCert { certificate: "C".into(), key: "K".into() };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for bad in ["[1]", "clusters: 3", "a: [", "x: &a [1]\ny: *a\nclusters: {}"] {
            std::fs::write(&path, bad).unwrap();
            update(&path, |c| put(c, "k", &access(&pair))).unwrap_err();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn paths() {
        let home = Some(Path::new("/h"));
        for (env, expected) in [(None, "/h/.kube/config"), (Some(""), "/h/.kube/config"), (Some(":/a:/b"), "/a")] {
            assert_eq!(default_path(env, home).unwrap(), Path::new(expected));
        }
        assert_eq!(default_path(None, None), None);
    }
}
