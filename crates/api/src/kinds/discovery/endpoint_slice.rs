//! EndpointSlice

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &Plain)
}
