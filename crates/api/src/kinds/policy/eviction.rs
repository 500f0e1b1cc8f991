//! Eviction: the body of `pods/eviction`.

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("policy", "v1", "Eviction", "", &Plain).verbs(&[Verb::Create])
}
