//! Lease

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("coordination.k8s.io", "v1", "Lease", "leases", &Plain)
}
