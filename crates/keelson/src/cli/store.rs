//! `keelson store`: what a control plane stores, while it does not run.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use keelson_store::{LocalStore, migrate};

use super::Failure;
use crate::server::storage::EtcdFlags;

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Move everything from a server's own store to etcd, or back; the servers must be stopped
    Migrate(Migrate),
    /// Write a server's own store into a file; the server must be stopped
    Backup {
        #[command(flatten)]
        dir: ServerDir,
        /// The file, which is made or replaced
        file: PathBuf,
    },
    /// Make a server's own store from such a file
    Restore {
        #[command(flatten)]
        dir: ServerDir,
        /// The file
        file: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct ServerDir {
    /// The server's directory, which holds `store/`
    #[arg(long, default_value = "/var/lib/keelson/server")]
    data_dir: PathBuf,
}

impl ServerDir {
    fn store(&self) -> PathBuf {
        self.data_dir.join("store")
    }
}

#[derive(Args)]
pub(super) struct Migrate {
    /// Where everything goes
    #[arg(long)]
    to: Engine,
    #[command(flatten)]
    dir: ServerDir,
    #[command(flatten)]
    etcd: EtcdFlags,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Engine {
    /// From the server's directory to etcd, which must have nothing under the prefix
    Etcd,
    /// From etcd to the server's directory, which must have no store
    Local,
}

impl StoreCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Migrate(migrate) => migrate.run().await,
            Self::Backup { dir, file } => {
                let revision = open(&dir.store())?.snapshot_to(&file)?;
                println!("{} holds the store at revision {revision}", file.display());
                Ok(())
            }
            Self::Restore { dir, file } => {
                LocalStore::restore(&file, &dir.store())?;
                println!("{} was made from {}", dir.store().display(), file.display());
                Ok(())
            }
        }
    }
}

impl Migrate {
    async fn run(self) -> Result<(), Failure> {
        keelson_client::connect::install_crypto();
        let Some(etcd) = self.etcd.open().await? else {
            return Err("which etcd? Name it with --etcd-servers".into());
        };
        let dir = self.dir.store();
        let moved = match self.to {
            Engine::Etcd => {
                let event_ttl = keelson_apiserver::Config::default().event_ttl;
                migrate::to_etcd(&open(&dir)?, &etcd, event_ttl).await?
            }
            Engine::Local => migrate::to_local(&etcd, &dir).await?,
        };
        let versions = if moved.exact { "as they were" } else { "in the same order, with new numbers" };
        println!("moved {} keys; the store is at revision {}, versions are {versions}", moved.keys, moved.revision);
        println!("Secrets stay encrypted: the server needs the same pki/encryption.yaml as before.");
        Ok(())
    }
}

/// The store that is there; none is made.
fn open(dir: &Path) -> Result<LocalStore, Failure> {
    if !dir.is_dir() {
        return Err(format!("{} is no store; name the server's directory with --data-dir", dir.display()).into());
    }
    Ok(LocalStore::open(dir, Default::default())?)
}
