//! Service

use crate::kind::Kind;
use crate::kinds::Plain;
use crate::kinds::core::PROXY_VERBS;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Service", "services", &Plain)
        .short("svc")
        .category_all()
        .sub_of("proxy", ("", "v1", "ServiceProxyOptions"), &PROXY_VERBS)
        .with_status()
}
