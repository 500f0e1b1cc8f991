//! Images: whether one must be pulled, with which credentials, and what is said about it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, ObjectReference, Pod, Secret};
use keelson_client::EventRecorder;
use keelson_cri::v1 as cri;
use kube::Api;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::pod::backoff::go_millis;
use crate::pod::view;
use crate::runtime::Runtime;

/// A container that cannot start: what its status and its event say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    pub message: String,
}

impl Problem {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Problem {
        Problem { reason: reason.into(), message: message.into() }
    }
}

/// An image the runtime has.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    /// By which containers are made from it.
    pub reference: String,
    pub uid: Option<i64>,
    pub username: String,
}

/// An image that is asked for.
struct Wanted<'a> {
    image: &'a str,
    policy: Option<&'a str>,
    /// Whom events are about.
    about: ObjectReference,
}

/// Pulls images.
pub(crate) struct Images {
    runtime: Runtime,
    client: kube::Client,
    events: EventRecorder,
    permits: Semaphore,
    /// Told after each pull: the node's image list changed.
    pub changed: Arc<Notify>,
}

impl Images {
    pub(crate) fn new(runtime: Runtime, client: kube::Client, events: EventRecorder, parallel: usize) -> Self {
        Images { runtime, client, events, permits: Semaphore::new(parallel.max(1)), changed: Arc::default() }
    }

    /// Makes sure that the container's image is there, as its pull policy wants.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &cri::PodSandboxConfig,
        cancelled: &CancellationToken,
    ) -> Result<Present, Problem> {
        let wanted = Wanted {
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref(),
            about: crate::pod::events::about_container(pod, &container.name),
        };
        self.ensure_one(pod, &wanted, sandbox, cancelled).await
    }

    /// Makes sure that the image that is a volume of the pod is there, as its pull policy wants.
    pub(crate) async fn ensure_volume(
        &self,
        pod: &Pod,
        volume: &ImageVolumeSource,
        sandbox: &cri::PodSandboxConfig,
        cancelled: &CancellationToken,
    ) -> Result<Present, Problem> {
        let wanted = Wanted {
            image: volume.reference.as_deref().unwrap_or_default(),
            policy: volume.pull_policy.as_deref(),
            about: keelson_client::reference(pod),
        };
        self.ensure_one(pod, &wanted, sandbox, cancelled).await
    }

    async fn ensure_one(
        &self,
        pod: &Pod,
        wanted: &Wanted<'_>,
        sandbox: &cri::PodSandboxConfig,
        cancelled: &CancellationToken,
    ) -> Result<Present, Problem> {
        let Wanted { image, policy, about } = wanted;
        let image = *image;
        let Some(full) = with_tag(image) else {
            let why = why_invalid(image);
            let message =
                format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {why}");
            self.events.warning(about, "InspectFailed", message.clone());
            return Err(Problem::new("InvalidImageName", message));
        };
        let found = self.runtime.image_status(&full).await.map_err(|error| {
            let message = format!("Failed to inspect image {image:?}: {error}");
            self.events.warning(about, "InspectFailed", message.clone());
            Problem::new("ImageInspectError", message)
        })?;
        let policy = policy.unwrap_or(default_policy(&full));
        match (policy, found) {
            ("Always", _) | ("IfNotPresent", None) => {}
            (_, Some(found)) => {
                self.events.normal(
                    about,
                    "Pulled",
                    format!("Container image {image:?} already present on machine and can be accessed by the pod"),
                );
                return Ok(present(found));
            }
            (_, None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.events.warning(about, "ErrImageNeverPull", message.clone());
                return Err(Problem::new("ErrImageNeverPull", message));
            }
        }
        let waited = tokio::time::Instant::now();
        self.events.normal(about, "Pulling", format!("Pulling image {image:?}"));
        let cancelled_problem = || Problem::new("ErrImagePull", "context canceled");
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit.map_err(|_| cancelled_problem())?,
            () = cancelled.cancelled() => return Err(cancelled_problem()),
        };
        let started = tokio::time::Instant::now();
        let pulled = tokio::select! {
            pulled = self.pull(pod, &full, sandbox) => pulled,
            () = cancelled.cancelled() => return Err(cancelled_problem()),
        };
        drop(permit);
        if let Err(error) = pulled {
            self.events.warning(about, "Failed", format!("Failed to pull image {image:?}: {error}"));
            return Err(Problem::new("ErrImagePull", error.to_string()));
        }
        let took = started.elapsed();
        self.changed.notify_one();
        let found = self.runtime.image_status(&full).await.ok().flatten();
        let size = found.as_ref().map(|found| found.size).unwrap_or(0);
        self.events.normal(about, "Pulled", pulled_message(image, took, waited.elapsed(), size));
        found
            .map(present)
            .ok_or_else(|| Problem::new("ErrImagePull", format!("image {image:?} is gone after its pull")))
    }

    /// Tries each credential that fits, or none.
    async fn pull(&self, pod: &Pod, image: &str, sandbox: &cri::PodSandboxConfig) -> Result<(), Error> {
        let mut credentials: Vec<Option<cri::AuthConfig>> =
            self.credentials(pod, image).await.into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut last = Ok(());
        for auth in credentials {
            match self.runtime.pull_image(image, auth, sandbox.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Err(error),
            }
        }
        last
    }

    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<cri::AuthConfig> {
        let names = view::spec(pod).and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        let api = Api::<Secret>::namespaced(self.client.clone(), view::namespace(pod));
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for reference in names {
            match api.get(&reference.name).await {
                Ok(secret) => found.extend(matching(&secret, image)),
                Err(_) => missing.push(reference.name.clone()),
            }
        }
        if !missing.is_empty() {
            self.events.warning(
                &keelson_client::reference(pod),
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    missing.join(", ")
                ),
            );
        }
        found
    }
}

