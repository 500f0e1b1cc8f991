//! TokenRequest: the body of `serviceaccounts/token`.

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("authentication.k8s.io", "v1", "TokenRequest", "", &Plain).verbs(&[Verb::Create])
}
