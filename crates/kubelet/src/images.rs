//! Images: whether one must be pulled, with which credentials, and what is said about it.

mod credentials;
pub(crate) mod policy;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, ObjectReference, Pod};
use keelson_client::EventRecorder;
use keelson_cri::v1 as cri;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::objects::Objects;
use crate::pod::backoff::go_millis;
use crate::pod::view;
use crate::runtime::Runtime;
use credentials::{Credential, normalized};
use policy::Policy;
use records::{Access, Origin, Records};

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
    objects: Arc<Objects>,
    events: EventRecorder,
    permits: Semaphore,
    /// Who may use what is there; `None` while the gate is off: everybody.
    access: Option<(Policy, Arc<Records>)>,
    /// Told after each pull: the node's image list changed.
    pub changed: Arc<Notify>,
}

impl Images {
    pub(crate) fn new(
        runtime: Runtime,
        objects: Arc<Objects>,
        events: EventRecorder,
        config: &Config,
    ) -> Result<Self, Error> {
        let access = if config.enabled(policy::GATE) {
            let name = &config.image_pull_credentials_verification_policy;
            let policy = Policy::new(name, &config.preloaded_images_verification_allowlist);
            Some((policy, Arc::new(Records::open(&config.root_dir)?)))
        } else {
            None
        };
        let permits = Semaphore::new(config.max_parallel_image_pulls.max(1));
        Ok(Images { runtime, objects, events, permits, access, changed: Arc::default() })
    }

    /// Looks after the pulls whose end an earlier kubelet did not see.
    pub(crate) async fn recover(&self) {
        let Some((_, records)) = &self.access else { return };
        let Ok(images) = self.runtime.list_images().await else { return };
        let of = |image: cri::Image| {
            let names: Vec<String> = image.repo_tags.into_iter().chain(image.repo_digests).collect();
            names.into_iter().map(move |name| (name, image.id.clone()))
        };
        let present: BTreeMap<String, String> = images.into_iter().flat_map(of).collect();
        let work = move |records: &Records| records.recover(&present, keelson_client::clock::now());
        on_disk(records, work).await.unwrap_or_else(|error| tracing::warn!(%error, "image records"));
    }

