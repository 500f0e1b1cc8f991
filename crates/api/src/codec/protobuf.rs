//! Kubernetes' protobuf: an envelope (`k8s\0` and a `runtime.Unknown`) around proto2 messages. One transcoder between
//! `Value` and any message, driven by [`crate::schema`]; there are no generated types.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use bytes::BufMut;
use serde_json::Value;

use super::Error;
use crate::schema::{self, Schema};

/// The first bytes of an envelope.
pub const MAGIC: [u8; 4] = *b"k8s\0";
/// What comes after the message in an envelope: its content encoding and type, empty as upstream writes them.
pub const ENVELOPE_TAIL: [u8; 4] = [0x1a, 0, 0x22, 0];

/// What an envelope says of the message in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// May be empty.
    pub api_version: String,
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
}

/// Reads an envelope.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, Error> {
    let Some(mut rest) = body.strip_prefix(&MAGIC) else {
        return Err(Error(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into(),
        ));
    };
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    while let Some((tag, field)) = wire::next(&mut rest)? {
        match (tag, field) {
            (1, wire::Field::Bytes(mut meta)) => {
                while let Some((tag, field)) = wire::next(&mut meta)? {
                    match (tag, field) {
                        (1, wire::Field::Bytes(text)) => envelope.api_version = wire::text(text),
                        (2, wire::Field::Bytes(text)) => envelope.kind = wire::text(text),
                        _ => {}
                    }
                }
            }
            (2, wire::Field::Bytes(raw)) => envelope.raw = raw,
            (3, wire::Field::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(Error(format!("content encoding {:?} is not supported", wire::text(encoding))));
            }
            (4, wire::Field::Bytes(media)) if !media.is_empty() && media != b"application/vnd.kubernetes.protobuf" => {
                return Err(Error(format!("content type {:?} is not supported", wire::text(media))));
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// Reads an enveloped object: as `Schema::conform` leaves it, with `apiVersion` and `kind` from the envelope.
pub fn decode(body: &[u8], schema: &Schema) -> Result<Value, Error> {
    let envelope = open(body)?;
    let mut object = decode_message(envelope.raw, schema)?;
    if let Value::Object(map) = &mut object {
        for (key, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
            if !text.is_empty() {
                map.insert(key.into(), text.into());
            }
        }
    }
    Ok(object)
}

/// Reads an enveloped object of whatever built-in kind it says it is.
pub fn decode_any(body: &[u8]) -> Result<Value, Error> {
    let Envelope { api_version, kind, .. } = open(body)?;
    let schema = schema_for(&api_version, &kind)
        .ok_or_else(|| Error(format!("no kind {kind:?} is registered for version {api_version:?}")))?;
    decode(body, schema)
}

/// Reads a message without an envelope.
pub fn decode_message(raw: &[u8], schema: &Schema) -> Result<Value, Error> {
    let mut object = Value::Object(decode::message(raw, schema)?);
    schema.conform(&mut object).map_err(|e| Error(e.0))?;
    Ok(object)
}

/// An object in an envelope. The object must conform to the schema.
pub fn encode(object: &Value, schema: &Schema) -> Result<Vec<u8>, Error> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(enclose(text("apiVersion"), text("kind"), &encode_message(object, schema)?))
}

/// The message alone, as an item of a list holds it.
pub fn encode_message(object: &Value, schema: &Schema) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(512);
    encode::message(object, schema, &mut out)?;
    Ok(out)
}

/// What comes before a message of `message_len` bytes; [`ENVELOPE_TAIL`] comes after it.
pub fn envelope_head(api_version: &str, kind: &str, message_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&MAGIC);
    let length = bytes_len(api_version.len()) + bytes_len(kind.len());
    wire::put_tag(&mut out, 1, 2);
    wire::put_varint(&mut out, length as u64);
    wire::put_bytes(&mut out, 1, api_version.as_bytes());
    wire::put_bytes(&mut out, 2, kind.as_bytes());
    wire::put_tag(&mut out, 2, 2);
    wire::put_varint(&mut out, message_len as u64);
    out
}

/// A message from [`encode_message`] in an envelope.
pub fn enclose(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope_head(api_version, kind, message.len());
    out.reserve_exact(message.len() + ENVELOPE_TAIL.len());
    out.extend_from_slice(message);
    out.extend_from_slice(&ENVELOPE_TAIL);
    out
}

/// The beginning of a list whose items follow: the envelope's head and the list's metadata. `items_len` is the sum of
/// their [`item_len`]s.
pub fn list_head(api_version: &str, kind: &str, metadata: &Value, items_len: usize) -> Result<Vec<u8>, Error> {
    let schema = schema::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")
        .ok_or_else(|| Error("ListMeta has no schema".into()))?;
    let metadata = encode_message(metadata, schema)?;
    let mut out = envelope_head(api_version, kind, bytes_len(metadata.len()) + items_len);
    wire::put_bytes(&mut out, 1, &metadata);
    Ok(out)
}

/// Bytes of a list's item around and in a message of `message_len` bytes.
pub fn item_len(message_len: usize) -> usize {
    bytes_len(message_len)
}

/// Appends what comes before the message of a list's item.
pub fn put_item_head(out: &mut impl BufMut, message_len: usize) {
    wire::put_tag(out, 2, 2);
    wire::put_varint(out, message_len as u64);
}

/// Of a field with a tag below 16 and so many bytes in it.
fn bytes_len(length: usize) -> usize {
    1 + wire::varint_len(length as u64) + length
}

/// One frame of a watch stream: an event (`ADDED`, …) around an object from [`encode`].
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(object.len() + 32);
    frame.extend_from_slice(&[0; 4]);
    wire::put_bytes(&mut frame, 1, event.as_bytes());
    wire::put_tag(&mut frame, 2, 2);
    wire::put_varint(&mut frame, bytes_len(object.len()) as u64);
    wire::put_bytes(&mut frame, 1, object);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    frame
}

/// The schema of a built-in kind, also of lists, options and watch events, which every group version has, and of `Status`
/// and discovery documents. `None` for custom resources.
pub fn schema_for(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let of_meta = || schema::builtin(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    if group == "meta.k8s.io" {
        return of_meta();
    }
    let own = package(group).and_then(|package| {
        ["api", "apiextensions-apiserver.pkg.apis", "kube-aggregator.pkg.apis"]
            .iter()
            .find_map(|home| schema::builtin(&format!("io.k8s.{home}.{package}.{version}.{kind}")))
    });
    own.or_else(|| {
        let everywhere = kind == "WatchEvent" || kind.ends_with("Options");
        let of_v1 = matches!(kind, "Status" | "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList");
        (everywhere || of_v1 && matches!(api_version, "v1" | "")).then(of_meta).flatten()
    })
}

/// The package that upstream keeps a group's types in; custom resources may live in groups that look much the same.
fn package(group: &str) -> Option<&str> {
    match group {
        "" => Some("core"),
        "apps" | "autoscaling" | "batch" | "policy" => Some(group),
        "flowcontrol.apiserver.k8s.io" => Some("flowcontrol"),
        "internal.apiserver.k8s.io" => Some("apiserverinternal"),
        "rbac.authorization.k8s.io" => Some("rbac"),
        _ => group.strip_suffix(".k8s.io").filter(|name| {
            !name.contains('.') && !matches!(*name, "apps" | "autoscaling" | "batch" | "core" | "policy" | "rbac")
        }),
    }
}
