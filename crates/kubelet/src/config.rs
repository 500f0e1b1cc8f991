//! What a kubelet needs to know, with upstream's names (`KubeletConfiguration` and kubelet flags) and defaults. Only
//! [`load`] reads files, those it is told; nothing here reads argv or the environment.

mod duration;
pub(crate) mod file;
pub mod load;
mod unsupported;

pub(crate) use duration::format as go_duration;
pub use file::{MemoryReservation, ShutdownGracePeriodByPodPriority};

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::eviction::signal::{Signal, Thresholds};
use crate::images::policy;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The kubelet's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object's name.
    pub node_name: String,
    /// The node's InternalIP; also `status.hostIP` of its pods.
    pub node_ip: IpAddr,
    /// The node's Hostname address and `kubernetes.io/hostname` label; `node_name` when unset.
    pub hostname_override: Option<String>,
    /// CRI endpoint: `unix:///path` or a path.
    pub container_runtime_endpoint: String,
    /// Volumes, pod directories and checkpoints.
    pub root_dir: PathBuf,
    /// Container logs: `<pod_logs_dir>/<ns>_<name>_<uid>/<container>/<restart>.log`.
    pub pod_logs_dir: PathBuf,
    /// Links `<pod>_<ns>_<container>-<id>.log` to the logs, for log shippers.
    pub container_logs_dir: PathBuf,
    /// DNS servers for `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The node's own resolver configuration, for `dnsPolicy: Default` and as the base of `ClusterFirst`.
    pub resolv_conf: PathBuf,
    /// Files of static pods: a directory (made when it is not there) or one file.
    pub static_pod_path: Option<PathBuf>,
    /// Pods this node takes.
    pub max_pods: u32,
    /// Processes per pod, or unlimited.
    pub pod_pids_limit: Option<u64>,
    /// Parent of `kubepods` in every cgroup hierarchy, such as `/` or `/keelson/demo/node-1`. The driver is cgroupfs.
    pub cgroup_root: String,
    /// Where the cgroup hierarchies are mounted.
    pub cgroup_mount: PathBuf,
    /// Whether QoS and pod cgroups are made (`cgroupsPerQOS`).
    pub cgroups_per_qos: bool,
    /// Whether CPU limits become CFS quota.
    pub cpu_cfs_quota: bool,
    /// Address of the HTTPS server.
    pub address: IpAddr,
    /// Port of the HTTPS server; 0 takes a free one.
    pub port: u16,
    /// PEM serving certificate chain. With no certificate a self-signed one is made under `root_dir/pki`.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM private key of `tls_cert_file`.
    pub tls_private_key_file: Option<PathBuf>,
    /// Whether the serving certificate is asked for by CertificateSigningRequest; it goes before `tls_cert_file`.
    pub server_tls_bootstrap: bool,
    /// Whether the client certificate is replaced before it runs out. Whoever makes the kubelet's client heeds it.
    pub rotate_certificates: bool,
    /// Where certificates that were asked for are kept (`--cert-dir`); `root_dir/pki` when unset.
    pub cert_dir: Option<PathBuf>,
    /// PEM bundle that signs client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// How long an accepted bearer token is remembered.
    pub authentication_webhook_cache_ttl: Duration,
    /// How long "allowed" is remembered.
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long "denied" is remembered.
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Labels put on the Node.
    pub node_labels: BTreeMap<String, String>,
    /// Taints the Node is registered with.
    pub register_with_taints: Vec<Taint>,
    /// Whether the Node object is made when it is not there.
    pub register_node: bool,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// Resources kept for Kubernetes' own processes.
    pub kube_reserved: BTreeMap<String, Quantity>,
    /// Resources kept for the system.
    pub system_reserved: BTreeMap<String, Quantity>,
    /// Capacity reported instead of the machine's (`cpu`, `memory`, `ephemeral-storage`), for nodes that are a part of it.
    pub capacity_override: BTreeMap<String, Quantity>,
    /// Hard eviction thresholds.
    pub eviction_hard: Thresholds,
    /// Soft eviction thresholds, each of which has an `eviction_soft_grace_period`.
    pub eviction_soft: Thresholds,
    /// How long a soft threshold must be met.
    pub eviction_soft_grace_period: BTreeMap<Signal, Duration>,
    /// How much more than its threshold must be there before reclaiming ends.
    pub eviction_minimum_reclaim: Thresholds,
    /// The longest grace of pods that a soft threshold evicts, seconds.
    pub eviction_max_pod_grace_period_seconds: u64,
    /// How often the thresholds are looked at; no field of upstream's.
    pub eviction_monitoring_interval: Duration,
    /// Images are removed when the image filesystem is this full, percent; 100 for never.
    pub image_gc_high_threshold_percent: u8,
    /// Until it is this full.
    pub image_gc_low_threshold_percent: u8,
    /// Unused images younger than this are not removed for space.
    pub image_minimum_gc_age: Duration,
    /// Unused images older than this are removed.
    pub image_maximum_gc_age: Option<Duration>,
    /// How long a pressure condition outlives its cause.
    pub eviction_pressure_transition_period: Duration,
    /// Longest time between two syncs of a pod.
    pub sync_frequency: Duration,
    /// How often node status is computed.
    pub node_status_update_frequency: Duration,
    /// How often node status is sent although nothing changed.
    pub node_status_report_frequency: Duration,
    /// The heartbeat Lease's duration; it is renewed every quarter of it.
    pub node_lease_duration: Duration,
    /// A log file is rotated at this size, in bytes.
    pub container_log_max_size_bytes: u64,
    /// Log files kept per container, the current one included.
    pub container_log_max_files: u32,
    /// How often log sizes are looked at.
    pub container_log_monitor_interval: Duration,
    /// Longest time without progress of an image pull; CRI has no progress, so it bounds the whole pull.
    pub image_pull_deadline: Duration,
    /// Images pulled at the same time.
    pub max_parallel_image_pulls: usize,
    /// When a pod that names a present image must have credentials for it; upstream's words.
    pub image_pull_credentials_verification_policy: String,
    /// Images for all under `NeverVerifyAllowlistedImages`: repositories, or `<registry>[/<path>]/*`.
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// CRI calls other than pulls and execs.
    pub runtime_request_timeout: Duration,
    /// Longest CrashLoopBackOff.
    pub max_container_restart_period: Duration,
    /// Whether the HTTPS server is served at all.
    pub enable_server: bool,
    /// Whether `exec`, `attach`, `portForward`, `containerLogs`, `logs` and `runningpods` are served.
    pub enable_debugging_handlers: bool,
    /// Whether `/logs/` is served.
    pub enable_system_log_handler: bool,
    /// Whether `/logs/?query=` is answered; needs the gate `NodeLogQuery`.
    pub enable_system_log_query: bool,
    /// What `/logs/` shows.
    pub system_log_dir: PathBuf,
    /// Where `/healthz` is served without TLS or credentials.
    pub healthz_bind_address: IpAddr,
    /// Its port; 0 for nowhere.
    pub healthz_port: u16,
    /// Whether bearer tokens are reviewed (`authentication.webhook.enabled`); without, only client certificates count.
    pub authentication_webhook: bool,
    /// Least TLS version of the HTTPS server: 1.3 instead of 1.2.
    pub tls_min_version_13: bool,
    /// Unsafe sysctls that pods may set all the same; a `*` at the end stands for anything.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether containers that name no seccomp profile get the runtime's.
    pub seccomp_default: bool,
    /// Whether a kubelet on a machine with swap refuses to start. (Upstream's default is to refuse.)
    pub fail_swap_on: bool,
    /// What containers may do with swap: `NoSwap` or `LimitedSwap` (`memorySwap.swapBehavior`).
    pub swap_behavior: String,
    /// Whether a kubelet on cgroup v1 refuses to start. (Upstream's default is to refuse, since v1.35.)
    pub fail_cgroup_v1: bool,
    /// Images named in the node's status, the largest first; -1 for all.
    pub node_status_max_images: i32,
    /// Who gets CPUs for itself (`none`, `static`), and how.
    pub cpu_manager_policy: String,
    /// Options of the static policy, by name.
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    /// How often running containers' CPUs are looked at although nothing changed.
    pub cpu_manager_reconcile_period: Duration,
    /// Who gets memory of NUMA nodes for itself (`None`, `Static`).
    pub memory_manager_policy: String,
    /// How CPUs, memory and devices of a container are to lie together (`none`, `best-effort`, `restricted`,
    /// `single-numa-node`).
    pub topology_manager_policy: String,
    /// Whether that is meant for each `container` or for a `pod` as a whole.
    pub topology_manager_scope: String,
    /// Options of that policy, by name.
    pub topology_manager_policy_options: BTreeMap<String, String>,
    /// CPUs that nobody gets for itself, such as `0-1`; goes before what is reserved of CPU by amount.
    pub reserved_system_cpus: String,
    /// What the system keeps of each NUMA node's memory.
    pub reserved_memory: Vec<MemoryReservation>,
    /// How long an exec, attach or port-forward may be still before it is closed.
    pub streaming_connection_idle_timeout: Duration,
    /// How long a shutdown of the machine waits for pods; zero for not at all.
    pub shutdown_grace_period: Duration,
    /// How much of that is for critical pods, which end last.
    pub shutdown_grace_period_critical_pods: Duration,
    /// The same by ranges of priority, in place of the two.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriodByPodPriority>,
    /// The bus on which logind is (D-Bus's form, such as `unix:path=/run/bus`); the system's when unset.
    pub dbus_address: Option<String>,
    /// Where files are that add to logind's configuration.
    pub logind_config_dir: PathBuf,
    /// Set feature gates; those that are not named here are as upstream's v1.35 has them.
    pub feature_gates: BTreeMap<String, bool>,
}

