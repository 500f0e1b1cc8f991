//! ReplicationController

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ReplicationController", "replicationcontrollers", &Plain)
        .short("rc")
        .category_all()
        .with_scale(|_| String::new())
        .with_status()
}
