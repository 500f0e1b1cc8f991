//! Binding: a pod, put on a node by writing it.

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Binding", "bindings", &Plain).verbs(&[Verb::Create])
}
