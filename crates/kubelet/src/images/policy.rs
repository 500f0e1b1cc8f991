//! Whose credentials are looked at again when an image is already there (`imagePullCredentialsVerificationPolicy`).

use super::credentials::repository;
use super::with_tag;

/// The gate (KEP-2535); without it whoever names a present image may use it.
pub(crate) const GATE: &str = "KubeletEnsureSecretPulledImages";
/// The policy's words.
pub(crate) const POLICIES: [&str; 4] = [NEVER, PRELOADED, ALLOWLISTED, ALWAYS];
/// The default.
pub(crate) const PRELOADED: &str = "NeverVerifyPreloadedImages";
pub(crate) const ALLOWLISTED: &str = "NeverVerifyAllowlistedImages";
const NEVER: &str = "NeverVerify";
const ALWAYS: &str = "AlwaysVerify";

/// The policy.
#[derive(Debug)]
pub(super) enum Policy {
    Never,
    /// Images that the kubelet did not pull are for all.
    Preloaded,
    /// These are for all: repositories, or with a slash at the end all below them.
    Allowlisted(Vec<String>),
    Always,
}

impl Policy {
    /// The policy of that name; an unknown one is the strictest.
    pub(super) fn new(name: &str, allowlist: &[String]) -> Policy {
        match name {
            NEVER => Policy::Never,
            PRELOADED => Policy::Preloaded,
            ALLOWLISTED => {
                Policy::Allowlisted(allowlist.iter().map(|entry| entry.trim_end_matches('*').into()).collect())
            }
            _ => Policy::Always,
        }
    }

    /// Whether credentials for `image` are needed though it is there.
    pub(super) fn verifies(&self, image: &str, pulled_by_kubelet: bool) -> bool {
        match self {
            Policy::Never => false,
            Policy::Preloaded => pulled_by_kubelet,
            Policy::Always => true,
            Policy::Allowlisted(allowed) => {
                let name = repository(image);
                !allowed.iter().any(|entry| match entry.ends_with('/') {
                    true => name.starts_with(entry.as_str()),
                    false => name == *entry,
                })
            }
        }
    }
}

/// Whether an entry of `preloadedImagesVerificationAllowlist` is one.
pub(crate) fn check_entry(entry: &str) -> Result<(), String> {
    if entry.trim() != entry {
        return Err(format!("leading/trailing spaces are not allowed: {entry}"));
    }
    let (name, wildcard) = match entry.strip_suffix("/*") {
        Some(name) => (name, true),
        None => (entry, false),
    };
    if name.is_empty() && !wildcard {
        return Err(format!("the supplied pattern is too short: {entry}"));
    }
    if name.contains('*') {
        return Err(format!("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {entry}"));
    }
    match wildcard {
        true if name.is_empty() => Err("at least registry hostname is required".into()),
        true => Ok(()),
        false if with_tag(name).is_none() => {
            Err(format!("failed to parse as an image name: invalid reference format: {entry}"))
        }
        false if repository(name) != name => {
            Err(format!("neither tag nor digest is accepted in an image reference: {entry}"))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked() {
        let allowlist = ["r.example/open/*".to_string(), "docker.io/library/nginx".into()];
        for (policy, image, pulled, expected) in [
            ("NeverVerify", "r.example/a", true, false),
            ("NeverVerifyPreloadedImages", "r.example/a", true, true),
            ("NeverVerifyPreloadedImages", "r.example/a", false, false),
            ("AlwaysVerify", "r.example/a", false, true),
            ("NeverVerifyAllowlistedImages", "r.example/a:1", false, true),
            ("NeverVerifyAllowlistedImages", "r.example/open/a:1", false, false),
            ("NeverVerifyAllowlistedImages", "r.example/openly/a:1", false, true),
            ("NeverVerifyAllowlistedImages", "nginx:1", true, false),
            ("NeverVerifyAllowlistedImages", "nginx-more:1", true, true),
        ] {
            assert_eq!(Policy::new(policy, &allowlist).verifies(image, pulled), expected, "{policy} {image} {pulled}");
        }
    }

    #[test]
    fn entries() {
        for (entry, complaint) in [
            ("r.example/*", ""),
            ("r.example/team/app", ""),
            (" r.example/a", "leading/trailing spaces"),
            ("", "too short"),
            ("/*", "at least registry hostname"),
            ("r.*/a", "only patterns ending with '/*'"),
            ("r.example/a:1", "neither tag nor digest"),
            ("R.example/A", "failed to parse as an image name"),
        ] {
            let found = check_entry(entry).err().unwrap_or_default();
            assert!(found.contains(complaint) && found.is_empty() == complaint.is_empty(), "{entry}: {found}");
        }
    }
}
