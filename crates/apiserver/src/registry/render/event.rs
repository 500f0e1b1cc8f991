//! Watch events as they are sent: a JSON line, a length and a protobuf message, or a CBOR data item. An event of objects or
//! their metadata is made once for all watchers that see it in the same form.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use keelson_api::codec::{Encoding, cbor, protobuf};
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::super::{Resource, table};
use super::form::{Form, encode};
use super::{include, partial};
use crate::cache::Entry;
use crate::cache::frames::FrameKey;
use crate::cache::resource::{Change, EventType, event_line, json_frame};
use crate::http::negotiate::{Accepted, Shape, watch_content_type};
use crate::http::query::Query;

/// How the events of one watch are written.
pub(crate) struct Events {
    form: Form,
    table: Option<Table>,
}

struct Table {
    beta: bool,
    include: table::Include,
    /// None has been sent yet; only the first says its columns.
    first: AtomicBool,
}

impl Events {
    /// For a watch of `resource` by a client that accepts `accepted`; 400 for table options that make no sense.
    pub(crate) fn new(resource: Resource, accepted: Accepted, query: &Query) -> Result<Self, Status> {
        let (mut table, mut partial) = (None, None);
        match accepted.shape {
            Shape::Table { beta } => {
                table = Some(Table { beta, include: include(query)?, first: AtomicBool::new(true) })
            }
            Shape::PartialObjectMetadata { beta } | Shape::PartialObjectMetadataList { beta } => partial = Some(beta),
            Shape::Object | Shape::Discovery { .. } => {}
        }
        Ok(Self { form: Form::new(resource, accepted.encoding, partial), table })
    }

    /// What the response is.
    pub(crate) fn content_type(&self) -> &'static str {
        watch_content_type(self.form.encoding)
    }

    /// A change.
    pub(crate) fn change(&self, event: EventType, change: &Change) -> Result<Bytes, Status> {
        let Some(entry) = change.entry(event) else { return Ok(Bytes::new()) };
        if self.table.is_some() {
            return self.entry(event, entry, change.revision);
        }
        if self.is_stored_json() {
            return Ok(change.line(event));
        }
        let Form { resource, encoding, partial, .. } = &self.form;
        let key = FrameKey { event, encoding: *encoding, partial: *partial, kind: resource.kind.clone() };
        change.frames.get(&key, || self.entry(event, entry, change.revision))
    }

    /// A version of an object, with `revision` as its resourceVersion.
    pub(crate) fn entry(&self, event: EventType, entry: &Entry, revision: u64) -> Result<Bytes, Status> {
        if self.is_stored_json() {
            return Ok(event_line(event, entry, revision));
        }
        let mut object = BytesMut::new();
        match &self.table {
            Some(table) => object.put_slice(&self.table(table, self.form.resource.decode_at(entry, revision)?)?),
            None => self.form.put_object(entry, revision, &mut object)?,
        }
        Ok(self.frame(event.as_str(), &object))
    }

    /// A bookmark: every change up to `revision` has been sent.
    pub(crate) fn bookmark(&self, revision: u64, initial_events_end: bool) -> Result<Bytes, Status> {
        let kind = &self.form.resource.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        let object = match (&self.table, self.form.partial) {
            (Some(table), _) => self.table(table, object)?,
            (None, Some(beta)) => encode(&partial(object, beta), self.form.encoding)?,
            (None, None) => encode(&object, self.form.encoding)?,
        };
        Ok(self.frame("BOOKMARK", &object))
    }

    /// The error that ends the watch.
    pub(crate) fn error(&self, status: &Status) -> Bytes {
        // A Status has all forms.
        let status = encode(&status.to_value(), self.form.encoding).unwrap_or_default();
        self.frame("ERROR", &status)
    }

    /// Whether the stored bytes are what is sent.
    fn is_stored_json(&self) -> bool {
        let Form { resource, encoding, partial, .. } = &self.form;
        *encoding == Encoding::Json && partial.is_none() && self.table.is_none() && resource.plain()
    }

    fn table(&self, table: &Table, object: Value) -> Result<Bytes, Status> {
        let first = table.first.swap(false, Ordering::Relaxed);
        let kind = &self.form.resource.kind;
        encode(&table::of_one(kind, object, table.include, table.beta, first), self.form.encoding)
    }

    fn frame(&self, event: &str, object: &[u8]) -> Bytes {
        match self.form.encoding {
            Encoding::Protobuf => protobuf::watch_frame(event, object).into(),
            Encoding::Cbor => {
                let mut out = BytesMut::with_capacity(object.len() + 40);
                out.put_slice(&cbor::MAGIC);
                cbor::put_map_head(&mut out, 2);
                cbor::put_text(&mut out, "type");
                cbor::put_text(&mut out, event);
                cbor::put_text(&mut out, "object");
                out.put_slice(object);
                out.freeze()
            }
            Encoding::Json | Encoding::Yaml => json_frame(event, object.len(), |out| out.put_slice(object)),
        }
    }
}
