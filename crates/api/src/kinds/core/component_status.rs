//! ComponentStatus: health of the control plane, computed when read.

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "ComponentStatus", "componentstatuses", &Plain).short("cs").verbs(&[Verb::Get, Verb::List])
}
