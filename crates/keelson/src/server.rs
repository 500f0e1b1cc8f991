//! `keelson server`: the whole control plane in one process. The API server owns the store; controller manager, scheduler
//! and cloud controller manager are its clients, each as its own user, without a socket between.

mod flags;
pub(crate) mod storage;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use keelson_apiserver::{
    ApiServer, Authentication, Config, Identity, KubeletClient, Pem, RequestHeader, ServiceAccountKeys, UserInfo,
};
use keelson_client::InformerFactory;
use keelson_controllers::Hidden;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Failure;
use crate::signals;

/// How long components get to end, beyond what the API server grants its clients.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// `keelson server`
#[derive(Args)]
pub(crate) struct Server {
    /// Holds `pki/` (as kubeadm names its files) and `store/`
    #[arg(long, default_value = "/var/lib/keelson/server")]
    data_dir: PathBuf,
    /// The address at which other nodes and pods reach the API server
    #[arg(long)]
    advertise_address: Ipv4Addr,
    /// The port of the API server on the advertise address
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// The port of the metrics.k8s.io server on the advertise address, the same on every server
    #[arg(long, default_value_t = 10249)]
    metrics_port: u16,
    /// Cluster IPs of Services come from here
    #[arg(long, default_value = "10.96.0.0/12")]
    service_cluster_ip_range: Ipv4Net,
    /// Pods' addresses come from here
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: Ipv4Net,
    /// Publish Services of type LoadBalancer on loopback in this network namespace (a file)
    #[arg(long)]
    publish_netns: Option<PathBuf>,
    #[command(flatten)]
    api: flags::ApiServerFlags,
    #[command(flatten)]
    storage: storage::StorageFlags,
    /// Signs CertificateSigningRequests that are approved [default: `pki/ca.crt` in the data directory]
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key [default: `pki/ca.key`; without it nothing is signed]
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// The longest life of certificates that are signed
    #[arg(long, default_value = "8760h", value_parser = flags::duration)]
    cluster_signing_duration: Duration,
    /// Also serve on the listening socket that is standard input
    #[arg(long)]
    listen_on_stdin: bool,
}

