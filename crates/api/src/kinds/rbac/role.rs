//! Role

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles", &Plain)
}
