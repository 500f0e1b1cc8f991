//! SelfSubjectReview: who am I?

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", &Plain)
        .verbs(&[Verb::Create])
}
