//! Node

use crate::kind::Kind;
use crate::kinds::Plain;
use crate::kinds::core::PROXY_VERBS;

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "Node", "nodes", &Plain)
        .short("no")
        .sub_of("proxy", ("", "v1", "NodeProxyOptions"), &PROXY_VERBS)
        .with_status()
}