impl Config {
    /// Upstream's defaults for a node of this name, with our runtime.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Self {
        Config {
            node_name: node_name.into(),
            node_ip,
            hostname_override: None,
            container_runtime_endpoint: "unix:///run/keelson/runtime.sock".into(),
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: "/var/log/containers".into(),
            cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            static_pod_path: None,
            max_pods: 110,
            pod_pids_limit: None,
            cgroup_root: "/".into(),
            cgroup_mount: "/sys/fs/cgroup".into(),
            cgroups_per_qos: true,
            cpu_cfs_quota: true,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 10250,
            tls_cert_file: None,
            tls_private_key_file: None,
            server_tls_bootstrap: false,
            rotate_certificates: false,
            cert_dir: None,
            client_ca_file: None,
            authentication_webhook_cache_ttl: Duration::from_secs(120),
            authorization_webhook_cache_authorized_ttl: Duration::from_secs(300),
            authorization_webhook_cache_unauthorized_ttl: Duration::from_secs(30),
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            register_node: true,
            provider_id: None,
            kube_reserved: BTreeMap::new(),
            system_reserved: BTreeMap::new(),
            capacity_override: BTreeMap::new(),
            eviction_hard: crate::eviction::signal::default_hard(),
            eviction_soft: Thresholds::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_minimum_reclaim: Thresholds::new(),
            eviction_max_pod_grace_period_seconds: 0,
            eviction_monitoring_interval: Duration::from_secs(10),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: None,
            eviction_pressure_transition_period: Duration::from_secs(300),
            sync_frequency: Duration::from_secs(60),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
            container_log_max_size_bytes: 10 << 20,
            container_log_max_files: 5,
            container_log_monitor_interval: Duration::from_secs(10),
            image_pull_deadline: Duration::from_secs(30 * 60),
            max_parallel_image_pulls: 8,
            image_pull_credentials_verification_policy: policy::PRELOADED.into(),
            preloaded_images_verification_allowlist: Vec::new(),
            runtime_request_timeout: Duration::from_secs(120),
            max_container_restart_period: Duration::from_secs(300),
            enable_server: true,
            enable_debugging_handlers: true,
            enable_system_log_handler: true,
            enable_system_log_query: false,
            system_log_dir: "/var/log".into(),
            healthz_bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            healthz_port: 10248,
            authentication_webhook: true,
            tls_min_version_13: false,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            fail_swap_on: false,
            swap_behavior: "NoSwap".into(),
            fail_cgroup_v1: false,
            node_status_max_images: 50,
            cpu_manager_policy: "none".into(),
            cpu_manager_policy_options: BTreeMap::new(),
            cpu_manager_reconcile_period: Duration::from_secs(10),
            memory_manager_policy: "None".into(),
            topology_manager_policy: "none".into(),
            topology_manager_scope: "container".into(),
            topology_manager_policy_options: BTreeMap::new(),
            reserved_system_cpus: String::new(),
            reserved_memory: Vec::new(),
            streaming_connection_idle_timeout: Duration::from_secs(4 * 60 * 60),
            shutdown_grace_period: Duration::ZERO,
            shutdown_grace_period_critical_pods: Duration::ZERO,
            shutdown_grace_period_by_pod_priority: Vec::new(),
            dbus_address: None,
            logind_config_dir: "/etc/systemd/logind.conf.d".into(),
            feature_gates: BTreeMap::new(),
        }
    }

    /// Where certificates that were asked for are kept.
    pub fn cert_dir(&self) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| self.root_dir.join("pki"))
    }

    /// Whether a feature gate of those that this kubelet knows is on.
    pub fn enabled(&self, gate: &str) -> bool {
        let known = file::GATES.iter().find(|(name, _)| *name == gate);
        self.feature_gates.get(gate).copied().or(known.map(|(_, default)| *default)).unwrap_or(false)
    }

    /// The name under which this node is reached.
    pub fn hostname(&self) -> &str {
        self.hostname_override.as_deref().unwrap_or(&self.node_name)
    }
}
