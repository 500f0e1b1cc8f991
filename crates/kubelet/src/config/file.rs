//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): every field that acts here, from the file into [`Config`] and
//! from there to `/configz`. To add a field: one line each in the struct, in [`KubeletConfiguration::apply`] and in
//! [`KubeletConfiguration::of`], and take its name out of `unsupported.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::Config;
use super::duration::GoDuration;
use crate::eviction::signal::{Thresholds, default_hard};
use crate::images::policy;
use crate::quantity;

/// Feature gates that change something here, with upstream's default.
pub(crate) const GATES: &[(&str, bool)] = &[
    ("NodeLogQuery", false),
    ("CPUManagerPolicyAlphaOptions", false),
    ("CPUManagerPolicyBetaOptions", true),
    (policy::GATE, true),
    ("GitRepoVolumeDriver", false),
    ("GracefulNodeShutdown", true),
    ("GracefulNodeShutdownBasedOnPodPriority", true),
];

/// The file's form. What is not there stays as it was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubeletConfiguration {
    enable_server: Option<bool>,
    static_pod_path: Option<String>,
    pod_logs_dir: Option<String>,
    sync_frequency: Option<GoDuration>,
    address: Option<IpAddr>,
    port: Option<u16>,
    tls_cert_file: Option<String>,
    tls_private_key_file: Option<String>,
    tls_min_version: Option<String>,
    rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: Option<bool>,
    authentication: Option<Authentication>,
    authorization: Option<Authorization>,
    enable_debugging_handlers: Option<bool>,
    healthz_port: Option<u16>,
    healthz_bind_address: Option<IpAddr>,
    cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Option<Vec<IpAddr>>,
    node_status_update_frequency: Option<GoDuration>,
    node_status_report_frequency: Option<GoDuration>,
    node_lease_duration_seconds: Option<i32>,
    cgroup_root: Option<String>,
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: Option<bool>,
    cgroup_driver: Option<String>,
    runtime_request_timeout: Option<GoDuration>,
    max_pods: Option<u32>,
    pod_pids_limit: Option<i64>,
    resolv_conf: Option<String>,
    #[serde(rename = "cpuCFSQuota")]
    cpu_cfs_quota: Option<bool>,
    node_status_max_images: Option<i32>,
    serialize_image_pulls: Option<bool>,
    max_parallel_image_pulls: Option<i32>,
    image_pull_credentials_verification_policy: Option<String>,
    preloaded_images_verification_allowlist: Option<Vec<String>>,
    eviction_hard: Option<BTreeMap<String, String>>,
    eviction_soft: Option<BTreeMap<String, String>>,
    eviction_soft_grace_period: Option<BTreeMap<String, GoDuration>>,
    eviction_minimum_reclaim: Option<BTreeMap<String, String>>,
    eviction_max_pod_grace_period: Option<i32>,
    merge_default_eviction_settings: Option<bool>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<i32>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<i32>,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Option<GoDuration>,
    #[serde(rename = "imageMaximumGCAge")]
    image_maximum_gc_age: Option<GoDuration>,
    eviction_pressure_transition_period: Option<GoDuration>,
    feature_gates: Option<BTreeMap<String, bool>>,
    fail_swap_on: Option<bool>,
    memory_swap: Option<MemorySwap>,
    fail_cgroup_v1: Option<bool>,
    container_log_max_size: Option<Quantity>,
    container_log_max_files: Option<u32>,
    container_log_monitor_interval: Option<GoDuration>,
    system_reserved: Option<BTreeMap<String, Quantity>>,
    kube_reserved: Option<BTreeMap<String, Quantity>>,
    allowed_unsafe_sysctls: Option<Vec<String>>,
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    enable_system_log_handler: Option<bool>,
    enable_system_log_query: Option<bool>,
    crash_loop_back_off: Option<CrashLoopBackOff>,
    seccomp_default: Option<bool>,
    register_with_taints: Option<Vec<Taint>>,
    register_node: Option<bool>,
    container_runtime_endpoint: Option<String>,
    cpu_manager_policy: Option<String>,
    cpu_manager_policy_options: Option<BTreeMap<String, String>>,
    cpu_manager_reconcile_period: Option<GoDuration>,
    memory_manager_policy: Option<String>,
    topology_manager_policy: Option<String>,
    topology_manager_scope: Option<String>,
    topology_manager_policy_options: Option<BTreeMap<String, String>>,
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: Option<String>,
    reserved_memory: Option<Vec<MemoryReservation>>,
    streaming_connection_idle_timeout: Option<GoDuration>,
    shutdown_grace_period: Option<GoDuration>,
    shutdown_grace_period_critical_pods: Option<GoDuration>,
    shutdown_grace_period_by_pod_priority: Option<Vec<ShutdownGracePeriodByPodPriority>>,
}

/// An entry of `shutdownGracePeriodByPodPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownGracePeriodByPodPriority {
    /// The least priority of the pods it is about.
    pub priority: i32,
    /// What they have to end, seconds.
    pub shutdown_grace_period_seconds: i64,
}

/// An entry of `reservedMemory`: what the system keeps of a NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryReservation {
    /// The node's number.
    pub numa_node: i32,
    /// Bytes by resource: `memory`, `hugepages-2Mi`.
    pub limits: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    x509: Option<X509>,
    webhook: Option<WebhookAuthentication>,
    anonymous: Option<Anonymous>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WebhookAuthentication {
    enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    cache_ttl: Option<GoDuration>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Anonymous {
    enabled: Option<bool>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Authorization {
    mode: Option<String>,
    webhook: Option<WebhookAuthorization>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    cache_authorized_ttl: Option<GoDuration>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    cache_unauthorized_ttl: Option<GoDuration>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MemorySwap {
    swap_behavior: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CrashLoopBackOff {
    max_container_restart_period: Option<GoDuration>,
}

/// Puts a value that is there where it belongs.
fn put<T>(value: Option<T>, place: &mut T) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The same for durations, of which zero is none.
fn put_time(value: Option<GoDuration>, place: &mut std::time::Duration) {
    put(value.map(|value| value.0).filter(|value| !value.is_zero()), place);
}

/// The same for text, of which the empty one is none.
fn put_text<T: From<String>>(value: Option<String>, place: &mut T) {
    put(value.filter(|value| !value.is_empty()).map(T::from), place);
}

impl KubeletConfiguration {
    /// Moves everything into `config`, then looks at the whole. The error names the field.
    pub(super) fn apply(self, config: &mut Config) -> Result<(), String> {
        put(self.enable_server, &mut config.enable_server);
        config.static_pod_path = given(self.static_pod_path).or(config.static_pod_path.take());
        put_text(self.pod_logs_dir, &mut config.pod_logs_dir);
        put_time(self.sync_frequency, &mut config.sync_frequency);
        put(self.address, &mut config.address);
        put(self.port.filter(|port| *port > 0), &mut config.port);
        config.tls_cert_file = given(self.tls_cert_file).or(config.tls_cert_file.take());
        config.tls_private_key_file = given(self.tls_private_key_file).or(config.tls_private_key_file.take());
        put(self.rotate_certificates, &mut config.rotate_certificates);
        put(self.server_tls_bootstrap, &mut config.server_tls_bootstrap);
        match self.tls_min_version.as_deref() {
            None | Some("") => {}
            Some("VersionTLS12") => config.tls_min_version_13 = false,
            Some("VersionTLS13") => config.tls_min_version_13 = true,
            Some(other) => return Err(format!("tlsMinVersion: {other:?} must be VersionTLS12 or VersionTLS13")),
        }
        let authentication = self.authentication.unwrap_or_default();
        if authentication.anonymous.and_then(|anonymous| anonymous.enabled) == Some(true) {
            return Err("authentication.anonymous.enabled: this kubelet serves nobody whom it does not know".into());
        }
        let webhook = authentication.webhook.unwrap_or_default();
        put(webhook.enabled, &mut config.authentication_webhook);
        put_time(webhook.cache_ttl, &mut config.authentication_webhook_cache_ttl);
        let client_ca = given(authentication.x509.and_then(|x509| x509.client_ca_file));
        config.client_ca_file = client_ca.or(config.client_ca_file.take());
        let authorization = self.authorization.unwrap_or_default();
        if let Some(mode) = authorization.mode.filter(|mode| !matches!(mode.as_str(), "" | "Webhook")) {
            return Err(format!("authorization.mode: {mode:?} must be Webhook: authorization cannot be turned off"));
        }
        let webhook = authorization.webhook.unwrap_or_default();
        put_time(webhook.cache_authorized_ttl, &mut config.authorization_webhook_cache_authorized_ttl);
        put_time(webhook.cache_unauthorized_ttl, &mut config.authorization_webhook_cache_unauthorized_ttl);
        put(self.enable_debugging_handlers, &mut config.enable_debugging_handlers);
        put(self.healthz_port, &mut config.healthz_port);
        put(self.healthz_bind_address, &mut config.healthz_bind_address);
        put_text(self.cluster_domain, &mut config.cluster_domain);
        put(self.cluster_dns, &mut config.cluster_dns);
        put_time(self.node_status_update_frequency, &mut config.node_status_update_frequency);
        // Upstream: who sets how often status is computed sets how often it is sent, too.
        let report = self.node_status_report_frequency.filter(|frequency| !frequency.0.is_zero());
        put_time(report.or(self.node_status_update_frequency), &mut config.node_status_report_frequency);
        if let Some(seconds) = self.node_lease_duration_seconds.filter(|seconds| *seconds != 0) {
            let seconds =
                u64::try_from(seconds).map_err(|_| "nodeLeaseDurationSeconds: must be greater than 0".to_string())?;
            config.node_lease_duration = std::time::Duration::from_secs(seconds);
        }
        put_text(self.cgroup_root, &mut config.cgroup_root);
        put(self.cgroups_per_qos, &mut config.cgroups_per_qos);
        if let Some(driver) = self.cgroup_driver.filter(|driver| !matches!(driver.as_str(), "" | "cgroupfs")) {
            return Err(format!("cgroupDriver: {driver:?} is not supported: this kubelet has cgroupfs"));
        }
        put_time(self.runtime_request_timeout, &mut config.runtime_request_timeout);
        put(self.max_pods.filter(|pods| *pods > 0), &mut config.max_pods);
        if let Some(limit) = self.pod_pids_limit {
            config.pod_pids_limit = u64::try_from(limit).ok().filter(|limit| *limit > 0);
        }
        if let Some(path) = self.resolv_conf {
            // Upstream: an empty name stands for an empty file.
            config.resolv_conf = if path.is_empty() { "/dev/null".into() } else { path.into() };
        }
        put(self.cpu_cfs_quota, &mut config.cpu_cfs_quota);
        put(self.node_status_max_images, &mut config.node_status_max_images);
        if config.node_status_max_images < -1 {
            return Err("nodeStatusMaxImages: must be -1 or greater".into());
        }
        match (self.serialize_image_pulls, self.max_parallel_image_pulls) {
            (_, Some(..=0)) => return Err("maxParallelImagePulls: must be a positive number".into()),
            (Some(true), Some(2..)) => {
                return Err("maxParallelImagePulls: cannot be larger than 1 unless serializeImagePulls is false".into());
            }
            (Some(true), _) => config.max_parallel_image_pulls = 1,
            (_, Some(pulls)) => config.max_parallel_image_pulls = pulls as usize,
            (_, None) => {}
        }
        if let Some(given) = &self.eviction_hard {
            // Upstream: who names one threshold names all, unless the defaults are asked for.
            let mut hard =
                if self.merge_default_eviction_settings == Some(true) { default_hard() } else { Thresholds::new() };
            hard.extend(thresholds("evictionHard", given)?);
            config.eviction_hard = hard;
        }
        if let Some(given) = &self.eviction_soft {
            config.eviction_soft = thresholds("evictionSoft", given)?;
        }
        for (signal, period) in self.eviction_soft_grace_period.into_iter().flatten() {
            let known = signal.parse().map_err(|why| format!("evictionSoftGracePeriod.{signal}: {why}"))?;
            config.eviction_soft_grace_period.insert(known, period.0);
        }
        let periods = &config.eviction_soft_grace_period;
        if let Some(signal) = config.eviction_soft.keys().find(|signal| !periods.contains_key(signal)) {
            return Err(format!(
                "evictionSoft.{0}: grace period must be specified for the soft eviction threshold {0}",
                signal.name()
            ));
        }
        if let Some(given) = &self.eviction_minimum_reclaim {
            config.eviction_minimum_reclaim = thresholds("evictionMinimumReclaim", given)?;
        }
        if let Some(seconds) = self.eviction_max_pod_grace_period {
            config.eviction_max_pod_grace_period_seconds =
                u64::try_from(seconds).map_err(|_| "evictionMaxPodGracePeriod: must not be negative".to_string())?;
        }
        let percent = |given: Option<i32>, field: &str, config: &mut u8| match given.map(u8::try_from) {
            None => Ok(()),
            Some(Ok(percent @ 0..=100)) => {
                *config = percent;
                Ok(())
            }
            Some(_) => Err(format!("{field}: must be between 0 and 100, inclusive")),
        };
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        percent(high, "imageGCHighThresholdPercent", &mut config.image_gc_high_threshold_percent)?;
        percent(low, "imageGCLowThresholdPercent", &mut config.image_gc_low_threshold_percent)?;
        if config.image_gc_low_threshold_percent >= config.image_gc_high_threshold_percent {
            return Err("imageGCLowThresholdPercent: must be less than imageGCHighThresholdPercent".into());
        }
        put_time(self.image_minimum_gc_age, &mut config.image_minimum_gc_age);
        if let Some(age) = self.image_maximum_gc_age {
            config.image_maximum_gc_age = Some(age.0).filter(|age| !age.is_zero());
            if config.image_maximum_gc_age.is_some_and(|age| age <= config.image_minimum_gc_age) {
                return Err("imageMaximumGCAge: must be greater than imageMinimumGCAge".into());
            }
        }
        put_time(self.eviction_pressure_transition_period, &mut config.eviction_pressure_transition_period);
        for (gate, on) in self.feature_gates.into_iter().flatten() {
            if !GATES.iter().any(|(known, _)| *known == gate) {
                return Err(format!("featureGates: unrecognized feature gate: {gate}"));
            }
            config.feature_gates.insert(gate, on);
        }
        if let Some(given) = self.image_pull_credentials_verification_policy.filter(|given| !given.is_empty()) {
            const FIELD: &str = "imagePullCredentialsVerificationPolicy";
            if !config.enabled(policy::GATE) {
                return Err(format!("{FIELD}: must not be set if the {} feature gate is not enabled", policy::GATE));
            }
            if !policy::POLICIES.contains(&&*given) {
                return Err(format!("{FIELD}: {given:?} must be one of {:?}", policy::POLICIES));
            }
            config.image_pull_credentials_verification_policy = given;
        }
        put(self.preloaded_images_verification_allowlist, &mut config.preloaded_images_verification_allowlist);
        let (list, allowlisted) = (&config.preloaded_images_verification_allowlist, policy::ALLOWLISTED);
        if !list.is_empty() && config.image_pull_credentials_verification_policy != allowlisted {
            return Err(format!(
                "preloadedImagesVerificationAllowlist: can't be set if imagePullCredentialsVerificationPolicy is not \
                 {allowlisted:?}"
            ));
        }
        for entry in list {
            policy::check_entry(entry).map_err(|why| format!("preloadedImagesVerificationAllowlist: {why}"))?;
        }
        put(self.fail_swap_on, &mut config.fail_swap_on);
        put(self.fail_cgroup_v1, &mut config.fail_cgroup_v1);
        if let Some(given) = self.memory_swap.and_then(|swap| swap.swap_behavior).filter(|given| !given.is_empty()) {
            let known = ["LimitedSwap", "NoSwap"];
            if !known.contains(&&*given) {
                return Err(format!("memorySwap.swapBehavior: {given:?} must be one of {known:?}"));
            }
            config.swap_behavior = given;
        }
        if let Some(size) = self.container_log_max_size {
            config.container_log_max_size_bytes = u64::try_from(quantity::value(&size))
                .ok()
                .filter(|size| *size > 0)
                .ok_or("containerLogMaxSize: must be a quantity greater than 0")?;
        }
        put(self.container_log_max_files, &mut config.container_log_max_files);
        if config.container_log_max_files <= 1 {
            return Err("containerLogMaxFiles: must be greater than 1".into());
        }
        if self.container_log_monitor_interval.is_some_and(|interval| interval.0.as_secs() < 3) {
            return Err("containerLogMonitorInterval: must be greater than or equal to 3s".into());
        }
        put_time(self.container_log_monitor_interval, &mut config.container_log_monitor_interval);
        put(self.system_reserved, &mut config.system_reserved);
        put(self.kube_reserved, &mut config.kube_reserved);
        put(self.allowed_unsafe_sysctls, &mut config.allowed_unsafe_sysctls);
        crate::sysctl::validate_patterns(&config.allowed_unsafe_sysctls)
            .map_err(|why| format!("allowedUnsafeSysctls: {why}"))?;
        config.provider_id = given(self.provider_id).or(config.provider_id.take());
        put(self.enable_system_log_handler, &mut config.enable_system_log_handler);
        put(self.enable_system_log_query, &mut config.enable_system_log_query);
        if config.enable_system_log_query && !config.enabled("NodeLogQuery") {
            return Err("enableSystemLogQuery: NodeLogQuery feature gate is required".into());
        }
        if config.enable_system_log_query && !config.enable_system_log_handler {
            return Err("enableSystemLogQuery: enableSystemLogHandler is required".into());
        }
        if let Some(longest) = self.crash_loop_back_off.and_then(|backoff| backoff.max_container_restart_period) {
            if !(1..=300).contains(&longest.0.as_secs()) {
                return Err("crashLoopBackOff.maxContainerRestartPeriod: must be set between 1s and 300s".into());
            }
            config.max_container_restart_period = longest.0;
        }
        put(self.seccomp_default, &mut config.seccomp_default);
        put(self.register_with_taints, &mut config.register_with_taints);
        put(self.register_node, &mut config.register_node);
        put_text(self.container_runtime_endpoint, &mut config.container_runtime_endpoint);
        let policy = |field: &str, given: Option<String>, known: &[&str], place: &mut String| {
            let given = given.filter(|given| !given.is_empty());
            if let Some(other) = given.as_deref().filter(|given| !known.contains(given)) {
                return Err(format!("{field}: {other:?} must be one of {known:?}"));
            }
            put(given, place);
            Ok(())
        };
        policy("cpuManagerPolicy", self.cpu_manager_policy, &["none", "static"], &mut config.cpu_manager_policy)?;
        put(self.cpu_manager_policy_options, &mut config.cpu_manager_policy_options);
        put_time(self.cpu_manager_reconcile_period, &mut config.cpu_manager_reconcile_period);
        let known = ["None", "Static"];
        policy("memoryManagerPolicy", self.memory_manager_policy, &known, &mut config.memory_manager_policy)?;
        let known = ["none", "best-effort", "restricted", "single-numa-node"];
        policy("topologyManagerPolicy", self.topology_manager_policy, &known, &mut config.topology_manager_policy)?;
        let known = ["container", "pod"];
        policy("topologyManagerScope", self.topology_manager_scope, &known, &mut config.topology_manager_scope)?;
        put(self.topology_manager_policy_options, &mut config.topology_manager_policy_options);
        put(self.reserved_system_cpus, &mut config.reserved_system_cpus);
        put(self.reserved_memory, &mut config.reserved_memory);
        check_reservations(&config.reserved_memory)?;
        put_time(self.streaming_connection_idle_timeout, &mut config.streaming_connection_idle_timeout);
        put_time(self.shutdown_grace_period, &mut config.shutdown_grace_period);
        put_time(self.shutdown_grace_period_critical_pods, &mut config.shutdown_grace_period_critical_pods);
        put(self.shutdown_grace_period_by_pod_priority, &mut config.shutdown_grace_period_by_pod_priority);
        crate::node_shutdown::check(config)?;
        if !config.pod_logs_dir.is_absolute() {
            return Err(format!("podLogsDir: {:?} must be absolute path", config.pod_logs_dir));
        }
        match (&config.tls_cert_file, &config.tls_private_key_file) {
            (Some(_), None) => Err("tlsPrivateKeyFile: is required with tlsCertFile".into()),
            (None, Some(_)) => Err("tlsCertFile: is required with tlsPrivateKeyFile".into()),
            _ => Ok(()),
        }
    }

    /// What `config` says, for `/configz`.
    pub(crate) fn of(config: &Config) -> KubeletConfiguration {
        let time = |duration| Some(GoDuration(duration));
        let path = |path: &std::path::Path| Some(path.to_string_lossy().into_owned());
        KubeletConfiguration {
            enable_server: Some(config.enable_server),
            static_pod_path: config.static_pod_path.as_deref().and_then(path),
            pod_logs_dir: path(&config.pod_logs_dir),
            sync_frequency: time(config.sync_frequency),
            address: Some(config.address),
            port: Some(config.port),
            tls_cert_file: config.tls_cert_file.as_deref().and_then(path),
            tls_private_key_file: config.tls_private_key_file.as_deref().and_then(path),
            tls_min_version: Some(if config.tls_min_version_13 { "VersionTLS13" } else { "VersionTLS12" }.into()),
            rotate_certificates: Some(config.rotate_certificates),
            server_tls_bootstrap: Some(config.server_tls_bootstrap),
            authentication: Some(Authentication {
                x509: Some(X509 { client_ca_file: config.client_ca_file.as_deref().and_then(path) }),
                webhook: Some(WebhookAuthentication {
                    enabled: Some(config.authentication_webhook),
                    cache_ttl: time(config.authentication_webhook_cache_ttl),
                }),
                anonymous: Some(Anonymous { enabled: Some(false) }),
            }),
            authorization: Some(Authorization {
                mode: Some("Webhook".into()),
                webhook: Some(WebhookAuthorization {
                    cache_authorized_ttl: time(config.authorization_webhook_cache_authorized_ttl),
                    cache_unauthorized_ttl: time(config.authorization_webhook_cache_unauthorized_ttl),
                }),
            }),
            enable_debugging_handlers: Some(config.enable_debugging_handlers),
            healthz_port: Some(config.healthz_port),
            healthz_bind_address: Some(config.healthz_bind_address),
            cluster_domain: Some(config.cluster_domain.clone()),
            cluster_dns: Some(config.cluster_dns.clone()),
            node_status_update_frequency: time(config.node_status_update_frequency),
            node_status_report_frequency: time(config.node_status_report_frequency),
            node_lease_duration_seconds: i32::try_from(config.node_lease_duration.as_secs()).ok(),
            cgroup_root: Some(config.cgroup_root.clone()),
            cgroups_per_qos: Some(config.cgroups_per_qos),
            cgroup_driver: Some("cgroupfs".into()),
            runtime_request_timeout: time(config.runtime_request_timeout),
            max_pods: Some(config.max_pods),
            pod_pids_limit: Some(config.pod_pids_limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)),
            resolv_conf: path(&config.resolv_conf),
            cpu_cfs_quota: Some(config.cpu_cfs_quota),
            node_status_max_images: Some(config.node_status_max_images),
            serialize_image_pulls: Some(config.max_parallel_image_pulls == 1),
            max_parallel_image_pulls: i32::try_from(config.max_parallel_image_pulls).ok(),
            image_pull_credentials_verification_policy: config
                .enabled(policy::GATE)
                .then(|| config.image_pull_credentials_verification_policy.clone()),
            preloaded_images_verification_allowlist: Some(config.preloaded_images_verification_allowlist.clone()),
            eviction_hard: amounts(&config.eviction_hard),
            eviction_soft: amounts(&config.eviction_soft),
            eviction_soft_grace_period: Some(
                config
                    .eviction_soft_grace_period
                    .iter()
                    .map(|(signal, period)| (signal.name().to_string(), GoDuration(*period)))
                    .collect(),
            ),
            eviction_minimum_reclaim: amounts(&config.eviction_minimum_reclaim),
            eviction_max_pod_grace_period: i32::try_from(config.eviction_max_pod_grace_period_seconds).ok(),
            merge_default_eviction_settings: Some(false),
            image_gc_high_threshold_percent: Some(config.image_gc_high_threshold_percent.into()),
            image_gc_low_threshold_percent: Some(config.image_gc_low_threshold_percent.into()),
            image_minimum_gc_age: time(config.image_minimum_gc_age),
            image_maximum_gc_age: time(config.image_maximum_gc_age.unwrap_or_default()),
            eviction_pressure_transition_period: time(config.eviction_pressure_transition_period),
            feature_gates: Some(config.feature_gates.clone()),
            fail_swap_on: Some(config.fail_swap_on),
            memory_swap: Some(MemorySwap { swap_behavior: Some(config.swap_behavior.clone()) }),
            fail_cgroup_v1: Some(config.fail_cgroup_v1),
            container_log_max_size: Some(quantity::from_bytes(
                i64::try_from(config.container_log_max_size_bytes).unwrap_or(i64::MAX),
            )),
            container_log_max_files: Some(config.container_log_max_files),
            container_log_monitor_interval: time(config.container_log_monitor_interval),
            system_reserved: Some(config.system_reserved.clone()),
            kube_reserved: Some(config.kube_reserved.clone()),
            allowed_unsafe_sysctls: Some(config.allowed_unsafe_sysctls.clone()),
            provider_id: config.provider_id.clone(),
            enable_system_log_handler: Some(config.enable_system_log_handler),
            enable_system_log_query: Some(config.enable_system_log_query),
            crash_loop_back_off: Some(CrashLoopBackOff {
                max_container_restart_period: time(config.max_container_restart_period),
            }),
            seccomp_default: Some(config.seccomp_default),
            register_with_taints: Some(config.register_with_taints.clone()),
            register_node: Some(config.register_node),
            container_runtime_endpoint: Some(config.container_runtime_endpoint.clone()),
            cpu_manager_policy: Some(config.cpu_manager_policy.clone()),
            cpu_manager_policy_options: Some(config.cpu_manager_policy_options.clone()),
            cpu_manager_reconcile_period: time(config.cpu_manager_reconcile_period),
            memory_manager_policy: Some(config.memory_manager_policy.clone()),
            topology_manager_policy: Some(config.topology_manager_policy.clone()),
            topology_manager_scope: Some(config.topology_manager_scope.clone()),
            topology_manager_policy_options: Some(config.topology_manager_policy_options.clone()),
            reserved_system_cpus: Some(config.reserved_system_cpus.clone()),
            reserved_memory: Some(config.reserved_memory.clone()),
            streaming_connection_idle_timeout: time(config.streaming_connection_idle_timeout),
            shutdown_grace_period: time(config.shutdown_grace_period),
            shutdown_grace_period_critical_pods: time(config.shutdown_grace_period_critical_pods),
            shutdown_grace_period_by_pod_priority: Some(config.shutdown_grace_period_by_pod_priority.clone()),
        }
    }
}

/// Each kind of memory of each node is named once, and is some.
fn check_reservations(reservations: &[MemoryReservation]) -> Result<(), String> {
    let mut known = std::collections::BTreeSet::new();
    for (node, name, amount) in
        reservations.iter().flat_map(|one| one.limits.iter().map(move |(name, amount)| (one.numa_node, name, amount)))
    {
        if !crate::managers::memory::is_memory(name) {
            return Err(format!(
                "reservedMemory: the limit type {name:?} for NUMA node {node} is not supported, only [memory hugepages-<HugePageSize>] is accepted"
            ));
        }
        if !known.insert((node, name)) {
            return Err(format!(
                "reservedMemory: the reserved memory has a duplicate value for NUMA node {node} and resource {name:?}"
            ));
        }
        if quantity::value(amount) <= 0 {
            return Err(format!(
                "reservedMemory: reserved memory may not be zero for NUMA node {node} and resource {name:?}"
            ));
        }
    }
    Ok(())
}

fn given<T: From<String>>(text: Option<String>) -> Option<T> {
    text.filter(|text| !text.is_empty()).map(T::from)
}

fn thresholds(field: &str, given: &BTreeMap<String, String>) -> Result<Thresholds, String> {
    let one = |(signal, amount): (&String, &String)| {
        let parsed = signal.parse().and_then(|signal| amount.parse().map(|amount| (signal, amount)));
        parsed.map_err(|why: String| format!("{field}.{signal}: {why}"))
    };
    given.iter().map(one).collect()
}

fn amounts(thresholds: &Thresholds) -> Option<BTreeMap<String, String>> {
    Some(thresholds.iter().map(|(signal, amount)| (signal.name().to_string(), amount.to_string())).collect())
}
