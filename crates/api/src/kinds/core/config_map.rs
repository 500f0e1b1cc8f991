//! ConfigMap

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ConfigMap", "configmaps", &Plain).short("cm")
}
