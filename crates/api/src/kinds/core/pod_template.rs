//! PodTemplate

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "PodTemplate", "podtemplates", &Plain)
}
