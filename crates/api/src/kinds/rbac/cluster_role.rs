//! ClusterRole

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", &Plain)
}
