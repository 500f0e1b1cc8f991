//! Authentication: client certificates, service-account tokens, anonymous, impersonation.

pub(crate) mod impersonate;
pub(crate) mod token;
pub(crate) mod x509;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use keelson_api::status::Status;

use crate::cache::Cache;
use crate::{Config, Error, UserInfo};

/// Finds out who makes a request that came over the wire.
pub(crate) struct Authenticator {
    pub(crate) tokens: Option<token::Tokens>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config, cache: Arc<Cache>) -> Result<Self, Error> {
        let tokens = config.service_account.as_ref().map(|keys| token::Tokens::new(keys, cache)).transpose()?;
        Ok(Self { tokens })
    }

    /// The user: by certificate, by token, or anonymous. A token that is wrong is 401.
    pub(crate) fn authenticate(
        &self,
        certificate: Option<&Arc<UserInfo>>,
        headers: &HeaderMap,
    ) -> Result<Arc<UserInfo>, Status> {
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(Arc::new(UserInfo::anonymous())) };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        // Other schemes are nobody's: upstream treats such a request as anonymous.
        let Some(token) = token.filter(|t| !t.is_empty()) else { return Ok(Arc::new(UserInfo::anonymous())) };
        let Some(tokens) = &self.tokens else { return Err(Status::unauthorized()) };
        match tokens.verify(token, &[]) {
            Ok(verified) => Ok(Arc::new(verified.user)),
            Err(why) => {
                tracing::debug!(why, "a token was refused");
                Err(Status::unauthorized())
            }
        }
    }
}
