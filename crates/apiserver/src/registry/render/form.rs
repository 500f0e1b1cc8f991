//! An object in one of its forms: whole or metadata only, in some encoding. Forms of the stored kind are made once per
//! version and shared; metadata is cut out of the stored bytes, and nothing else is decoded for it.

use bytes::{BufMut, Bytes, BytesMut};
use keelson_api::codec::{Encoding, Error, cbor, protobuf};
use keelson_api::schema::Schema;
use keelson_api::status::Status;
use serde_json::Value;

use super::super::Resource;
use super::partial;
use crate::cache::Entry;
use crate::http::negotiate::refused;

/// A form that objects of a resource are wanted in.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) resource: Resource,
    pub(super) encoding: Encoding,
    /// Metadata only: `v1beta1` or `v1`.
    pub(super) partial: Option<bool>,
    /// Of what is sent; custom resources have none.
    schema: Option<&'static Schema>,
}

impl Form {
    pub(super) fn new(resource: Resource, encoding: Encoding, partial: Option<bool>) -> Self {
        let schema = match partial {
            Some(_) => protobuf::schema_for("meta.k8s.io/v1", "PartialObjectMetadata"),
            None => protobuf::schema_for(&resource.kind.api_version(), &resource.kind.kind),
        };
        Self { resource, encoding, partial, schema }
    }

    /// Appends an object as it stands by itself, with `revision` as its resourceVersion.
    pub(super) fn put_object(&self, entry: &Entry, revision: u64, out: &mut BytesMut) -> Result<(), Status> {
        let kind = &self.resource.kind;
        match (self.encoding, self.partial) {
            (Encoding::Json, None) if self.resource.plain() => entry.write_object(out, revision),
            (Encoding::Json, Some(beta)) if self.resource.plain() => {
                entry.write_partial(out, revision, super::meta_version(beta));
            }
            (Encoding::Protobuf, None) if self.shared(entry, revision) => {
                let message = entry.protobuf(self.message_schema()?)?;
                let head = protobuf::envelope_head(&kind.api_version(), &kind.kind, message.len());
                out.reserve(head.len() + message.len() + protobuf::ENVELOPE_TAIL.len());
                out.put_slice(&head);
                out.put_slice(&message);
                out.put_slice(&protobuf::ENVELOPE_TAIL);
            }
            (Encoding::Cbor, None) if self.shared(entry, revision) => {
                let object = entry.cbor(self.schema)?;
                out.reserve(object.max_len() + cbor::MAGIC.len());
                out.put_slice(&cbor::MAGIC);
                object.put(out);
            }
            _ => out.put_slice(&encode(&self.value(entry, revision)?, self.encoding)?),
        }
        Ok(())
    }

    /// Appends an object as an item of a JSON or CBOR list.
    pub(super) fn put_item(&self, entry: &Entry, out: &mut BytesMut) -> Result<(), Status> {
        match (self.encoding, self.partial) {
            (Encoding::Json, None) if self.resource.plain() && self.typed_items() => {
                entry.write_object(out, entry.revision);
            }
            (Encoding::Json, None) if self.resource.plain() => entry.write_item(out),
            (Encoding::Json, Some(beta)) if self.resource.plain() => {
                entry.write_partial(out, entry.revision, super::meta_version(beta));
            }
            (Encoding::Cbor, None) if self.resource.plain() => {
                let object = entry.cbor(self.schema)?;
                out.reserve(object.max_len());
                if self.typed_items() {
                    object.put(out);
                } else {
                    object.put_item(out);
                }
            }
            (Encoding::Cbor, _) => {
                cbor::Object::new(&self.item(entry)?, self.schema).map_err(unwritable)?.put(out);
            }
            _ => serde_json::to_writer((&mut *out).writer(), &self.item(entry)?).map_err(Status::internal)?,
        }
        Ok(())
    }

    /// The message of an object in a protobuf list.
    pub(super) fn message(&self, entry: &Entry) -> Result<Bytes, Status> {
        if self.shared(entry, entry.revision) && self.partial.is_none() {
            return entry.protobuf(self.message_schema()?);
        }
        let value = self.value(entry, entry.revision)?;
        protobuf::encode_message(&value, self.message_schema()?).map(Bytes::from).map_err(unwritable)
    }

    /// An object as an item of a list.
    pub(super) fn item(&self, entry: &Entry) -> Result<Value, Status> {
        let mut value = self.value(entry, entry.revision)?;
        if !self.typed_items()
            && let Value::Object(map) = &mut value
        {
            map.remove("kind");
            map.remove("apiVersion");
        }
        Ok(value)
    }

    fn value(&self, entry: &Entry, revision: u64) -> Result<Value, Status> {
        match self.partial {
            Some(beta) if self.resource.plain() => {
                let mut out = BytesMut::new();
                entry.write_partial(&mut out, revision, super::meta_version(beta));
                serde_json::from_slice(&out).map_err(Status::internal)
            }
            Some(beta) => Ok(partial(self.resource.decode_at(entry, revision)?, beta)),
            None => self.resource.decode_at(entry, revision),
        }
    }

    /// Whether the version keeps this form for everybody.
    fn shared(&self, entry: &Entry, revision: u64) -> bool {
        self.resource.plain() && entry.revision == revision
    }

    /// Whether items of lists say their type: metadata of something else, and custom resources, do.
    fn typed_items(&self) -> bool {
        self.schema.is_none() || self.partial.is_some()
    }

    fn message_schema(&self) -> Result<&'static Schema, Status> {
        self.schema.ok_or_else(|| no_protobuf(&self.resource.kind.kind))
    }
}

/// A document of a type that it names itself.
pub(super) fn encode(value: &Value, encoding: Encoding) -> Result<Bytes, Status> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let schema = match encoding {
        Encoding::Json | Encoding::Yaml => None,
        Encoding::Protobuf | Encoding::Cbor => protobuf::schema_for(text("apiVersion"), text("kind")),
    };
    if encoding == Encoding::Protobuf && schema.is_none() {
        return Err(no_protobuf(text("kind")));
    }
    encoding.encode(value, schema).map(Bytes::from).map_err(unwritable)
}

fn no_protobuf(kind: &str) -> Status {
    refused(format!(
        "object {kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    ))
}

pub(super) fn unwritable(error: Error) -> Status {
    Status::internal(error)
}
