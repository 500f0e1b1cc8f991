//! How the control plane keeps objects: encryption at rest, under upstream's flags.

use std::path::{Path, PathBuf};

use clap::Args;
use keelson_apiserver::EncryptionFile;

use crate::cli::Failure;

/// What an administrator may set about the store.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub(super) struct StorageFlags {
    /// Which objects are encrypted in the store, and with what [default: Secrets, with a key made at the first start]
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Follow changes of that file
    #[arg(long, requires = "encryption_provider_config")]
    encryption_provider_config_automatic_reload: bool,
}

impl StorageFlags {
    /// The file that says what is encrypted; the server's own is in the directory of its keys.
    pub(super) fn encryption(&self, pki: &Path) -> Result<EncryptionFile, Failure> {
        Ok(match &self.encryption_provider_config {
            Some(path) => EncryptionFile {
                path: path.clone(),
                automatic_reload: self.encryption_provider_config_automatic_reload,
                made: false,
            },
            None => EncryptionFile::own(pki.join("encryption.yaml"))?,
        })
    }
}
