//! Settings, with upstream's defaults. Names are those of `kube-controller-manager`'s flags.

use std::time::Duration;

use ipnet::IpNet;

/// Settings of the controller manager.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--controllers`: `*` for all, `name` to add, `-name` to leave out.
    pub controllers: Vec<String>,
    /// `--leader-elect`
    pub leader_elect: bool,
    /// Who holds the lease; unique to this process.
    pub identity: String,
    /// `--leader-elect-resource-namespace`, `--leader-elect-resource-name` and the three durations.
    pub leader_election: LeaderElection,
    /// `--root-ca-file`: PEM published as `kube-root-ca.crt` in each namespace. Empty publishes nothing.
    pub root_ca_pem: String,
    /// `--cluster-signing-cert-file` and `--cluster-signing-key-file`, in PEM: what signs CertificateSigningRequests. Empty
    /// signs nothing.
    pub cluster_signing_cert_pem: String,
    pub cluster_signing_key_pem: Hidden,
    /// `--cluster-signing-duration`: the longest life of what is signed.
    pub cluster_signing_duration: Duration,
    /// `--service-account-private-key-file`: PEM that signs tokens in Secrets. Empty signs none.
    pub service_account_private_key_pem: Hidden,
    /// `--allocate-node-cidrs`
    pub allocate_node_cidrs: bool,
    /// `--cluster-cidr`: one network per address family.
    pub cluster_cidrs: Vec<IpNet>,
    /// `--node-cidr-mask-size-ipv4`
    pub node_cidr_mask_size_ipv4: u8,
    /// `--node-cidr-mask-size-ipv6`
    pub node_cidr_mask_size_ipv6: u8,
    /// `--service-cluster-ip-range`: never given to nodes.
    pub service_cidrs: Vec<IpNet>,
    /// `--node-monitor-period`
    pub node_monitor_period: Duration,
    /// `--node-monitor-grace-period`: silence after which a node is unknown.
    pub node_monitor_grace_period: Duration,
    /// `--node-startup-grace-period`: the same for a node that never reported.
    pub node_startup_grace_period: Duration,
    /// `--node-eviction-rate`: nodes per second and zone.
    pub node_eviction_rate: f64,
    /// `--secondary-node-eviction-rate`: the same in a zone where most nodes are down.
    pub secondary_node_eviction_rate: f64,
    /// `--unhealthy-zone-threshold`: fraction of nodes.
    pub unhealthy_zone_threshold: f64,
    /// `--large-cluster-size-threshold`: zones up to this size do not evict at all when most nodes are down.
    pub large_cluster_size_threshold: usize,
    /// `--terminated-pod-gc-threshold`: finished pods that may stay; 0 means all.
    pub terminated_pod_gc_threshold: usize,
    /// `--max-endpoints-per-slice`
    pub max_endpoints_per_slice: usize,
    /// `--concurrent-deployment-syncs`
    pub concurrent_deployment_syncs: usize,
    /// `--concurrent-replicaset-syncs`
    pub concurrent_replicaset_syncs: usize,
    /// `--concurrent-rc-syncs`
    pub concurrent_rc_syncs: usize,
    /// `--concurrent-endpoint-syncs`
    pub concurrent_endpoint_syncs: usize,
    /// `--concurrent-service-endpoint-syncs`
    pub concurrent_service_endpoint_syncs: usize,
    /// `--concurrent-namespace-syncs`
    pub concurrent_namespace_syncs: usize,
    /// `--concurrent-serviceaccount-token-syncs` bounds the service account controllers.
    pub concurrent_serviceaccount_syncs: usize,
    /// `--concurrent-gc-syncs`
    pub concurrent_gc_syncs: usize,
    /// `--concurrent-resource-quota-syncs`
    pub concurrent_resource_quota_syncs: usize,
    /// `--resource-quota-sync-period`: how often a quota is counted anew with nothing to tell of a change.
    pub resource_quota_sync_period: Duration,
}

/// Text that is not to be shown.
#[derive(Clone, Default)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The lease of the controller manager.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    pub resource_namespace: String,
    pub resource_name: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            resource_namespace: "kube-system".into(),
            resource_name: "kube-controller-manager".into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: vec!["*".into()],
            leader_elect: true,
            identity: format!("keelson_{}", uuid::Uuid::new_v4()),
            leader_election: LeaderElection::default(),
            root_ca_pem: String::new(),
            cluster_signing_cert_pem: String::new(),
            cluster_signing_key_pem: Hidden::default(),
            cluster_signing_duration: Duration::from_secs(365 * 24 * 3600),
            service_account_private_key_pem: Hidden::default(),
            allocate_node_cidrs: false,
            cluster_cidrs: Vec::new(),
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            service_cidrs: Vec::new(),
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size_threshold: 50,
            terminated_pod_gc_threshold: 12_500,
            max_endpoints_per_slice: 100,
            concurrent_deployment_syncs: 5,
            concurrent_replicaset_syncs: 5,
            concurrent_rc_syncs: 5,
            concurrent_endpoint_syncs: 5,
            concurrent_service_endpoint_syncs: 5,
            concurrent_namespace_syncs: 10,
            concurrent_serviceaccount_syncs: 5,
            concurrent_gc_syncs: 20,
            concurrent_resource_quota_syncs: 5,
            resource_quota_sync_period: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Whether a controller is to run. As upstream: the name itself decides first, then `*`.
    pub fn is_enabled(&self, name: &str) -> bool {
        let mut all = false;
        for entry in &self.controllers {
            match entry.strip_prefix('-') {
                Some(off) if off == name => return false,
                None if entry == name => return true,
                None if entry == "*" => all = true,
                _ => {}
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name_then_star() {
        let with = |list: &[&str]| Config {
            controllers: list.iter().map(|name| (*name).to_owned()).collect(),
            ..Config::default()
        };
        assert!(with(&["*"]).is_enabled("a"));
        assert!(!with(&["*", "-a"]).is_enabled("a"));
        assert!(with(&["*", "-a"]).is_enabled("b"));
        assert!(with(&["a"]).is_enabled("a"));
        assert!(!with(&["a"]).is_enabled("b"));
        assert!(!with(&[]).is_enabled("a"));
    }
}
