//! LocalSubjectAccessReview: may they, in this namespace?

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", &Plain)
        .verbs(&[Verb::Create])
}
