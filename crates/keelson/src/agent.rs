//! `keelson agent`: the whole node in one process. Container runtime, kubelet, service proxy and cluster DNS, each with
//! its own identity at the API server; and the CNI configuration, which follows from the node's pod CIDR.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Failure;
use crate::signals;

/// How long components get to end.
const STOP_GRACE: Duration = Duration::from_secs(4);
/// Between tries of a component that failed while its surroundings come up.
const RETRY: Duration = Duration::from_secs(1);

/// `keelson agent`
#[derive(Args)]
pub(crate) struct Agent {
    /// The node's name
    #[arg(long)]
    hostname_override: String,
    /// The node's address
    #[arg(long)]
    node_ip: Ipv4Addr,
    /// Holds `kubelet.kubeconfig`, `proxy.kubeconfig`, `dns.kubeconfig`, `pki/` and the container runtime's files
    #[arg(long, default_value = "/var/lib/keelson")]
    data_dir: PathBuf,
    /// Settings of Keelson's own runtime, TOML: `[handlers.NAME]` with the `path` and `args` of an OCI runtime for
    /// RuntimeClasses with that handler. Without any, `runc` and `crun` are handlers where they are installed
    #[arg(long, default_value = "/etc/keelson/runtime.toml")]
    runtime_config: PathBuf,
    /// A CRI endpoint to use instead of Keelson's own runtime
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    /// Pull images from this network namespace (a file)
    #[arg(long)]
    pull_netns: Option<PathBuf>,
    /// Files of static pods: a directory, or one file [default: /etc/kubernetes/manifests]
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// A `KubeletConfiguration` file; flags go before it
    #[arg(long)]
    config: Option<PathBuf>,
    /// A directory of `KubeletConfiguration` files (`*.conf`), merged over `--config` in the order of their names
    #[arg(long)]
    config_dir: Option<PathBuf>,
    /// Where the kubelet keeps pods' directories and its own state
    #[arg(long)]
    root_dir: Option<PathBuf>,
    /// Where certificates that the kubelet asks for are kept
    #[arg(long)]
    cert_dir: Option<PathBuf>,
    /// The kubelet's kubeconfig [default: kubelet.kubeconfig in the data directory]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// With no kubeconfig yet: ask for a client certificate as whom this one says, and write the kubeconfig
    #[arg(long)]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// Labels of the node when it registers itself: `name=value,name=value`
    #[arg(long, value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// The cluster's DNS server [default: 10.96.0.10]
    #[arg(long)]
    cluster_dns: Option<Ipv4Addr>,
    /// The cluster's DNS domain [default: cluster.local]
    #[arg(long)]
    cluster_domain: Option<String>,
    /// Pods' addresses, as the server's
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: Ipv4Net,
    /// Cluster IPs of Services, as the server's
    #[arg(long, default_value = "10.96.0.0/12")]
    service_cluster_ip_range: Ipv4Net,
    /// Where the CNI configuration is written
    #[arg(long, default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
}

