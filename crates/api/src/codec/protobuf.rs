//! Kubernetes' protobuf: an envelope (`k8s\0` and a `runtime.Unknown`) around proto2 messages. One transcoder between
//! `Value` and any message, driven by [`crate::schema`]; there are no generated types.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use serde_json::Value;

use super::Error;
use crate::schema::{self, Schema};

const MAGIC: &[u8] = b"k8s\0";

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
    let Some(mut rest) = body.strip_prefix(MAGIC) else {
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
    envelope(text("apiVersion"), text("kind"), |out| encode::message(object, schema, out))
}

/// The message alone, as an item of a list holds it.
pub fn encode_message(object: &Value, schema: &Schema) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(512);
    encode::message(object, schema, &mut out)?;
    Ok(out)
}

/// A list (`v1`, `PodList`) in an envelope, of items from [`encode_message`].
pub fn encode_list<T: AsRef<[u8]>>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl IntoIterator<Item = T>,
) -> Result<Vec<u8>, Error> {
    let list_meta = schema::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")
        .ok_or_else(|| Error("ListMeta has no schema".into()))?;
    envelope(api_version, kind, |out| {
        wire::put_nested(out, 1, |out| encode::message(metadata, list_meta, out))?;
        for item in items {
            wire::put_bytes(out, 2, item.as_ref());
        }
        Ok(())
    })
}

/// One frame of a watch stream: an event (`ADDED`, …) around an object from [`encode`].
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    wire::put_bytes(&mut frame, 1, event.as_bytes());
    let length = object.len() + 1 + wire::varint_len(object.len() as u64);
    wire::put_tag(&mut frame, 2, 2);
    wire::put_varint(&mut frame, length as u64);
    wire::put_bytes(&mut frame, 1, object);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    frame
}

/// The schema of a built-in kind, also of lists, options and `Status`, which every group version has.
pub fn schema_for(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let package = match group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    };
    schema::builtin(&format!("io.k8s.api.{package}.{version}.{kind}")).or_else(|| {
        let common = matches!(kind, "Status" | "WatchEvent") || kind.ends_with("Options");
        common.then(|| schema::builtin(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))).flatten()
    })
}

fn envelope(
    api_version: &str,
    kind: &str,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    wire::put_nested(&mut out, 1, |out| {
        wire::put_bytes(out, 1, api_version.as_bytes());
        wire::put_bytes(out, 2, kind.as_bytes());
        Ok::<_, Error>(())
    })?;
    wire::put_nested(&mut out, 2, write)?;
    // Encoding and media type: empty, as upstream writes them.
    out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
    Ok(out)
}
