//! ClusterRoleBinding

use super::{Binding, GROUP, binding_columns};
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", &Binding { namespaced: false })
        .columns(binding_columns())
}
