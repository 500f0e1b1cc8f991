//! Pod

use crate::kind::Kind;
use crate::kind::Verb;
use crate::kinds::Plain;
use crate::kinds::core::PROXY_VERBS;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Pod", "pods", &Plain)
        .short("po")
        .category_all()
        .sub_of("attach", ("", "v1", "PodAttachOptions"), &[Verb::Create, Verb::Get])
        .sub_of("binding", ("", "v1", "Binding"), &[Verb::Create])
        .sub("ephemeralcontainers", &[Verb::Get, Verb::Patch, Verb::Update])
        .sub_of("eviction", ("policy", "v1", "Eviction"), &[Verb::Create])
        .sub_of("exec", ("", "v1", "PodExecOptions"), &[Verb::Create, Verb::Get])
        .sub("log", &[Verb::Get])
        .sub_of("portforward", ("", "v1", "PodPortForwardOptions"), &[Verb::Create, Verb::Get])
        .sub_of("proxy", ("", "v1", "PodProxyOptions"), &PROXY_VERBS)
        .sub("resize", &[Verb::Get, Verb::Patch, Verb::Update])
        .with_status()
}
