//! Which standard holds in a namespace: level and version for each of enforce, audit and warn, from the namespace's labels
//! over the configured defaults.

use std::fmt;

use keelson_api::selector::Labels;
use keelson_api::status::FieldError;

pub(crate) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a standard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The Kubernetes 1.x whose standard it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Minor(u32),
    #[default]
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").filter(|minor| {
            let digits = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit());
            digits && (*minor == "0" || !minor.starts_with('0'))
        });
        minor.and_then(|minor| minor.parse().ok()).map(Self::Minor).ok_or("must be \"latest\" or \"v1.x\"")
    }

    /// Whether what came with 1.`minor` holds.
    pub(super) fn since(self, minor: u32) -> bool {
        self >= Self::Minor(minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// `restricted:v1.30`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standard {
    pub(crate) level: Level,
    pub(crate) version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) enforce: Standard,
    pub(crate) audit: Standard,
    pub(crate) warn: Standard,
}

impl Policy {
    /// Whether nothing is asked of pods.
    pub(crate) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    /// From a namespace's labels. What cannot be read is an error, and counts as the strictest to enforce and as nothing to
    /// audit and warn of.
    pub(crate) fn of(labels: &(impl Labels + ?Sized), defaults: &Self) -> (Self, Vec<FieldError>) {
        let mut policy = *defaults;
        let mut errors = Vec::new();
        let mut read = |mode: &str, standard: &mut Standard, unreadable: Level| {
            let mut wrong = |key: &str, text: &str, why: &str| {
                errors.push(FieldError::invalid(format!("metadata.labels[{PREFIX}{key}]"), text, why));
            };
            let level = labels.label(&format!("{PREFIX}{mode}"));
            if let Some(text) = level {
                standard.level = Level::parse(text).unwrap_or_else(|why| {
                    wrong(mode, text, why);
                    unreadable
                });
            }
            let key = format!("{mode}-version");
            let version = labels.label(&format!("{PREFIX}{key}"));
            if let Some(text) = version {
                standard.version = Version::parse(text).unwrap_or_else(|why| {
                    wrong(&key, text, why);
                    Version::Latest
                });
            }
            (level.is_some(), version.is_some())
        };
        let (enforced, _) = read("enforce", &mut policy.enforce, Level::Restricted);
        read("audit", &mut policy.audit, Level::Privileged);
        let (warned, warn_version) = read("warn", &mut policy.warn, Level::Privileged);
        // Who says what to enforce and not what to warn of is warned of what would be refused.
        if enforced && !warned && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !warn_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

/// `enforce=restricted:latest, audit=…, warn=…`
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enforce={}, audit={}, warn={}", self.enforce, self.audit, self.warn)
    }
}
