//! Watch events as they are sent. An event in the stored form is made once for all watchers that see it.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::super::read::is_plain;
use super::super::{Resource, table};
use super::{include, partial};
use crate::cache::Entry;
use crate::cache::resource::{Change, EventType, event_line};
use crate::http::negotiate::{Accepted, Shape};
use crate::http::query::Query;

/// How the events of one watch are written.
pub(crate) struct Events {
    resource: Resource,
    accepted: Accepted,
    include: table::Include,
    /// Stored bytes can be sent as they are.
    plain: bool,
    /// No table has been sent yet; only the first says its columns.
    first: AtomicBool,
}

impl Events {
    /// For a watch of `resource` by a client that accepts `accepted`.
    pub(crate) fn new(resource: Resource, accepted: Accepted, query: &Query) -> Self {
        let plain = is_plain(accepted) && resource.plain();
        Self { resource, accepted, include: include(query), plain, first: AtomicBool::new(true) }
    }

    /// A change.
    pub(crate) fn change(&self, event: EventType, change: &Change) -> Result<Bytes, Status> {
        if self.plain {
            return Ok(change.line(event));
        }
        match change.entry(event) {
            Some(entry) => self.entry(event, entry, change.revision),
            None => Ok(Bytes::new()),
        }
    }

    /// A version of an object, with `revision` as its resourceVersion.
    pub(crate) fn entry(&self, event: EventType, entry: &Entry, revision: u64) -> Result<Bytes, Status> {
        if self.plain {
            return Ok(event_line(event, entry, revision));
        }
        let object = self.shaped(self.resource.decode_at(entry, revision)?);
        Ok(wrap(event.as_str(), object.to_string().as_bytes()))
    }

    /// A bookmark: every change up to `revision` has been sent.
    pub(crate) fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let kind = &self.resource.kind;
        let (api_version, kind) = match self.accepted.shape {
            Shape::Object | Shape::Discovery { .. } => (kind.api_version(), kind.kind.to_string()),
            Shape::Table { .. } => ("meta.k8s.io/v1".into(), "Table".into()),
            _ => ("meta.k8s.io/v1".into(), "PartialObjectMetadata".into()),
        };
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        wrap("BOOKMARK", object.to_string().as_bytes())
    }

    /// The error that ends the watch.
    pub(crate) fn error(&self, status: &Status) -> Bytes {
        wrap("ERROR", status.to_value().to_string().as_bytes())
    }

    fn shaped(&self, object: Value) -> Value {
        match self.accepted.shape {
            Shape::Table { beta } => {
                let first = self.first.swap(false, Ordering::Relaxed);
                let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                let rows = vec![table::row(&self.resource.kind, object, self.include)];
                table::table(&self.resource.kind, rows, json!({ "resourceVersion": revision }), beta, first)
            }
            Shape::PartialObjectMetadata | Shape::PartialObjectMetadataList => partial(object),
            Shape::Object | Shape::Discovery { .. } => object,
        }
    }
}

fn wrap(event: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}
