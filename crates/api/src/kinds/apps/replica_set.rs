//! ReplicaSet

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "ReplicaSet", "replicasets", &Plain)
        .short("rs")
        .category_all()
        .with_scale(|_| String::new())
        .with_status()
}