impl Server {
    /// Runs until SIGTERM or SIGINT.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        keelson_client::connect::install_crypto();
        let shutdown = CancellationToken::new();
        let mut listeners = Vec::new();
        if self.listen_on_stdin {
            listeners.push(TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?));
        }
        let address = SocketAddr::from((self.advertise_address, self.secure_port));
        listeners.push(TcpListener::bind(address).map_err(|e| format!("listening on {address}: {e}"))?);

        let store_dir = self.data_dir.join("store");
        let store = self.storage.open(store_dir).await?;
        let shared = store.is_shared();
        let config = self.api_config()?;
        let signing_key = config.service_account.as_ref().map(|keys| keys.signing_key.load()).transpose()?;
        let signing_key = Hidden(String::from_utf8(signing_key.unwrap_or_default())?);
        let api = ApiServer::new(config, store).await?;

        let mut components: JoinSet<(&str, Result<(), Failure>)> = JoinSet::new();
        for listener in listeners {
            let (api, stop) = (api.clone(), shutdown.clone());
            components.spawn(async move { ("API server", api.serve(listener, stop).await.map_err(Failure::from)) });
        }
        let controllers = self.controllers_config(self.identity(shared)?, signing_key)?;
        self.start_controllers(&api, controllers, &shutdown, &mut components);
        tracing::info!(%address, "control plane is up");

        let mut result = Ok(());
        tokio::select! {
            () = signals::terminated() => {}
            Some(ended) = components.join_next() => result = Err(why(ended)),
        }
        shutdown.cancel();
        let rest = async { while components.join_next().await.is_some() {} };
        if tokio::time::timeout(api.longest_shutdown() + STOP_GRACE, rest).await.is_err() {
            tracing::warn!("some components did not end in time");
        }
        result
    }

    /// What signs CertificateSigningRequests; nothing where the cluster's key is kept elsewhere.
    fn signing(&self) -> Result<(String, Hidden), Failure> {
        let file = |given: &Option<PathBuf>, usual: &str| given.clone().unwrap_or_else(|| self.pki(usual));
        let key = file(&self.cluster_signing_key_file, "ca.key");
        if self.cluster_signing_key_file.is_none() && !key.exists() {
            return Ok(Default::default());
        }
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path).map_err(|e| Failure::from(format!("{}: {e}", path.display())))
        };
        Ok((read(file(&self.cluster_signing_cert_file, "ca.crt"))?, Hidden(read(key)?)))
    }

    fn controllers_config(
        &self,
        identity: String,
        service_account_private_key_pem: Hidden,
    ) -> Result<keelson_controllers::Config, Failure> {
        let (cluster_signing_cert_pem, cluster_signing_key_pem) = self.signing()?;
        Ok(keelson_controllers::Config {
            identity,
            root_ca_pem: std::fs::read_to_string(self.pki("ca.crt"))?,
            cluster_signing_cert_pem,
            cluster_signing_key_pem,
            cluster_signing_duration: self.cluster_signing_duration,
            service_account_private_key_pem,
            allocate_node_cidrs: true,
            cluster_cidrs: vec![IpNet::V4(self.cluster_cidr)],
            service_cidrs: vec![IpNet::V4(self.service_cluster_ip_range)],
            ..keelson_controllers::Config::default()
        })
    }

    fn start_controllers(
        &self,
        api: &ApiServer,
        config: keelson_controllers::Config,
        shutdown: &CancellationToken,
        components: &mut JoinSet<(&'static str, Result<(), Failure>)>,
    ) {
        let user = |program: &'static str| {
            api.kube_client_of(UserInfo::new(format!("system:{program}"), Vec::<String>::new()), program)
        };
        let identity = config.identity.clone();

        let (client, stop) = (user("kube-controller-manager"), shutdown.clone());
        components.spawn(async move {
            ("controller manager", keelson_controllers::run(client, config, stop).await.map_err(Failure::from))
        });

        let config = keelson_scheduler::Config {
            leader_election_identity: Some(identity.clone()),
            ..keelson_scheduler::Config::default()
        };
        let (client, stop) = (user("kube-scheduler"), shutdown.clone());
        components.spawn(async move {
            let informers = InformerFactory::new(client.clone());
            ("scheduler", keelson_scheduler::run(client, informers, config, stop).await.map_err(Failure::from))
        });

        if let Some(config) = self.metrics_config() {
            let (client, stop) = (user("keelson-metrics"), shutdown.clone());
            components.spawn(async move {
                ("metrics server", keelson_metrics::run(client, config, stop).await.map_err(Failure::from))
            });
        }

        if let Some(netns) = &self.publish_netns {
            let provider = Arc::new(keelson_cloud::local::Local::new(Some(netns.clone())));
            let config = keelson_cloud::Config { leader_election_identity: Some(identity) };
            let (client, stop) = (user("cloud-controller-manager"), shutdown.clone());
            components.spawn(async move {
                let informers = InformerFactory::new(client.clone());
                keelson_cloud::run(client, informers, config, provider, stop).await;
                ("cloud controller manager", Ok(()))
            });
        }
    }

    /// What the metrics server needs; a data directory without its certificate, or without a front proxy's, does without it.
    fn metrics_config(&self) -> Option<keelson_metrics::Config> {
        let pair = |name: &str| (self.pki(&format!("{name}.crt")), self.pki(&format!("{name}.key")));
        let config = keelson_metrics::Config {
            address: SocketAddr::from((self.advertise_address, self.metrics_port)),
            serving: pair("metrics-server"),
            serving_ca: self.pki("ca.crt"),
            front_proxy_ca: self.pki("front-proxy-ca.crt"),
            kubelet_client: pair("apiserver-kubelet-client"),
            kubelet_ca: self.pki("ca.crt"),
        };
        [&config.serving.0, &config.front_proxy_ca].iter().all(|file| file.exists()).then_some(config)
    }

    /// By what name the controllers hold their leases. Who holds the lock of a store of his own takes them again at once after
    /// a crash; on a shared store every process is another.
    fn identity(&self, shared: bool) -> Result<String, Failure> {
        let address = self.advertise_address;
        if !shared {
            return Ok(format!("{address}_keelson-server"));
        }
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        Ok(format!("{address}_{}", uuid.trim()))
    }

    fn pki(&self, file: &str) -> PathBuf {
        self.data_dir.join("pki").join(file)
    }

    fn api_config(&self) -> Result<Config, Failure> {
        let pem = |file: &str| Pem::from(self.pki(file));
        let pair = |name: &str| Identity { certificate: pem(&format!("{name}.crt")), key: pem(&format!("{name}.key")) };
        // A data directory of `keelson up` has them; another may do without aggregated servers.
        let is_there = |file: &str| self.pki(file).exists();
        let front_proxy = is_there("front-proxy-ca.crt")
            .then(|| RequestHeader::usual(pem("front-proxy-ca.crt"), vec!["front-proxy-client".into()]));
        let mut config = Config {
            serving: Some(pair("apiserver")),
            client_ca: Some(pem("ca.crt")),
            service_account: Some(ServiceAccountKeys::new(
                pem("sa.key"),
                vec![pem("sa.pub")],
                "https://kubernetes.default.svc.cluster.local",
            )),
            kubelet: Some(KubeletClient { identity: pair("apiserver-kubelet-client"), ca: pem("ca.crt") }),
            service_cidr: IpNet::V4(self.service_cluster_ip_range),
            authentication: Authentication { request_header: front_proxy, ..Authentication::default() },
            proxy_client: is_there("front-proxy-client.crt").then(|| pair("front-proxy-client")),
            advertise_address: self.advertise_address.into(),
            advertise_port: self.secure_port,
            hostname: Some(nix::unistd::gethostname()?.to_string_lossy().into_owned()),
            compaction_interval: self.storage.compaction_interval(),
            encryption: Some(self.storage.encryption(&self.data_dir.join("pki"))?),
            ..Config::default()
        };
        self.api.apply(&mut config)?;
        Ok(config)
    }
}

fn why(ended: Result<(&str, Result<(), Failure>), tokio::task::JoinError>) -> Failure {
    match ended {
        Ok((name, Ok(()))) => format!("{name} ended").into(),
        Ok((name, Err(error))) => format!("{name}: {error}").into(),
        Err(error) => error.into(),
    }
}