type Components = JoinSet<(&'static str, Result<(), Failure>)>;

impl Agent {
    /// Runs until SIGTERM or SIGINT. Containers go on after that.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let shutdown = CancellationToken::new();
        let mut components = Components::new();
        let mut kubelet = self.kubelet_config()?;
        self.bootstrap(&kubelet).await?;
        if let Some(endpoint) = self.start_runtime(&kubelet, &shutdown, &mut components)? {
            kubelet.container_runtime_endpoint = endpoint;
        }
        self.start_kubelet(kubelet.clone(), &shutdown, &mut components).await?;
        self.start_network(&kubelet, &shutdown, &mut components).await?;
        tracing::info!(node = self.hostname_override, "node is up");

        let mut result = Ok(());
        tokio::select! {
            () = signals::terminated() => {}
            Some(ended) = components.join_next() => {
                result = Err(match ended {
                    Ok((name, Ok(()))) => format!("{name} ended").into(),
                    Ok((name, Err(error))) => format!("{name}: {error}").into(),
                    Err(error) => error.into(),
                });
            }
        }
        shutdown.cancel();
        let rest = async { while components.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, rest).await.is_err() {
            tracing::warn!("some components did not end in time");
        }
        result
    }

    /// The kubelet's configuration: what `keelson up` and `join` lay out, the configuration files over it, flags over both.
    fn kubelet_config(&self) -> Result<keelson_kubelet::Config, Failure> {
        let pki = self.data_dir.join("pki");
        let mut config = keelson_kubelet::Config::new(self.hostname_override.clone(), IpAddr::V4(self.node_ip));
        config.container_runtime_endpoint = String::new();
        config.static_pod_path = Some("/etc/kubernetes/manifests".into());
        config.address = IpAddr::V4(self.node_ip);
        config.tls_cert_file = Some(pki.join("kubelet.crt"));
        config.tls_private_key_file = Some(pki.join("kubelet.key"));
        config.client_ca_file = Some(pki.join("ca.crt"));
        keelson_kubelet::config::load::load(&mut config, self.config.as_deref(), self.config_dir.as_deref())?;
        if let Some(endpoint) = &self.container_runtime_endpoint {
            config.container_runtime_endpoint.clone_from(endpoint);
        }
        if let Some(dns) = self.cluster_dns {
            config.cluster_dns = vec![IpAddr::V4(dns)];
        }
        if let Some(domain) = &self.cluster_domain {
            config.cluster_domain.clone_from(domain);
        }
        if let Some(path) = &self.pod_manifest_path {
            config.static_pod_path = Some(path.clone());
        }
        if let Some(root) = &self.root_dir {
            config.root_dir.clone_from(root);
        }
        config.cert_dir = self.cert_dir.clone().or(config.cert_dir);
        config.node_labels.extend(self.node_labels.iter().cloned());
        Ok(config)
    }

    fn kubelet_kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("kubelet.kubeconfig"))
    }

    /// TLS bootstrap, when there is no kubeconfig but one to begin with.
    async fn bootstrap(&self, config: &keelson_kubelet::Config) -> Result<(), Failure> {
        let kubeconfig = self.kubelet_kubeconfig();
        let Some(first) = self.bootstrap_kubeconfig.as_ref().filter(|_| !kubeconfig.exists()) else { return Ok(()) };
        let certificate = keelson_kubelet::certificates::ClientCertificate {
            kubeconfig,
            cert_dir: config.cert_dir(),
            node_name: config.node_name.clone(),
        };
        tokio::select! {
            done = certificate.bootstrap(first) => Ok(done?),
            () = signals::terminated() => Err("ended before the client certificate was signed".into()),
        }
    }

    /// Our own runtime, unless the kubelet is to use another. Returns its endpoint.
    fn start_runtime(
        &self,
        kubelet: &keelson_kubelet::Config,
        shutdown: &CancellationToken,
        components: &mut Components,
    ) -> Result<Option<String>, Failure> {
        if !kubelet.container_runtime_endpoint.is_empty() {
            return Ok(None);
        }
        let mut config = keelson_runtime::Config::new(std::env::current_exe()?);
        config.root = self.data_dir.join("runtime");
        config.cni_conf_dir.clone_from(&self.cni_conf_dir);
        config.pull_netns.clone_from(&self.pull_netns);
        let settings = keelson_runtime::Settings::read(&self.runtime_config)?;
        (config.handlers, config.pinned_images) = (settings.handlers, settings.pinned_images);
        let endpoint = format!("unix://{}", config.socket.display());
        let stop = shutdown.clone();
        components.spawn(async move {
            ("container runtime", keelson_runtime::run(config, stop).await.map_err(Failure::from))
        });
        Ok(Some(endpoint))
    }

    async fn start_kubelet(
        &self,
        config: keelson_kubelet::Config,
        shutdown: &CancellationToken,
        components: &mut Components,
    ) -> Result<(), Failure> {
        let certificate = keelson_kubelet::certificates::ClientCertificate {
            kubeconfig: self.kubelet_kubeconfig(),
            cert_dir: config.cert_dir(),
            node_name: config.node_name.clone(),
        };
        let client = match config.rotate_certificates {
            true => certificate.rotating(shutdown.clone()).await?,
            false => self.client("kubelet").await?,
        };
        let stop = shutdown.clone();
        let kubelet = Box::pin(keelson_kubelet::run(client, config, stop));
        components.spawn(async move { ("kubelet", kubelet.await.map_err(Failure::from)) });
        Ok(())
    }

    async fn start_network(
        &self,
        kubelet: &keelson_kubelet::Config,
        shutdown: &CancellationToken,
        components: &mut Components,
    ) -> Result<(), Failure> {
        let (client, name) = (self.client("kubelet").await?, self.hostname_override.clone());
        let (dir, stop) = (self.cni_conf_dir.clone(), shutdown.clone());
        components.spawn(async move {
            let result = tokio::select! {
                result = keep_cni_config(client, &name, &dir) => result,
                () = stop.cancelled() => Ok(()),
            };
            ("CNI configuration", result)
        });

        let mut config = keelson_proxy::Config::new(self.hostname_override.clone(), self.node_ip);
        config.cluster_cidr = Some(self.cluster_cidr);
        config.service_cidr = Some(self.service_cluster_ip_range);
        let (client, stop) = (self.client("proxy").await?, shutdown.clone());
        components.spawn(async move {
            ("service proxy", keelson_proxy::run(client, config, stop).await.map_err(Failure::from))
        });

        let mut config = keelson_dns::Config::new(self.hostname_override.clone(), self.node_ip);
        config.cluster_domain.clone_from(&kubelet.cluster_domain);
        if let Some(IpAddr::V4(dns)) = kubelet.cluster_dns.first() {
            config.service_ip = *dns;
        }
        let (client, stop) = (self.client("dns").await?, shutdown.clone());
        components
            .spawn(async move { ("cluster DNS", keelson_dns::run(client, config, stop).await.map_err(Failure::from)) });
        Ok(())
    }

    async fn client(&self, identity: &str) -> Result<kube::Client, Failure> {
        let path = match identity {
            "kubelet" => self.kubelet_kubeconfig(),
            _ => self.data_dir.join(format!("{identity}.kubeconfig")),
        };
        let program = match identity {
            "kubelet" => "kubelet",
            "proxy" => "kube-proxy",
            _ => "keelson",
        };
        Ok(keelson_client::connect::from_kubeconfig_of(&path, program).await?)
    }
}

