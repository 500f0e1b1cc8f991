//! ControllerRevision

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", &Plain)
}
