//! Namespace

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "Namespace", "namespaces", &Plain)
        .short("ns")
        .verbs(&[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch])
        .sub("finalize", &[Verb::Update])
        .with_status()
}
