//! Authentication of what comes over the wire: front proxies' headers, client certificates, bearer tokens, anonymous; and
//! impersonation, which comes after it. The first that knows the user wins; when none does, and one of them has been shown
//! something bad, the answer is 401 and not anonymous.

mod bearer;
mod front_proxy;
pub(crate) mod impersonate;
pub(crate) mod token;
pub(crate) mod trust;
pub(crate) mod x509;

use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use keelson_api::status::Status;

use self::front_proxy::FrontProxy;
use self::trust::Trusted;
use self::x509::Peer;
use crate::cache::Cache;
use crate::core::Core;
use crate::{Config, Error, UserInfo};

static ANONYMOUS: LazyLock<Arc<UserInfo>> = LazyLock::new(|| Arc::new(UserInfo::anonymous()));

/// Finds out who makes a request that came over the wire.
pub(crate) struct Authenticator {
    pub(crate) trusted: Trusted,
    front_proxy: Option<FrontProxy>,
    pub(crate) tokens: Option<token::Tokens>,
    anonymous: bool,
}

impl Authenticator {
    pub(crate) fn new(config: &Config, cache: Arc<Cache>) -> Result<Self, Error> {
        let settings = &config.authentication;
        Ok(Self {
            trusted: Trusted::new(config)?,
            front_proxy: settings.request_header.as_ref().map(FrontProxy::new),
            tokens: config.service_account.as_ref().map(|keys| token::Tokens::new(keys, cache)).transpose()?,
            anonymous: settings.anonymous.unwrap_or(true),
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
            match self.tokens.as_ref().map(|tokens| tokens.verify(&token, &[])) {
                Some(Ok(verified)) => return Ok(Arc::new(verified.user)),
                Some(Err(why)) => tracing::debug!(why, "a token was refused"),
                None => {}
            }
            refused = true;
        }
        if refused || !self.allows_anonymous(path) {
            return Err(Status::unauthorized());
        }
        Ok(ANONYMOUS.clone())
    }

    fn allows_anonymous(&self, _path: &str) -> bool {
        self.anonymous
    }
}

/// Keeps what authentication goes by as its files have it.
pub(crate) async fn keep(core: Arc<Core>) {
    core.authenticator.trusted.keep(core.shutdown.clone()).await;
}
