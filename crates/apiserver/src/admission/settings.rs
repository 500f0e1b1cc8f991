//! What admission is told at start, and what it keeps.

use std::path::Path;
use std::sync::Arc;

use keelson_api::codec;
use serde::Deserialize;
use serde_json::Value;

use super::namespaces::Namespaces;
use super::plugin::{Enabled, Plugin};
use super::pod_security;
use super::resource_quota::{Limited, Turns};
use crate::{Config, Error};

/// Admission's part of the server.
#[derive(Debug)]
pub(crate) struct Settings {
    enabled: Enabled,
    pub(super) pod_security: Arc<pod_security::config::Config>,
    pub(super) pod_security_places: pod_security::Places,
    /// Fed by the watch cache.
    pub(crate) namespaces: Arc<Namespaces>,
    pub(super) turns: Arc<Turns>,
    /// Of the ResourceQuota plugin.
    pub(super) limited: Limited,
}

/// `AdmissionConfiguration`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<PluginFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginFile {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Option<Value>,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut settings = Self {
            enabled: Enabled::new(config)?,
            pod_security: Arc::default(),
            pod_security_places: Default::default(),
            namespaces: Arc::default(),
            turns: Arc::default(),
            limited: Limited::default(),
        };
        if let Some(path) = &config.admission_control_config_file {
            settings.read(path)?;
        }
        Ok(settings)
    }

    /// Whether a plugin runs.
    pub(crate) fn has(&self, plugin: Plugin) -> bool {
        self.enabled.has(plugin)
    }

    fn read(&mut self, path: &Path) -> Result<(), Error> {
        let shown = || path.display().to_string();
        let wrong = |why: String| Error::Configuration { path: shown(), why };
        let file: File = serde_json::from_value(load(path)?).map_err(|e| wrong(e.to_string()))?;
        let known = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"].contains(&file.api_version.as_str());
        if file.kind != "AdmissionConfiguration" || !known {
            return Err(wrong(format!("no kind {:?} in {:?} is known here", file.kind, file.api_version)));
        }
        for PluginFile { name, path: at, configuration } in file.plugins {
            let (shown, configuration) = match configuration {
                Some(configuration) => (shown(), configuration),
                None if at.is_empty() => return Err(wrong(format!("{name}: neither configuration nor path is given"))),
                // Relative to this file, as upstream.
                None => {
                    let at = path.parent().unwrap_or(Path::new("")).join(at);
                    (at.display().to_string(), load(&at)?)
                }
            };
            let wrong = |why: String| Error::Configuration { path: shown.clone(), why: format!("{name}: {why}") };
            match name.as_str() {
                "PodSecurity" => {
                    self.pod_security = Arc::new(pod_security::config::Config::parse(&configuration).map_err(wrong)?)
                }
                "ResourceQuota" => self.limited = Limited::parse(&configuration).map_err(wrong)?,
                _ => return Err(wrong("this server has no configuration for that plugin".into())),
            }
        }
        Ok(())
    }
}

fn load(path: &Path) -> Result<Value, Error> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: shown(), source })?;
    let decoded = codec::yaml::decode(&bytes);
    decoded.map(|decoded| decoded.value).map_err(|e| Error::Configuration { path: shown(), why: e.to_string() })
}
