//! `AuthenticationConfiguration`: issuers of tokens, and where anonymous requests may go. The file is read again when it
//! changes; a new one that is wrong changes nothing, and one whose issuers are not there only when they are. What it says about
//! anonymous requests holds from the start, as upstream.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use keelson_api::status::FieldError;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::oidc::{Issuer, JwtAuthenticator};
use crate::config::Authentication;
use crate::files;
use crate::{Error, webhook};

const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// Largest file.
const MAX_BYTES: u64 = 1 << 20;
/// Most issuers.
const MAX_ISSUERS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<JwtAuthenticator>,
    #[serde(default)]
    anonymous: Option<Anonymous>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Anonymous {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

/// What is configured.
pub(super) struct Configured {
    file: Option<PathBuf>,
    /// What was in the file at the start.
    loaded: Vec<u8>,
    /// Issuers that a file may not claim: the cluster's own.
    own_issuers: Vec<String>,
    issuers: ArcSwap<Vec<Arc<Issuer>>>,
    anonymous: Anonymous,
}

impl Configured {
    pub(super) fn new(settings: &Authentication, own_issuers: Vec<String>) -> Result<Self, Error> {
        let (file, flag) = (settings.config_file.clone(), settings.anonymous);
        let (mut anonymous, mut issuers, mut text) =
            (Anonymous { enabled: flag.unwrap_or(true), conditions: Vec::new() }, vec![], vec![]);
        if let Some(oidc) = &settings.oidc {
            let flags = |why: String| Error::Configuration { path: "--oidc-issuer-url".into(), why };
            if file.is_some() {
                return Err(flags("authentication-config file and oidc-* flags are mutually exclusive".into()));
            }
            if oidc.issuer_url.is_empty() || oidc.client_id.is_empty() {
                let why = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
                return Err(flags(why.into()));
            }
            let (found, errors) = compile(vec![JwtAuthenticator::of_flags(oidc)?], None, &own_issuers);
            if let Some(why) = shown(&errors) {
                return Err(flags(why));
            }
            issuers = found;
        }
        if let Some(path) = &file {
            text = webhook::kubeconfig::read(path, MAX_BYTES)?;
            let bad = |why: String| Error::Configuration { path: path.display().to_string(), why };
            let loaded = load(&text, &own_issuers).map_err(bad)?;
            issuers = loaded.0;
            match (loaded.1, flag) {
                (Some(_), Some(_)) => {
                    let why = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication \
                               configuration file";
                    return Err(bad(why.into()));
                }
                (Some(said), None) => anonymous = said,
                (None, _) => {}
            }
        }
        Ok(Self { file, loaded: text, own_issuers, issuers: ArcSwap::from_pointee(issuers), anonymous })
    }

    pub(super) fn issuers(&self) -> arc_swap::Guard<Arc<Vec<Arc<Issuer>>>> {
        self.issuers.load()
    }

    /// Whether a request for a path may say nothing about its sender.
    pub(super) fn allows_anonymous(&self, path: &str) -> bool {
        let Anonymous { enabled, conditions } = &self.anonymous;
        *enabled && (conditions.is_empty() || conditions.iter().any(|condition| condition.path == path))
    }

    /// Follows the file, and keeps the issuers' keys, until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        let mut running = Some(self.start(&shutdown));
        let Some(path) = &self.file else { return shutdown.cancelled().await };
        let changes = match files::changes([path.as_path()]) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "the authentication configuration cannot be watched for changes");
                return shutdown.cancelled().await;
            }
        };
        let mut known = self.loaded.clone();
        // A new configuration whose issuers are looked for. Until they are found the old ones are asked.
        let mut next: Option<Next> = None;
        loop {
            let text = read(path.clone()).await.filter(|text| match &next {
                Some(next) => next.text != *text,
                None => known != *text,
            });
            if let Some(text) = text {
                next = None;
                match load(&text, &self.own_issuers) {
                    _ if text == known => {}
                    Ok((issuers, _)) => next = Some(Next::new(text, issuers)),
                    Err(why) => {
                        tracing::error!(why, "the authentication configuration is wrong; the old one stays");
                        known = text;
                    }
                }
            }
            let found = async {
                match &mut next {
                    Some(next) => next.found.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changes.wait() => if more.is_err() { return },
                () = found => if let Some(Next { text, issuers, .. }) = next.take() {
                    tracing::info!("the authentication configuration is taken up");
                    self.issuers.store(Arc::new(issuers));
                    known = text;
                    drop(running.take());
                },
            }
        }
    }

    /// Starts what gets the issuers' keys; dropped, it ends.
    fn start(&self, shutdown: &CancellationToken) -> tokio_util::sync::DropGuard {
        let stop = shutdown.child_token();
        for issuer in self.issuers().iter() {
            let (issuer, stop) = (issuer.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = issuer.discover() => {}
                }
            });
        }
        stop.drop_guard()
    }
}

