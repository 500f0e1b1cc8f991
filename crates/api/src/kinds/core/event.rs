//! Event of the core group, which is also the stored form of `events.k8s.io` events.

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Event", "events", &Plain).short("ev")
}
