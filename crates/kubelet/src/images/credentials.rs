//! Credentials in pull secrets: which fit an image, and by what they are known again without being kept.

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use keelson_cri::v1 as cri;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::records::PullSecret;

/// Credentials and the secret they are from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Credential {
    pub auth: cri::AuthConfig,
    pub secret: PullSecret,
}

/// Credentials in a dockerconfigjson or dockercfg secret that fit the image's registry, the most specific first.
pub(super) fn matching(secret: &Secret, image: &str) -> Vec<Credential> {
    let data = secret.data.as_ref();
    let read = |key: &str| data?.get(key).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes.0).ok());
    let auths = read(".dockerconfigjson").and_then(|json| json.get("auths").cloned()).or_else(|| read(".dockercfg"));
    let Some(serde_json::Value::Object(auths)) = auths else { return Vec::new() };
    let target = normalized(image);
    let mut found: Vec<(usize, cri::AuthConfig)> = auths
        .iter()
        .filter_map(|(registry, entry)| {
            let specific = registry_matches(registry, &target)?;
            Some((specific, auth(registry, entry)?))
        })
        .collect();
    found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    let of = |auth: cri::AuthConfig| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &secret.metadata;
        let secret = PullSecret {
            uid: text(&metadata.uid),
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            credential_hash: hash(&auth),
        };
        Credential { auth, secret }
    };
    found.into_iter().map(|(_, auth)| of(auth)).collect()
}

/// The image's repository with everything that is short for something written out: no tag, no digest. It is what upstream's
/// records are kept by.
pub(super) fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let path_at = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name.get(path_at..).and_then(|last| last.find(':')).map_or(name.len(), |colon| path_at + colon);
    let full = normalized(name.get(..end).unwrap_or(name));
    match full.strip_prefix("docker.io/") {
        Some(path) if !path.contains('/') => format!("docker.io/library/{path}"),
        _ => full,
    }
}

/// `host/path` with Docker Hub's short forms written out.
pub(super) fn normalized(image: &str) -> String {
    match image.split_once('/') {
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_string(),
        _ => format!("docker.io/{image}"),
    }
}

/// How specific an entry for `registry` is for `image`, when it fits.
fn registry_matches(registry: &str, image: &str) -> Option<usize> {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let (image_host, image_path) = image.split_once('/').unwrap_or((image, ""));
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let hosts_fit = host.split('.').count() == image_host.split('.').count()
        && host.split('.').zip(image_host.split('.')).all(|(pattern, part)| match pattern.split_once('*') {
            Some((start, end)) => {
                part.len() >= start.len() + end.len() && part.starts_with(start) && part.ends_with(end)
            }
            None => pattern == part,
        });
    (hosts_fit && image_path.starts_with(path)).then_some(bare.len())
}

fn auth(registry: &str, entry: &serde_json::Value) -> Option<cri::AuthConfig> {
    let text = |key: &str| entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_string();
    let mut auth = cri::AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        server_address: registry.to_string(),
        ..Default::default()
    };
    if auth.username.is_empty() && !text("auth").is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth").trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        auth.username = username.into();
        auth.password = password.trim_end_matches(['\0', '\n']).into();
    }
    Some(auth)
}

/// By which credentials are known again: upstream's hash, of what Go's encoder makes of them.
fn hash(auth: &cri::AuthConfig) -> String {
    // Keys in the order of Go's structure; empty ones are left out.
    let fields = [
        ("username", &auth.username),
        ("password", &auth.password),
        ("auth", &auth.auth),
        ("serveraddress", &auth.server_address),
        ("identitytoken", &auth.identity_token),
        ("registrytoken", &auth.registry_token),
    ];
    let fields: Vec<String> = fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{}:{}", json!(name), json!(value)))
        .collect();
    let digest = Sha256::digest(format!("{{{}}}", fields.join(",")));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_fit() {
        for (registry, image, fits) in [
            ("https://index.docker.io/v1/", "nginx:1", true),
            ("registry.example", "registry.example/a:1", true),
            ("registry.example:5000", "registry.example/a:1", false),
            ("registry.example/team", "registry.example/team/a:1", true),
            ("registry.example/team", "registry.example/other/a:1", false),
            ("*.example", "registry.example/a", true),
            ("*.example", "deep.registry.example/a", false),
        ] {
            assert_eq!(registry_matches(registry, &normalized(image)).is_some(), fits, "{registry} {image}");
        }
        let secret: Secret = serde_json::from_value(serde_json::json!({"data": {".dockerconfigjson":
            base64::engine::general_purpose::STANDARD.encode(
                r#"{"auths":{"r.example":{"auth":"dTpwOng="},"r.example/a":{"username":"v","password":"w"}}}"#)}}))
        .unwrap();
        let found: Vec<_> =
            matching(&secret, "r.example/a/b:1").into_iter().map(|c| (c.auth.username, c.auth.password)).collect();
        assert_eq!(found, [("v".into(), "w".into()), ("u".to_string(), "p:x".to_string())]);
    }

    #[test]
    fn repositories() {
        for (image, expected) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1", "docker.io/library/nginx"),
            ("team/app:1", "docker.io/team/app"),
            ("index.docker.io/team/app", "docker.io/team/app"),
            ("localhost/app:1", "localhost/app"),
            ("host.example:5000/a/b:v1@sha256:00", "host.example:5000/a/b"),
            ("host.example:5000/a", "host.example:5000/a"),
        ] {
            assert_eq!(repository(image), expected, "{image}");
        }
    }

    #[test]
    fn other_credentials_have_another_hash() {
        let auth = |password: &str| cri::AuthConfig {
            username: "u".into(),
            password: password.into(),
            server_address: "r".into(),
            ..Default::default()
        };
        assert_eq!(hash(&auth("p")), hash(&auth("p")));
        assert_ne!(hash(&auth("p")), hash(&auth("q")));
        assert_eq!(hash(&auth("p")).len(), 64);
    }
}
