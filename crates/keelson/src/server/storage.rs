//! How the control plane keeps objects: the engine, and encryption at rest, under upstream's flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::EncryptionFile;
use keelson_store::{EtcdStore, LocalStore, Store, etcd};

use crate::cli::Failure;

/// How long etcd may take to be there at the start.
const ETCD_START: Duration = Duration::from_secs(60);
/// Pause between two looks at it.
const RETRY: Duration = Duration::from_millis(500);

/// What an administrator may set about the store.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub(super) struct StorageFlags {
    #[command(flatten)]
    etcd: EtcdFlags,
    /// How often history is forgotten, which is kept for so long; 0 for never
    #[arg(long, default_value = "5m0s", value_parser = super::flags::duration)]
    etcd_compaction_interval: Duration,
    /// Which objects are encrypted in the store, and with what [default: Secrets, with a key made at the first start]
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Follow changes of that file
    #[arg(long, requires = "encryption_provider_config")]
    encryption_provider_config_automatic_reload: bool,
}

/// How etcd is reached.
#[derive(Args)]
pub(crate) struct EtcdFlags {
    /// Keep objects in this etcd (`https://HOST:PORT`, several with commas), which other servers may share
    /// [default: a store of the server's own]
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Signs etcd's certificates
    #[arg(long, requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// Shown to etcd
    #[arg(long, requires = "etcd_servers", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, requires = "etcd_servers", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// Where keys start in etcd
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// Events that expire within so many seconds of each other share a lease
    #[arg(long, default_value_t = 60)]
    lease_reuse_duration_seconds: u64,
}

impl EtcdFlags {
    /// The store in etcd, if one was named, once it answers.
    pub(crate) async fn open(&self) -> Result<Option<EtcdStore>, Failure> {
        if self.etcd_servers.is_empty() {
            return Ok(None);
        }
        let read = |path: &Option<PathBuf>| match path {
            Some(path) => std::fs::read(path).map(Some).map_err(|e| format!("{}: {e}", path.display())),
            None => Ok(None),
        };
        let options = etcd::Options {
            endpoints: self.etcd_servers.clone(),
            ca: read(&self.etcd_cafile)?,
            identity: read(&self.etcd_certfile)?.zip(read(&self.etcd_keyfile)?),
            prefix: self.etcd_prefix.clone(),
            lease_reuse: Duration::from_secs(self.lease_reuse_duration_seconds),
        };
        let store = EtcdStore::connect(options).await?;
        let started = tokio::time::Instant::now();
        while let Err(error) = store.revision().await {
            if started.elapsed() > ETCD_START {
                let servers = self.etcd_servers.join(",");
                return Err(format!("{error}; is etcd running at {servers}?").into());
            }
            tracing::warn!(%error, "waiting for etcd");
            tokio::time::sleep(RETRY).await;
        }
        Ok(Some(store))
    }
}

impl StorageFlags {
    /// The store: etcd, or the server's own in `dir`.
    pub(super) async fn open(&self, dir: PathBuf) -> Result<Arc<dyn Store>, Failure> {
        if let Some(etcd) = self.etcd.open().await? {
            return Ok(Arc::new(etcd));
        }
        let local = tokio::task::spawn_blocking(move || LocalStore::open(&dir, Default::default())).await??;
        Ok(Arc::new(local))
    }

    pub(super) fn compaction_interval(&self) -> Duration {
        self.etcd_compaction_interval
    }

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
