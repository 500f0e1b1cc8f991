//! Scale: the body of every `scale` subresource.

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("autoscaling", "v1", "Scale", "", &Plain).verbs(&[Verb::Create])
}
