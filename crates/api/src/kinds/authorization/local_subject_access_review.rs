//! LocalSubjectAccessReview: may they, in this namespace?

use super::Subject;
use crate::kind::Kind;
use crate::kind::Verb;

pub(crate) fn kind() -> Kind {
    Kind::namespaced(
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        &Subject::NamedInNamespace,
    )
    .verbs(&[Verb::Create])
}
