//! ServiceAccount

use serde_json::Value;

use crate::kind::{Column, Kind, Strategy, Verb, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, size};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ServiceAccount", "serviceaccounts", &ServiceAccount)
        .returns_deleted()
        .short("sa")
        .sub_of("token", ("authentication.k8s.io", "v1", "TokenRequest"), &[Verb::Create])
        .columns(vec![
            Column::string("Secrets", "How many secrets it may use.", |object, _| size(&object["secrets"]).into()),
            age(),
        ])
}

#[derive(Debug)]
struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }
}
