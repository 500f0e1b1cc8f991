//! `PodSecurityConfiguration`: the standard of namespaces without labels, and who is exempt.

use std::collections::HashSet;

use keelson_api::validation::names;
use serde::Deserialize;
use serde_json::Value;

use super::policy::{Level, Policy, Standard, Version};

const VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

/// What an administrator has set.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(super) defaults: Policy,
    usernames: HashSet<String>,
    namespaces: HashSet<String>,
    runtime_classes: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Config {
    /// Reads a configuration; an error names the field.
    pub(crate) fn parse(configuration: &Value) -> Result<Self, String> {
        let file: File = serde_json::from_value(configuration.clone()).map_err(|e| e.to_string())?;
        if file.kind != "PodSecurityConfiguration" || !VERSIONS.contains(&file.api_version.as_str()) {
            return Err(format!("no kind {:?} in {:?} is known here", file.kind, file.api_version));
        }
        let Defaults { enforce, enforce_version, audit, audit_version, warn, warn_version } = file.defaults;
        let defaults = Policy {
            enforce: standard("enforce", &enforce, &enforce_version)?,
            audit: standard("audit", &audit, &audit_version)?,
            warn: standard("warn", &warn, &warn_version)?,
        };
        let Exemptions { usernames, namespaces, runtime_classes } = file.exemptions;
        let none = |_: &str| Vec::<String>::new();
        Ok(Self {
            defaults,
            usernames: set("usernames", usernames, none)?,
            namespaces: set("namespaces", namespaces, names::label)?,
            runtime_classes: set("runtimeClasses", runtime_classes, names::subdomain)?,
        })
    }

    pub(super) fn exempts_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    pub(super) fn exempts_user(&self, name: &str) -> bool {
        self.usernames.contains(name)
    }

    pub(super) fn exempts_runtime_class(&self, name: &str) -> bool {
        self.runtime_classes.contains(name)
    }
}

fn standard(mode: &str, level: &str, version: &str) -> Result<Standard, String> {
    let mut standard = Standard::default();
    if !level.is_empty() {
        standard.level =
            Level::parse(level).map_err(|why| format!("defaults.{mode}: Invalid value: {level:?}: {why}"))?;
    }
    if !version.is_empty() {
        standard.version = Version::parse(version)
            .map_err(|why| format!("defaults.{mode}-version: Invalid value: {version:?}: {why}"))?;
    }
    Ok(standard)
}

fn set(field: &str, names: Vec<String>, complaints: impl Fn(&str) -> Vec<String>) -> Result<HashSet<String>, String> {
    let mut seen = HashSet::new();
    for (index, name) in names.into_iter().enumerate() {
        let at = format!("exemptions.{field}[{index}]");
        if name.is_empty() {
            return Err(format!("{at}: Required value"));
        }
        if let Some(complaint) = complaints(&name).first() {
            return Err(format!("{at}: Invalid value: {name:?}: {}", complaint));
        }
        if seen.contains(&name) {
            return Err(format!("{at}: Duplicate value: {name:?}"));
        }
        seen.insert(name);
    }
    Ok(seen)
}
