//! Who is asked, in which order: from flags, or from a file that is read again when it changes. What cannot be used then is
//! refused, and the old chain stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::digest;
use tokio_util::sync::CancellationToken;

use super::webhook::{Settings, WebhookAuthorizer};
use super::{configuration, webhook};
use crate::Error;
use crate::config::{Authorization, AuthorizationMode, WebhookAuthorization};
use crate::files::changes as changes_of;
use crate::webhook::{Webhook, kubeconfig};

/// Of one review, when flags say who is asked.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the files are looked at even when nothing seems to change, as upstream.
const EVERY: Duration = Duration::from_secs(60);

/// Most files that are looked at.
const MAX_FILES: usize = 256;

/// One who is asked.
pub(super) enum Step {
    Node,
    Rbac,
    Webhook(Box<webhook::WebhookAuthorizer>),
}

/// The chain of the moment.
pub(crate) struct Chain {
    steps: ArcSwap<Vec<Step>>,
    config_file: Option<PathBuf>,
    /// What the chain was made of at the start.
    made_of: Files,
}

/// The configuration, all files that it names, and digests of what is in them.
type Files = Vec<(PathBuf, Option<[u8; 32]>)>;

impl Chain {
    pub(crate) fn new(settings: &Authorization) -> Result<Self, Error> {
        // Looked at first: what changes meanwhile is then different later.
        let made_of = settings.config_file.as_deref().map(files).unwrap_or_default();
        let steps = match &settings.config_file {
            Some(file) => configuration::load(file)?,
            None => from_flags(settings)?,
        };
        Ok(Self { steps: ArcSwap::from_pointee(steps), config_file: settings.config_file.clone(), made_of })
    }

    pub(super) fn steps(&self) -> arc_swap::Guard<Arc<Vec<Step>>> {
        self.steps.load()
    }

    /// Follows the file until `shutdown`. Returns at once when there is none.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let Some(file) = &self.config_file else { return };
        let mut made_of = self.made_of.clone();
        let mut watched: Vec<PathBuf> = Vec::new();
        let mut changes = None;
        loop {
            let now = blocking(file, files).await.unwrap_or_default();
            if !now.iter().map(|(path, _)| path).eq(&watched) {
                watched = now.into_iter().map(|(path, _)| path).collect();
                // A directory may be named before it is made.
                let there = watched
                    .iter()
                    .filter(|path| path.parent().is_none_or(|dir| dir.as_os_str().is_empty() || dir.is_dir()));
                changes = changes_of(there.map(PathBuf::as_path))
                    .inspect_err(
                        |error| tracing::warn!(%error, "the authorization configuration is only looked at each minute"),
                    )
                    .ok();
                // Again, now that nothing is missed.
                continue;
            }
            if now != made_of {
                match blocking(file, configuration::load).await {
                    Some(Ok(steps)) => self.steps.store(Arc::new(steps)),
                    Some(Err(error)) => {
                        tracing::error!(%error, "the authorization configuration could not be read again; the old one stays");
                    }
                    None => {}
                }
                made_of = now;
            }
            let changed = async {
                match &changes {
                    Some(changes) => changes.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changed => if more.is_err() { changes = None },
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

async fn blocking<T: Send + 'static>(file: &Path, what: fn(&Path) -> T) -> Option<T> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || what(&file)).await.ok()
}

fn files(config: &Path) -> Files {
    let digest = |text: Vec<u8>| digest::digest(&digest::SHA256, &text).as_ref().try_into().ok();
    let mut all: Files = Vec::new();
    let mut to_do = vec![config.to_owned()];
    while let Some(path) = to_do.pop().filter(|_| all.len() < MAX_FILES) {
        if all.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let text = kubeconfig::read(&path, configuration::MAX_FILE_BYTES).ok();
        match (&text, all.is_empty()) {
            (Some(text), true) => to_do = configuration::named(text),
            (Some(text), false) => to_do.extend(kubeconfig::named(&path, text)),
            (None, _) => {}
        }
        all.push((path, text.and_then(digest)));
    }
    all
}

fn from_flags(settings: &Authorization) -> Result<Vec<Step>, Error> {
    let bad = |why: &str| Error::Configuration { path: "--authorization-mode".into(), why: why.to_owned() };
    if settings.modes.is_empty() {
        return Err(bad("at least one authorization-mode must be passed"));
    }
    let mut steps = Vec::new();
    for (index, mode) in settings.modes.iter().enumerate() {
        if settings.modes.iter().take(index).any(|before| before == mode) {
            return Err(bad("a mode is specified more than once"));
        }
        steps.push(match (mode, &settings.webhook) {
            (AuthorizationMode::Node, _) => Step::Node,
            (AuthorizationMode::Rbac, _) => Step::Rbac,
            (AuthorizationMode::Webhook, Some(webhook)) => Step::Webhook(Box::new(from_flag(webhook)?)),
            (AuthorizationMode::Webhook, None) => {
                return Err(bad("authorization-mode Webhook's authorization config file not passed"));
            }
        });
    }
    if settings.webhook.is_some() && !settings.modes.contains(&AuthorizationMode::Webhook) {
        return Err(bad("cannot specify --authorization-webhook-config-file without mode Webhook"));
    }
    Ok(steps)
}

fn from_flag(webhook: &WebhookAuthorization) -> Result<WebhookAuthorizer, Error> {
    let WebhookAuthorization { kubeconfig, version, authorized_ttl, unauthorized_ttl } = webhook;
    if !matches!(version.as_str(), "v1" | "v1beta1") {
        let why =
            format!("unsupported webhook authorizer version {version:?}, supported versions are \"v1\", \"v1beta1\"");
        return Err(Error::Configuration { path: "--authorization-webhook-version".into(), why });
    }
    let settings = Settings {
        version: version.clone(),
        timeout: TIMEOUT,
        authorized_ttl: *authorized_ttl,
        unauthorized_ttl: *unauthorized_ttl,
        deny_on_error: false,
        conditions: Vec::new(),
    };
    Ok(WebhookAuthorizer::new(Webhook::from_kubeconfig(kubeconfig)?, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_different_when_one_that_is_named_is() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        // Wrong, but for the name.
        let config = write(
            "config",
            &format!(
                "authorizers: [{{webhook: {{connectionInfo: {{kubeConfigFile: {}/hook}}}}}}]",
                dir.path().display()
            ),
        );
        let absent = files(&config);
        assert_eq!(absent.iter().map(|(_, digest)| digest.is_some()).collect::<Vec<_>>(), [true, false]);
        write("hook", "clusters: [{name: c, cluster: {certificate-authority: ca}}]");
        write("ca", "1");
        let before = files(&config);
        assert_eq!((before.len(), before == absent), (3, false));
        write("other", "x");
        assert!(files(&config) == before);
        write("ca", "2");
        assert!(files(&config) != before);
    }
}
