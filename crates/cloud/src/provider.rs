//! What a provider does for Services of type LoadBalancer.

use std::net::IpAddr;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

/// What is to be published: everything a provider needs to know of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// `namespace/name`
    pub key: String,
    pub cluster_ip: IpAddr,
    /// `spec.loadBalancerIP`, when the user asks for one.
    pub wanted_ip: Option<IpAddr>,
    pub ports: Vec<Port>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`
    pub protocol: String,
    pub port: u16,
}

/// Why a provider cannot do it. The message is shown to the user in an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub String);

/// Load balancers of one place.
#[async_trait]
pub trait LoadBalancers: Send + Sync + 'static {
    /// Publishes `service`, or brings what is published up to date. Idempotent.
    async fn ensure(&self, service: &Balanced) -> Result<core::LoadBalancerStatus, ProviderError>;

    /// Takes back everything that was published for `key`. Idempotent.
    async fn ensure_deleted(&self, key: &str) -> Result<(), ProviderError>;
}