fn pulled_message(image: &str, took: Duration, with_waiting: Duration, size: u64) -> String {
    format!(
        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {size} bytes.",
        go_millis(took),
        go_millis(with_waiting)
    )
}

fn present(image: cri::Image) -> Present {
    Present { reference: image.id, uid: image.uid.map(|uid| uid.value), username: image.username }
}

fn default_policy(image: &str) -> &'static str {
    if image.ends_with(":latest") { "Always" } else { "IfNotPresent" }
}

/// The image with `:latest` where it has neither tag nor digest; `None` when it is no image name.
pub(crate) fn with_tag(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last_slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name.get(last_slash..)?.find(':') {
        Some(colon) => (name.get(..last_slash + colon)?, Some(name.get(last_slash + colon + 1..)?)),
        None => (name, None),
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1 && parts.first().is_some_and(|host| host.contains(['.', ':']) || *host == "localhost") {
        parts.remove(0);
    }
    let good_part = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let good_tag = |tag: &str| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if parts.is_empty() || !parts.iter().all(good_part) || tag.is_some_and(|tag| !good_tag(tag)) {
        return None;
    }
    match (tag, digest) {
        (_, Some(digest)) if digest.split_once(':').is_none_or(|(_, hex)| hex.len() < 32) => None,
        (None, None) => Some(format!("{image}:latest")),
        _ => Some(image.to_string()),
    }
}

/// What is wrong with an image name, in the words of the reference parser.
fn why_invalid(image: &str) -> String {
    let full = normalized(image);
    let path = full.split_once('/').map_or("", |(_, path)| path);
    let path = path.split(':').next().unwrap_or_default();
    if path.chars().any(char::is_uppercase) {
        let library = if image.contains('/') { "" } else { "library/" };
        format!("invalid reference format: repository name ({library}{path}) must be lowercase")
    } else {
        "invalid reference format".into()
    }
}

/// Credentials in a dockerconfigjson or dockercfg secret that fit the image's registry.
fn matching(secret: &Secret, image: &str) -> Vec<cri::AuthConfig> {
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
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// `host/path` with Docker Hub's short forms written out.
fn normalized(image: &str) -> String {
    match image.split_once('/') {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (image, full) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1", Some("nginx:1")),
            ("host.example:5000/a/b", Some("host.example:5000/a/b:latest")),
            ("host.example:5000/a/b:v1", Some("host.example:5000/a/b:v1")),
            ("Host.Example/a", Some("Host.Example/a:latest")),
            (digest.as_str(), Some(digest.as_str())),
            ("Nginx", None),
            ("a//b", None),
            ("nginx:", None),
            ("nginx:b@d", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(with_tag(image).as_deref(), full, "{image}");
        }
    }

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
            matching(&secret, "r.example/a/b:1").into_iter().map(|a| (a.username, a.password)).collect();
        assert_eq!(found, [("v".into(), "w".into()), ("u".to_string(), "p:x".to_string())]);
    }

    #[test]
    fn message() {
        let text = pulled_message("x", Duration::from_millis(12), Duration::from_millis(1500), 77);
        assert_eq!(text, "Successfully pulled image \"x\" in 12ms (1.5s including waiting). Image size: 77 bytes.");
    }
}
