//! SelfSubjectRulesReview: what may I do in this namespace?

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", &Plain)
        .verbs(&[Verb::Create])
}
