//! Authentication of what comes over the wire: front proxies' headers, client certificates, bearer tokens, anonymous; and
//! impersonation, which comes after it. The first that knows the user wins; when none does, and one of them has been shown
//! something bad, the answer is 401 and not anonymous.

mod answers;
mod bearer;
mod bootstrap_token;
mod configuration;
mod front_proxy;
pub(crate) mod impersonate;
mod oidc;
pub(crate) mod token;
mod token_file;
pub(crate) mod trust;
mod webhook;
pub(crate) mod x509;

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use keelson_api::status::Status;
use serde_json::{Map, Value};

use self::bootstrap_token::BootstrapTokens;
use self::configuration::Configured;
use self::front_proxy::FrontProxy;
use self::token_file::TokenFile;
use self::trust::Trusted;
use self::webhook::TokenWebhook;
use self::x509::Peer;
use crate::cache::Cache;
use crate::core::Core;
use crate::{Config, Error, UserInfo};

static ANONYMOUS: LazyLock<Arc<UserInfo>> = LazyLock::new(|| Arc::new(UserInfo::anonymous()));

/// A token that holds.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) user: Arc<UserInfo>,
    /// Those that were asked for and that the token is for.
    pub(crate) audiences: Vec<String>,
}

/// What one who knows tokens says to one: whose it is; that it is not one of his; or why it does not hold.
pub(crate) type Outcome = Result<Option<Verified>, String>;

/// Finds out who makes a request that came over the wire.
pub(crate) struct Authenticator {
    pub(crate) trusted: Trusted,
    front_proxy: Option<FrontProxy>,
    file: Option<TokenFile>,
    /// Of service accounts.
    pub(crate) tokens: Option<token::Tokens>,
    bootstrap: Option<BootstrapTokens>,
    configured: Configured,
    webhook: Option<TokenWebhook>,
    /// What a token is for that names no audience.
    audiences: Vec<String>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config, cache: Arc<Cache>) -> Result<Self, Error> {
        let settings = &config.authentication;
        let keys = config.service_account.as_ref();
        let tokens = keys.map(|keys| token::Tokens::new(keys, cache.clone())).transpose()?;
        let audiences = tokens.as_ref().map(|tokens| tokens.audiences.clone()).unwrap_or_default();
        let own = tokens.as_ref().map(|tokens| tokens.issuers().to_vec()).unwrap_or_default();
        Ok(Self {
            trusted: Trusted::new(config)?,
            front_proxy: settings.request_header.as_ref().map(FrontProxy::new),
            file: settings.token_file.as_deref().map(TokenFile::read).transpose()?,
            tokens,
            bootstrap: settings.bootstrap_tokens.then_some(BootstrapTokens(cache)),
            configured: Configured::new(settings, own)?,
            webhook: settings.webhook.as_ref().map(|hook| TokenWebhook::new(hook, &audiences)).transpose()?,
            audiences,
        })
    }

    /// The user. Whatever said who that is, is taken out of the headers: nothing behind this point needs it, and nothing may
    /// pass it on.
    pub(crate) async fn authenticate(
        &self,
        peer: Option<&Peer>,
        path: &str,
        headers: &mut HeaderMap,
    ) -> Result<Arc<UserInfo>, Status> {
        let user = self.identify(peer, path, headers).await?;
        headers.remove(AUTHORIZATION);
        if let Some(proxy) = &self.front_proxy {
            proxy.clear(headers);
        }
        Ok(user)
    }

    async fn identify(
        &self,
        peer: Option<&Peer>,
        path: &str,
        headers: &mut HeaderMap,
    ) -> Result<Arc<UserInfo>, Status> {
        let mut refused = false;
        if let Some(peer) = peer {
            let verdict = peer.judge(&self.trusted.current());
            if let Some(proxy) = &self.front_proxy
                && verdict.front_proxy
            {
                if !proxy.allows(peer.name()) {
                    refused = true;
                } else if let Some(user) = proxy.user(headers) {
                    return Ok(Arc::new(user));
                }
            }
            match verdict.user {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(why, "a client certificate was refused");
                    refused = true;
                }
            }
        }
        if let Some(token) = bearer::token(headers) {
            match Box::pin(self.verify(&token, &self.audiences)).await {
                Ok(verified) => return Ok(verified.user),
                Err(why) => tracing::debug!(why, "a token was refused"),
            }
            refused = true;
        }
        if refused || !self.configured.allows_anonymous(path) {
            return Err(Status::unauthorized());
        }
        Ok(ANONYMOUS.clone())
    }

    /// The user whose token this is, if it is for one of the audiences. The error is for logs and TokenReviews.
    pub(crate) async fn verify(&self, token: &str, audiences: &[String]) -> Result<Verified, String> {
        // Those who know at once before those who must ask; and service accounts before issuers, whose keys would be asked
        // for anew with each token that they did not sign.
        let known = |user: Option<Arc<UserInfo>>| user.and_then(|user| self.for_any(user, audiences));
        if let Some(verified) = known(self.file.as_ref().and_then(|file| file.user(token))) {
            return Ok(verified);
        }
        let mut complaints = Vec::new();
        if let Some(tokens) = &self.tokens {
            match tokens.verify(token, audiences) {
                Ok(Some(verified)) => return Ok(verified),
                Ok(None) => {}
                Err(why) => complaints.push(why),
            }
        }
        if let Some(verified) = known(self.bootstrap.as_ref().and_then(|bootstrap| bootstrap.user(token))) {
            return Ok(verified);
        }
        for issuer in self.configured.issuers().iter() {
            match issuer.verify(token).await.map(known) {
                Ok(Some(verified)) => return Ok(verified),
                Ok(None) => {}
                Err(why) => complaints.push(why),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.verify(token, audiences).await {
                Ok(Some(verified)) => return Ok(verified),
                Ok(None) => {}
                Err(why) => complaints.push(why),
            }
        }
        Err(match complaints.is_empty() {
            true => "invalid bearer token".into(),
            false => format!("[invalid bearer token, {}]", complaints.join(", ")),
        })
    }

    /// A user whose token names no audience: it is for the API's.
    fn for_any(&self, user: Arc<UserInfo>, audiences: &[String]) -> Option<Verified> {
        let matching = token::intersection(&self.audiences, audiences);
        (audiences.is_empty() || !matching.is_empty()).then_some(Verified { user, audiences: matching })
    }

    /// The API's own audiences.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }
}

/// What a token says, of which nothing is known yet: not to be trusted.
fn unverified(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok().filter(|_| parts.next().is_none())?;
    serde_json::from_slice(&payload).ok()
}

/// Keeps what authentication goes by as its files have it.
pub(crate) async fn keep(core: Arc<Core>) {
    let (authenticator, shutdown) = (&core.authenticator, &core.shutdown);
    tokio::join!(authenticator.trusted.keep(shutdown.clone()), authenticator.configured.keep(shutdown.clone()));
}