    /// Forgets who may use images that are not among `known`, by their ids, as of `since`.
    pub(crate) async fn forget_all_but(&self, known: BTreeSet<String>, since: Timestamp) {
        let Some((_, records)) = &self.access else { return };
        let pruned = on_disk(records, move |records| records.prune(&known, since)).await;
        pruned.unwrap_or_else(|error| tracing::warn!(%error, "image records"));
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
        let mut credentials = None;
        if let ("IfNotPresent" | "Never", Some(found)) = (policy, found) {
            let secrets = async || {
                let found = self.credentials(pod, &full).await;
                let secrets = found.iter().map(|credential| credential.secret.clone()).collect();
                (secrets, found)
            };
            let Some((rules, records)) = &self.access else {
                let message = format!("Container image {image:?} already present on machine");
                self.events.normal(about, "Pulled", message);
                return Ok(present(found));
            };
            let (may, looked_up) = may_use(rules, records, image, &found.id, secrets).await;
            if may {
                let message =
                    format!("Container image {image:?} already present on machine and can be accessed by the pod");
                self.events.normal(about, "Pulled", message);
                return Ok(present(found));
            }
            credentials = looked_up;
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            self.events.warning(about, "ErrImageNeverPull", message.clone());
            return Err(Problem::new("ErrImageNeverPull", message));
        }
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => self.credentials(pod, &full).await,
        };
        let Some((_, records)) = &self.access else {
            return self.pull(wanted, &full, credentials, sandbox, cancelled).await.map(|(found, _)| found);
        };
        let key = image.to_string();
        on_disk(records, move |records| records.begin(&key)).await.and_then(|done| done).map_err(|error| {
            let message = format!("Failed to record image pull intent for container image {image:?}: {error}");
            Problem::new("ErrImagePull", message)
        })?;
        let pulled = self.pull(wanted, &full, credentials, sandbox, cancelled).await;
        let key = image.to_string();
        let outcome = pulled.as_ref().ok().map(|(found, access)| (found.reference.clone(), access.clone()));
        let noted = on_disk(records, move |records| {
            let outcome = outcome.as_ref().map(|(reference, access)| (reference.as_str(), access.clone()));
            records.end(&key, outcome, keelson_client::clock::now())
        });
        if let Err(error) = noted.await.and_then(|done| done) {
            tracing::warn!(%error, image, "the pull of an image cannot be noted");
        }
        pulled.map(|(found, _)| found)
    }

    /// Pulls, and says so. Gives the image and who may use it from now on.
    async fn pull(
        &self,
        wanted: &Wanted<'_>,
        full: &str,
        credentials: Vec<Credential>,
        sandbox: &cri::PodSandboxConfig,
        cancelled: &CancellationToken,
    ) -> Result<(Present, Access), Problem> {
        let Wanted { image, about, .. } = wanted;
        let waited = tokio::time::Instant::now();
        self.events.normal(about, "Pulling", format!("Pulling image {image:?}"));
        let cancelled_problem = || Problem::new("ErrImagePull", "context canceled");
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit.map_err(|_| cancelled_problem())?,
            () = cancelled.cancelled() => return Err(cancelled_problem()),
        };
        let started = tokio::time::Instant::now();
        let pulled = tokio::select! {
            pulled = self.pull_with(full, credentials, sandbox) => pulled,
            () = cancelled.cancelled() => return Err(cancelled_problem()),
        };
        drop(permit);
        let access = pulled.map_err(|error| {
            self.events.warning(about, "Failed", format!("Failed to pull image {image:?}: {error}"));
            pull_problem(image, &error)
        })?;
        let took = started.elapsed();
        self.changed.notify_one();
        let found = self.runtime.image_status(full).await.ok().flatten();
        let size = found.as_ref().map(|found| found.size).unwrap_or(0);
        self.events.normal(about, "Pulled", pulled_message(image, took, waited.elapsed(), size));
        let found = found
            .map(present)
            .ok_or_else(|| Problem::new("ErrImagePull", format!("image {image:?} is gone after its pull")))?;
        Ok((found, access))
    }

    /// Tries each credential that fits, or none. Gives who may use the image: whoever has the credential that was good.
    async fn pull_with(
        &self,
        image: &str,
        credentials: Vec<Credential>,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Access, Error> {
        if credentials.is_empty() {
            self.runtime.pull_image(image, None, sandbox.clone()).await?;
            return Ok(Access { node_pods_accessible: true, ..Access::default() });
        }
        let mut last = Ok(Access::default());
        for Credential { auth, secret } in credentials {
            match self.runtime.pull_image(image, Some(auth), sandbox.clone()).await {
                Ok(_) => return Ok(Access { kubernetes_secrets: vec![secret], ..Access::default() }),
                Err(error) => last = Err(error),
            }
        }
        last
    }

    /// What the pod's pull secrets have for the image.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<Credential> {
        let names = view::spec(pod).and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for reference in names {
            match self.objects.secrets.get(view::namespace(pod), &reference.name, view::uid(pod), None).await {
                Ok(Some(secret)) => found.extend(credentials::matching(&secret, image)),
                Ok(None) | Err(_) => missing.push(reference.name.clone()),
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

/// Whether a pod may use the present image `id`, which it calls `image`; `secrets` is only asked when that decides, and then
/// its second answer is handed on.
async fn may_use<T>(
    policy: &Policy,
    records: &Arc<Records>,
    image: &str,
    id: &str,
    secrets: impl AsyncFnOnce() -> (Vec<records::PullSecret>, T),
) -> (bool, Option<T>) {
    let (name, reference) = (image.to_string(), id.to_string());
    let origin = on_disk(records, move |records| records.origin(&name, &reference)).await.and_then(|found| found);
    let origin = match origin {
        Ok(origin) => origin,
        Err(error) => {
            // Nobody is let in because of a damaged file.
            tracing::warn!(%error, image, "who may use an image is not known");
            return (false, None);
        }
    };
    if !policy.verifies(image, matches!(origin, Origin::Pulled(_))) {
        return (true, None);
    }
    let Origin::Pulled(Some(access)) = origin else { return (false, None) };
    if access.node_pods_accessible {
        return (true, None);
    }
    let (secrets, looked_up) = secrets().await;
    let (name, reference) = (image.to_string(), id.to_string());
    let accepted = on_disk(records, move |records| records.accepts(&name, &reference, &access, &secrets)).await;
    (accepted.unwrap_or(false), Some(looked_up))
}

/// Files are read and written where that may block.
async fn on_disk<T: Send + 'static>(
    records: &Arc<Records>,
    work: impl FnOnce(&Records) -> T + Send + 'static,
) -> Result<T, Error> {
    let records = records.clone();
    let done = tokio::task::spawn_blocking(move || work(&records)).await;
    done.map_err(|error| Error::message(error.to_string()))
}

/// What a container waits for after a failed pull. Runtimes begin some errors with a word of their own (CRI).
fn pull_problem(image: &str, error: &Error) -> Problem {
    let words = error.words();
    for (reason, cause) in [
        ("RegistryUnavailable", "registry is unavailable"),
        ("SignatureValidationFailed", "signature validation failed"),
    ] {
        if let Some(more) = words.strip_prefix(reason) {
            return Problem::new(reason, format!("image pull failed for {image} because the {cause}{more}"));
        }
    }
    Problem::new("ErrImagePull", error.to_string())
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

    /// A private image that namespace A brought with its secret is not namespace B's.
    #[tokio::test]
    async fn whose_image() {
        let dir = tempfile::tempdir().unwrap();
        let records = Arc::new(Records::open(dir.path()).unwrap());
        let secret = |namespace: &str, hash: &str| records::PullSecret {
            uid: format!("uid-{namespace}"),
            namespace: namespace.into(),
            name: "pull".into(),
            credential_hash: hash.into(),
        };
        let (private, id, now) = ("r.example/private/app:1", "sha256:1", keelson_client::clock::now());
        records.begin(private).unwrap();
        let of_a = Access { kubernetes_secrets: vec![secret("a", "h")], ..Access::default() };
        records.end(private, Some((id, of_a)), now).unwrap();
        records.begin("r.example/open").unwrap();
        let for_all = Access { node_pods_accessible: true, ..Access::default() };
        records.end("r.example/open", Some(("sha256:2", for_all)), now).unwrap();
        let preloaded = Policy::new(policy::PRELOADED, &[]);
        for (policy, image, id, has, expected, why) in [
            (&preloaded, private, id, vec![secret("a", "h")], true, "whoever pulled it"),
            (&preloaded, private, id, vec![], false, "a pod without secrets"),
            (&preloaded, private, id, vec![secret("b", "x")], false, "other credentials"),
            (&preloaded, private, id, vec![secret("b", "x"), secret("c", "h")], true, "the same in another namespace"),
            (&preloaded, "r.example/private/other:1", id, vec![], false, "the same content by another name"),
            (&preloaded, "r.example/open", "sha256:2", vec![], true, "pulled without credentials"),
            (&preloaded, "r.example/preloaded", "sha256:3", vec![], true, "the kubelet did not bring it"),
            (&Policy::Always, "r.example/preloaded", "sha256:3", vec![secret("a", "h")], false, "always"),
            (&Policy::Always, "r.example/open", "sha256:2", vec![], true, "always, but nobody needs credentials"),
            (&Policy::Never, private, id, vec![], true, "never"),
        ] {
            let (may, _) = may_use(policy, &records, image, id, async || (has, ())).await;
            assert_eq!(may, expected, "{why}");
        }
    }

    #[test]
    fn failed_pulls() {
        let of = |text: &str| {
            let problem = pull_problem("x", &Error::Cri(tonic::Status::unknown(text)));
            (problem.reason, problem.message)
        };
        let words = "image pull failed for x because the registry is unavailable: no route";
        assert_eq!(of("RegistryUnavailable: no route"), ("RegistryUnavailable".into(), words.into()));
        let words = "image pull failed for x because the signature validation failed";
        assert_eq!(of("SignatureValidationFailed"), ("SignatureValidationFailed".into(), words.into()));
        assert_eq!(of("denied"), ("ErrImagePull".into(), "rpc error: code = Unknown desc = denied".into()));
    }

    #[test]
    fn message() {
        let text = pulled_message("x", Duration::from_millis(12), Duration::from_millis(1500), 77);
        assert_eq!(text, "Successfully pulled image \"x\" in 12ms (1.5s including waiting). Image size: 77 bytes.");
    }
}
