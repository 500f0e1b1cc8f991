//! PriorityClass

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &Plain).short("pc")
}
