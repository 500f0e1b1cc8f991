//! Image names: `[registry/]repository[:tag][@digest]`, made canonical so that one image has one name.

use std::fmt;

use crate::Error;

/// A canonical image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host, perhaps with a port; empty if the name carries none and there is no default.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// Tag; `latest` unless the name has a tag or a digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses `name`; `default_registry` is for names without one.
    pub(crate) fn parse(name: &str, default_registry: Option<&str>) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid(format!("invalid image reference {name:?}: {why}"));
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(invalid("the digest is not sha256:<64 hexadecimal digits>")),
            None => (name, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("malformed tag"));
        }
        let (registry, repository) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), path.to_owned())
            }
            _ => match default_registry {
                Some(host) if !rest.contains('/') => (host.to_owned(), format!("library/{rest}")),
                Some(host) => (host.to_owned(), rest.to_owned()),
                None => (String::new(), rest.to_owned()),
            },
        };
        if repository.is_empty() || !repository.split('/').all(is_path_component) {
            return Err(invalid("a repository is made of lower-case letters, digits and single separators"));
        }
        let is_host = |host: &str| {
            host.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'[')
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        };
        if !registry.is_empty() && !is_host(&registry) {
            return Err(invalid("malformed registry"));
        }
        if name.len() > 512 {
            return Err(invalid("too long"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }

    /// Registry and repository, without tag and digest.
    pub(crate) fn name(&self) -> String {
        if self.registry.is_empty() {
            self.repository.clone()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// What a registry's manifest endpoint is asked for.
    pub(crate) fn manifest_key(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// Whether `text` is a digest this crate can verify.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_path_component(component: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(component.bytes().next())
        && edge(component.bytes().last())
        && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        && !component.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, default: Option<&str>, canonical: &str) {
        let parsed = Reference::parse(name, default).map(|reference| reference.to_string());
        assert_eq!(parsed.unwrap_or_default(), canonical, "{name}");
    }

    #[test]
    fn names() {
        let hub = Some("registry.test");
        check("busybox", hub, "registry.test/library/busybox:latest");
        check("busybox:1.36", hub, "registry.test/library/busybox:1.36");
        check("team/app", hub, "registry.test/team/app:latest");
        check("busybox", None, "busybox:latest");
        check("localhost/a", None, "localhost/a:latest");
        check("127.0.0.1:5000/a/b:c", None, "127.0.0.1:5000/a/b:c");
        check("keelson.local/hello", hub, "keelson.local/hello:latest");
        let digest = format!("a.test/b@sha256:{}", "0".repeat(64));
        check(&digest, None, &digest);
        check(&digest.replace('@', ":v1@"), None, &digest);
    }

    #[test]
    fn malformed_names() {
        for name in ["", "/", "a//b", "UPPER", "a:", "a:b c", "a@sha256:12", "a.test/", "../a", "a/..", "-a", "a:-b"] {
            check(name, None, "");
        }
    }
}