/// `name=value`
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Writes the CNI configuration whenever the node's pod CIDR comes or changes. Never ends well.
async fn keep_cni_config(client: kube::Client, name: &str, dir: &Path) -> Result<(), Failure> {
    let mut written = None;
    let only_this = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let nodes = watcher(kube::Api::<Node>::all(client), only_this).default_backoff().applied_objects();
    let mut nodes = std::pin::pin!(nodes);
    loop {
        match nodes.try_next().await {
            Ok(Some(node)) => {
                let cidr = node.spec.and_then(|spec| spec.pod_cidr).and_then(|cidr| cidr.parse::<Ipv4Net>().ok());
                if let Some(cidr) = cidr.filter(|cidr| written != Some(*cidr)) {
                    write_cni_config(dir, cidr)?;
                    written = Some(cidr);
                }
            }
            Ok(None) => return Err("the watch of the node ended".into()),
            Err(error) => {
                tracing::debug!(%error, "cannot watch the node");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn write_cni_config(dir: &Path, cidr: Ipv4Net) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("writing the CNI configuration in {}: {error}", dir.display());
    let (path, new) = (dir.join("10-keelson.conflist"), dir.join(".10-keelson.new"));
    let text = keelson_cni::conflist(cidr, &keelson_cni::ConflistOptions::default());
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(&new, text).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    tracing::info!(%cidr, "pod network configured");
    Ok(())
}
