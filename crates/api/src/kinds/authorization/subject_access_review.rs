//! SubjectAccessReview: may they?

use super::Subject;
use crate::kind::Kind;
use crate::kind::Verb;

pub(crate) fn kind() -> Kind {
    Kind::cluster("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", &Subject::Named)
        .verbs(&[Verb::Create])
}
