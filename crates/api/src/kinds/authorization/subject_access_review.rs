//! SubjectAccessReview: may they?

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", &Plain)
        .verbs(&[Verb::Create])
}
