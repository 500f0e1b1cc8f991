//! Event of `events.k8s.io`, stored as a core event.

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("events.k8s.io", "v1", "Event", "events", &Plain).short("ev")
}
