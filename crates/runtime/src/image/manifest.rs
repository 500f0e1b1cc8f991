//! The JSON documents of an image, OCI and Docker alike: only what a runtime reads.

use serde::{Deserialize, Serialize};

/// Points to a blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Which machines an image is for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// A manifest, or an index of manifests: whichever list is not empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
}

impl Manifest {
    /// The entry of an index for this machine, or the only one.
    pub(crate) fn for_this_machine(&self) -> Option<&Descriptor> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let matches = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        };
        let unspecific = |descriptor: &&Descriptor| descriptor.platform.is_none();
        self.manifests.iter().find(matches).or_else(|| self.manifests.iter().find(unspecific))
    }
}

/// An image's configuration blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigFile {
    pub architecture: String,
    pub os: String,
    pub config: ImageConfig,
    pub rootfs: RootFs,
}

/// How to run the image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    #[serde(deserialize_with = "nullable")]
    pub stop_signal: String,
}

/// The layers' contents, bottom first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    /// `layers`, the only kind there is.
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<String>,
}

/// Docker writes `null` where OCI leaves a field out.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_nulls_are_absent_fields() {
        let file: ConfigFile =
            serde_json::from_str(r#"{"config":{"Entrypoint":null,"Cmd":["sh"],"User":"1"},"rootfs":{"diff_ids":[]}}"#)
                .unwrap();
        assert!(file.config.entrypoint.is_empty());
        assert_eq!((file.config.cmd.as_slice(), file.config.user.as_str()), (["sh".to_owned()].as_slice(), "1"));
    }

    #[test]
    fn an_index_yields_this_machine() {
        let index: Manifest = serde_json::from_str(
            r#"{"manifests":[{"digest":"w","platform":{"os":"windows","architecture":"amd64"}},
                {"digest":"x","platform":{"os":"linux","architecture":"amd64"}},
                {"digest":"a","platform":{"os":"linux","architecture":"arm64"}}]}"#,
        )
        .unwrap();
        let expected = if cfg!(target_arch = "x86_64") { "x" } else { "a" };
        assert_eq!(index.for_this_machine().map(|descriptor| descriptor.digest.as_str()), Some(expected));
    }
}
