//! Which standard holds in a namespace: level and version for each of enforce, audit and warn, from the namespace's labels
//! over the configured defaults.

use std::fmt;

use keelson_api::selector::Labels;
use keelson_api::status::FieldError;

pub(crate) const PREFIX: &str = "pod-security.kubernetes.io/";

/// The labels of each mode: its level and its version.
const ENFORCE: [&str; 2] = ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"];
const AUDIT: [&str; 2] = ["pod-security.kubernetes.io/audit", "pod-security.kubernetes.io/audit-version"];
const WARN: [&str; 2] = ["pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/warn-version"];

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
        let mut read = |[mode, version]: [&str; 2], standard: &mut Standard, unreadable: Level| {
            let mut wrong = |key: &str, text: &str, why: &str| {
                errors.push(FieldError::invalid(format!("metadata.labels[{key}]"), text, why));
            };
            let level = labels.label(mode);
            if let Some(text) = level {
                standard.level = Level::parse(text).unwrap_or_else(|why| {
                    wrong(mode, text, why);
                    unreadable
                });
            }
            let of = labels.label(version);
            if let Some(text) = of {
                standard.version = Version::parse(text).unwrap_or_else(|why| {
                    wrong(version, text, why);
                    Version::Latest
                });
            }
            (level.is_some(), of.is_some())
        };
        let (enforced, _) = read(ENFORCE, &mut policy.enforce, Level::Restricted);
        read(AUDIT, &mut policy.audit, Level::Privileged);
        let (warned, warn_version) = read(WARN, &mut policy.warn, Level::Privileged);
        // Who says what to enforce and not what to warn of is warned of what would be refused.
        if enforced && !warned && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !warn_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// What labels ask for, as upstream shows it: `enforce=restricted:latest, audit=…`.
    pub(crate) fn labelled(&self, labels: &(impl Labels + ?Sized)) -> String {
        let modes = [("enforce", ENFORCE, self.enforce), ("audit", AUDIT, self.audit), ("warn", WARN, self.warn)];
        let set = modes.iter().filter(|(_, keys, standard)| {
            standard.level != Level::Privileged && keys.iter().any(|key| labels.label(key).is_some())
        });
        set.map(|(mode, _, standard)| format!("{mode}={standard}")).collect::<Vec<_>>().join(", ")
    }
}
