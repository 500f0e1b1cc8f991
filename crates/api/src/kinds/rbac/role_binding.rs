//! RoleBinding

use super::{Binding, GROUP, binding_columns};
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "RoleBinding", "rolebindings", &Binding { namespaced: true })
        .columns(binding_columns())
}
