//! `networking.k8s.io/v1`

use crate::kind::Kind;

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;
#[cfg(test)]
mod tests;

const GROUP: &str = "networking.k8s.io";

pub(super) fn all() -> Vec<Kind> {
    vec![ingress_class::kind(), ingress::kind(), ip_address::kind(), network_policy::kind(), service_cidr::kind()]
}
