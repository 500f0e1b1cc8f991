//! Who the runtime is to a registry: credentials from CRI, the registry's challenge, and the answer to it.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use keelson_cri::v1::AuthConfig;

/// Credentials for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub basic: Option<(String, String)>,
    /// A token that the token server takes for another.
    pub identity_token: Option<String>,
    /// A token for the registry itself.
    pub registry_token: Option<String>,
}

impl Credentials {
    /// What `auth` says about the registry `host`; nothing if it is about another one.
    pub(super) fn new(auth: &AuthConfig, host: &str) -> Self {
        let address = auth.server_address.trim_start_matches("https://").trim_start_matches("http://");
        let address = address.split('/').next().unwrap_or_default();
        if !address.is_empty() && address != host {
            return Self::default();
        }
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let encoded = || {
            let bytes = STANDARD.decode(auth.auth.trim_end_matches('\0')).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            Some((user.to_owned(), password.trim_matches('\0').to_owned()))
        };
        let plain = some(&auth.username).map(|user| (user, auth.password.clone()));
        Self {
            basic: plain.or_else(|| some(&auth.auth).and_then(|_| encoded())),
            identity_token: some(&auth.identity_token),
            registry_token: some(&auth.registry_token),
        }
    }

    /// The header value of HTTP's Basic scheme.
    pub(super) fn basic_header(&self) -> Option<String> {
        let (user, password) = self.basic.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from `realm`, for `service`, allowing `scope`.
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

/// Reads a `WWW-Authenticate` header.
pub(super) fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    let mut take = |key: &str| parameters.remove(key).unwrap_or_default();
    let challenge = Challenge::Bearer { realm: take("realm"), service: take("service"), scope: take("scope") };
    matches!(&challenge, Challenge::Bearer { realm, .. } if !realm.is_empty()).then_some(challenge)
}

/// `key="value"` pairs; a value in quotes may hold commas.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(key, value.to_owned());
        rest = next;
    }
    found
}

/// `text` as part of a query or form.
pub(super) fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        let header = r#"Bearer realm="https://a.test/token",service="a.test",scope="repository:x:pull,push""#;
        assert_eq!(parse_challenge(header), bearer("https://a.test/token", "a.test", "repository:x:pull,push"));
        assert_eq!(parse_challenge("bearer realm=http://t, service=s"), bearer("http://t", "s", ""));
        assert_eq!(parse_challenge(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Bearer"), None);
        assert_eq!(parse_challenge("Negotiate"), None);
    }

    #[test]
    fn credentials_are_for_their_registry() {
        let auth = AuthConfig {
            auth: STANDARD.encode("u:p:q"),
            server_address: "https://a.test/v1/".into(),
            ..Default::default()
        };
        assert_eq!(Credentials::new(&auth, "a.test").basic, Some(("u".into(), "p:q".into())));
        assert_eq!(Credentials::new(&auth, "b.test"), Credentials::default());
        assert_eq!(encode("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }
}
