//! Front proxies: servers that have authenticated their clients and say in headers who these are. Whoever is no front proxy
//! may send such headers; they say nothing then, and go no further either.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::UserInfo;
use crate::config::RequestHeader;
use crate::http::query::percent_decode;

/// What to read the headers by.
pub(crate) struct FrontProxy {
    allowed_names: Vec<String>,
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    extra_prefixes: Vec<String>,
}

impl FrontProxy {
    pub(crate) fn new(config: &RequestHeader) -> Self {
        // A name that is no header's is in no request.
        let names = |all: &[String]| all.iter().filter_map(|name| name.trim().parse().ok()).collect();
        Self {
            allowed_names: config.allowed_names.clone(),
            username: names(&config.username_headers),
            uid: names(&config.uid_headers),
            groups: names(&config.group_headers),
            extra_prefixes: config.extra_header_prefixes.iter().map(|p| p.trim().to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a certificate with this common name may be a front proxy's.
    pub(crate) fn allows(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// The user that the headers name.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let name = first(headers, &self.username)?;
        let values = |name: &HeaderName| headers.get_all(name).iter().filter_map(text);
        let groups = self.groups.iter().flat_map(values).filter(|group| !group.is_empty()).map(str::to_owned);
        let uid = first(headers, &self.uid).unwrap_or_default();
        let mut user = UserInfo { name, uid, groups: groups.collect(), ..UserInfo::default() };
        for prefix in self.extra_prefixes.iter().filter(|prefix| !prefix.is_empty()) {
            for key in headers.keys() {
                let Some(encoded) = key.as_str().strip_prefix(prefix.as_str()) else { continue };
                user.extra.entry(percent_decode(encoded)).or_default().extend(values(key).map(str::to_owned));
            }
        }
        Some(user.authenticated())
    }

    /// Takes the headers away.
    pub(crate) fn clear(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.groups) {
            headers.remove(name);
        }
        let is_extra = |key: &&HeaderName| {
            self.extra_prefixes.iter().any(|prefix| !prefix.is_empty() && key.as_str().starts_with(prefix.as_str()))
        };
        let extra: Vec<HeaderName> = headers.keys().filter(is_extra).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }
}

/// Names may have any letters, so this is not [`HeaderValue::to_str`].
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

fn first(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| headers.get(name)).filter_map(text);
    values.find(|value| !value.is_empty()).map(str::to_owned)
}
