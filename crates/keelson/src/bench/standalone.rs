//! A `keelson server` as a process of its own, without nodes, on a loopback address and with its data in a directory of the
//! bench.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keelson_cluster::kubeconfig::{self, Access};
use keelson_cluster::pki::{ADMIN, Identity, Pki};

use kube::config::{AuthInfo, KubeConfigOptions};

use super::process::Server;
use super::request::send;
use crate::cli::Failure;

/// The first address of the range that servers give out by default.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const START: Duration = Duration::from_secs(60);

/// Killed when it is dropped.
pub(super) struct Process {
    child: Child,
    /// The administrator's.
    pub(super) client: kube::Client,
    url: String,
    authority: Pki,
}

impl Process {
    /// Starts one on 127.0.0.`host`, with keys of its own or those of another.
    pub(super) async fn start(dir: &Path, host: u8, flags: &[String], keys: Option<&Path>) -> Result<Self, Failure> {
        let (address, pki) = (Ipv4Addr::new(127, 0, 0, host), dir.join("pki"));
        std::fs::create_dir_all(&pki)?;
        if let Some(keys) = keys {
            for file in std::fs::read_dir(keys)?.flatten() {
                std::fs::copy(file.path(), pki.join(file.file_name()))?;
            }
        }
        let authority = Pki::open(&pki)?;
        authority.write_apiserver(SERVICE_IP, address, "bench")?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", "--data-dir"]).arg(dir).arg(format!("--advertise-address={address}"));
        command.arg(format!("--secure-port={port}")).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(dir.join("log"))?);
        let child = command.spawn()?;
        let url = format!("https://{address}:{port}");
        let access = Access { server: &url, ca_pem: authority.ca_pem(), client: &authority.client(ADMIN)? };
        let config = kubeconfig::render("bench", &access)?;
        let client = keelson_client::connect::from_kubeconfig_text(&config).await?;
        let mut process = Self { child, client, url, authority };
        let started = Instant::now();
        while send(&process.client, "GET", "/readyz", None).await.is_err() {
            if process.child.try_wait()?.is_some() || started.elapsed() > START {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("the server at {address} does not get ready: {log}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    /// What the process uses.
    pub(super) fn server(&self) -> Server {
        Server::of(self.child.id())
    }

    /// The kubeconfig of somebody, with a certificate.
    pub(super) fn kubeconfig(&self, user: &str, group: &str) -> Result<String, Failure> {
        let client = self.authority.client(Identity { user, group: Some(group) })?;
        let access = Access { server: &self.url, ca_pem: self.authority.ca_pem(), client: &client };
        Ok(kubeconfig::render("bench", &access)?)
    }

    /// A client that shows no certificate, but this token if there is one.
    pub(super) async fn bearer(&self, token: Option<&str>) -> Result<kube::Client, Failure> {
        let (url, admin) = (&self.url, self.authority.client(ADMIN)?);
        let access = Access { server: url, ca_pem: self.authority.ca_pem(), client: &admin };
        let config = kubeconfig::render("bench", &access)?;
        let mut config = kube::config::Kubeconfig::from_yaml(&config)?;
        for user in &mut config.auth_infos {
            let token = token.map(|token| token.to_owned().into());
            user.auth_info = Some(AuthInfo { token, ..AuthInfo::default() });
        }
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
