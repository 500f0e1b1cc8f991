//! Settings of the name service.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Whether pods have names made from their addresses (CoreDNS' `pods`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodMode {
    /// They have none.
    Disabled,
    /// Any address in an existing namespace is answered, without looking whether there is such a pod.
    Insecure,
    /// Only addresses of pods of that namespace. Watches all pods.
    Verified,
}

/// Settings of the name service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node_name: String,
    /// The node's InternalIP, on which to listen.
    pub node_ip: Ipv4Addr,
    /// Port to listen on, UDP and TCP; 0 takes any that is free.
    pub port: u16,
    /// `--cluster-domain`.
    pub cluster_domain: String,
    /// Cluster IP of the Service `kube-system/kube-dns`.
    pub service_ip: Ipv4Addr,
    /// Seconds that answers may be cached.
    pub ttl: u32,
    /// Names of pods.
    pub pods: PodMode,
    /// Servers for names outside the cluster, in order of preference. Without any, such questions are refused.
    pub upstreams: Vec<SocketAddr>,
    /// Network namespace to listen in (and to ask upstream servers from); that of the calling thread when absent.
    pub netns: Option<PathBuf>,
}

impl Config {
    /// The defaults: kubeadm's domain, service address and CoreDNS settings, port 10053.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            port: 10_053,
            cluster_domain: "cluster.local".to_owned(),
            service_ip: Ipv4Addr::new(10, 96, 0, 10),
            ttl: 30,
            pods: PodMode::Insecure,
            upstreams: Vec::new(),
            netns: None,
        }
    }
}
