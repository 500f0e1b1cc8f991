//! Which plugins run: upstream's names, which of them are on by default, and the flags that change that.

use super::Operation;
use crate::{Config, Error};

macro_rules! plugins {
    ($($name:ident),* $(,)?) => {
        /// An admission plugin of this server, by upstream's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Plugin { $($name),* }

        const ALL: &[(&str, Plugin)] = &[$((stringify!($name), Plugin::$name)),*];
    };
}

plugins!(
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
    DefaultIngressClass,
    DefaultStorageClass,
    DefaultTolerationSeconds,
    LimitRanger,
    NamespaceLifecycle,
    NodeRestriction,
    PersistentVolumeClaimResize,
    PodSecurity,
    PodTopologyLabels,
    Priority,
    ResourceQuota,
    RuntimeClass,
    ServiceAccount,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
);

impl Plugin {
    /// Whether upstream's plugin is asked about an operation, which is when it is measured.
    pub(super) fn handles(self, operation: Operation) -> bool {
        use Operation::{Connect, Create, Delete, Update};
        match self {
            Self::NamespaceLifecycle | Self::NodeRestriction | Self::Priority => operation != Connect,
            Self::DefaultTolerationSeconds
            | Self::LimitRanger
            | Self::PodSecurity
            | Self::ResourceQuota
            | Self::ServiceAccount => !matches!(operation, Connect | Delete),
            Self::CertificateApproval | Self::CertificateSigning | Self::PersistentVolumeClaimResize => {
                operation == Update
            }
            Self::CertificateSubjectRestriction
            | Self::DefaultIngressClass
            | Self::DefaultStorageClass
            | Self::PodTopologyLabels
            | Self::RuntimeClass
            | Self::StorageObjectInUseProtection
            | Self::TaintNodesByCondition => operation == Create,
        }
    }
}

/// Every plugin's name; those that cannot be turned off come last.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name).chain(ALWAYS)
}

/// What administrators add to admission is always heard, so that these cannot be turned off.
const ALWAYS: [&str; 4] =
    ["MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"];
/// Where they stand in [`names`].
pub(super) const MUTATING_POLICY: usize = ALL.len();
pub(super) const MUTATING_WEBHOOK: usize = ALL.len() + 1;
pub(super) const VALIDATING_POLICY: usize = ALL.len() + 2;
pub(super) const VALIDATING_WEBHOOK: usize = ALL.len() + 3;

/// The plugins that run. All of this server's do by default: they are upstream's defaults, and those that its installers
/// turn on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enabled(u32);

impl Enabled {
    /// By `--enable-admission-plugins` and `--disable-admission-plugins`; an error for names that are no plugin's here, and
    /// for one that is in both.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let find = |flag: &str, name: &String| {
            let found = ALL.iter().find(|(known, _)| known == name);
            found.map(|(_, plugin)| *plugin).ok_or_else(|| {
                let known: Vec<_> = ALL.iter().map(|(known, _)| *known).collect();
                let why = format!("{name:?} is unknown; known are {}", known.join(", "));
                Error::Configuration { path: format!("--{flag}-admission-plugins"), why }
            })
        };
        let mut enabled = Self(u32::MAX);
        for name in config.enable_admission_plugins.iter().filter(|name| !ALWAYS.contains(&name.as_str())) {
            find("enable", name)?;
        }
        for name in &config.disable_admission_plugins {
            if ALWAYS.contains(&name.as_str()) {
                let why = format!("{name} cannot be turned off; delete the configurations that it acts by");
                return Err(Error::Configuration { path: "--disable-admission-plugins".into(), why });
            }
            let plugin = find("disable", name)?;
            if config.enable_admission_plugins.contains(name) {
                let why = format!("{name} in both enable-admission-plugins and disable-admission-plugins");
                return Err(Error::Configuration { path: "--disable-admission-plugins".into(), why });
            }
            enabled.0 &= !(1 << plugin as u32);
        }
        Ok(enabled)
    }

    pub(crate) fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }
}
