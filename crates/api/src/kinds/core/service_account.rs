//! ServiceAccount

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ServiceAccount", "serviceaccounts", &Plain).short("sa").sub_of(
        "token",
        ("authentication.k8s.io", "v1", "TokenRequest"),
        &[Verb::Create],
    )
}
