//! `rbac.authorization.k8s.io/v1`

use crate::kind::Kind;

mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;

pub(super) fn all() -> Vec<Kind> {
    vec![cluster_role_binding::kind(), cluster_role::kind(), role_binding::kind(), role::kind()]
}