/// What is to be configured.
struct Next {
    text: Vec<u8>,
    issuers: Vec<Arc<Issuer>>,
    /// Ends when all issuers have been found.
    found: BoxFuture<'static, ()>,
}

impl Next {
    fn new(text: Vec<u8>, issuers: Vec<Arc<Issuer>>) -> Self {
        let all = issuers.clone().into_iter().map(|issuer| async move { issuer.discover().await });
        let found = join_all(all).map(|_| ()).boxed();
        Self { text, issuers, found }
    }
}

/// `None` while the file cannot be read.
async fn read(path: PathBuf) -> Option<Vec<u8>> {
    let read = move || webhook::kubeconfig::read(&path, MAX_BYTES).ok();
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

fn load(text: &[u8], own_issuers: &[String]) -> Result<(Vec<Arc<Issuer>>, Option<Anonymous>), String> {
    let decoded = keelson_api::codec::yaml::decode(text).map_err(|e| e.to_string())?;
    let file: File = serde_json::from_value(decoded.value).map_err(|e| e.to_string())?;
    let known = file.api_version.split_once('/').is_some_and(|(g, v)| g == GROUP && VERSIONS.contains(&v));
    if !known || file.kind != "AuthenticationConfiguration" {
        let File { api_version, kind, .. } = file;
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    }
    let (issuers, errors) = compile(file.jwt, file.anonymous.as_ref(), own_issuers);
    match shown(&errors) {
        Some(why) => Err(why),
        None => Ok((issuers, file.anonymous)),
    }
}

/// Errors in one line; `None` when there are none.
fn shown(errors: &[FieldError]) -> Option<String> {
    let all: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    match all.len() {
        0 => None,
        1 => Some(all.concat()),
        _ => Some(format!("[{}]", all.join(", "))),
    }
}

fn compile(
    all: Vec<JwtAuthenticator>,
    anonymous: Option<&Anonymous>,
    own_issuers: &[String],
) -> (Vec<Arc<Issuer>>, Vec<FieldError>) {
    if all.len() > MAX_ISSUERS {
        return (Vec::new(), vec![FieldError::too_many("jwt", all.len(), MAX_ISSUERS)]);
    }
    let (mut issuers, mut errors) = (Vec::new(), Vec::new());
    let (mut urls, mut discovery_urls) = (Vec::new(), Vec::new());
    for (index, jwt) in all.into_iter().enumerate() {
        let path = format!("jwt[{index}]");
        let (url, discovery_url) = (jwt.issuer.url.clone(), jwt.issuer.discovery_url.clone());
        match Issuer::new(jwt, &path, own_issuers) {
            Ok(issuer) => issuers.push(Arc::new(issuer)),
            Err(more) => errors.extend(more),
        }
        if urls.contains(&url) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.url"), url.as_str()));
        }
        if !discovery_url.is_empty() && discovery_urls.contains(&discovery_url) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.discoveryURL"), discovery_url.as_str()));
        }
        urls.push(url);
        discovery_urls.push(discovery_url);
    }
    if let Some(Anonymous { enabled: false, conditions }) = anonymous
        && !conditions.is_empty()
    {
        let shown: Vec<String> = conditions.iter().map(|condition| format!("{{Path:{}}}", condition.path)).collect();
        let shown = format!("[{}]", shown.join(" "));
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::of_struct("FieldValueInvalid", "anonymous.conditions", &shown, why));
    }
    (issuers, errors)
}

#[cfg(test)]
mod tests;
