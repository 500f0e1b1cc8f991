//! CBOR (RFC 8949) as upstream speaks it: strings and keys are byte strings, `[]byte` fields are byte strings that expect
//! base64 (tag 22), documents start with the self-described tag. What is written is deterministic (section 4.2.1: shortest
//! forms, sorted keys); what is read may be anything that has a JSON form.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::BufMut;
use serde_json::Value;

use super::{Decoded, Error};
use crate::schema::Schema;

/// Tag 55799, which has no meaning but to say that CBOR follows.
pub const MAGIC: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// Reads one document. Duplicate keys make it invalid, so there is never a strict error.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    Ok(Decoded { value: decode::document(bytes)?, strict: Vec::new() })
}

/// Reads a sequence of documents (RFC 8742).
pub fn decode_sequence(bytes: &[u8]) -> Result<Vec<Decoded>, Error> {
    let values = decode::sequence(bytes)?;
    Ok(values.into_iter().map(|value| Decoded { value, strict: Vec::new() }).collect())
}

/// A document. With a schema, to which the value conforms, `[]byte` fields travel as bytes rather than as base64.
pub fn encode(value: &Value, schema: Option<&Schema>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&MAGIC);
    encode::document(value, schema, &mut out)?;
    Ok(out)
}

/// Appends the head of an array.
pub fn put_array_head(out: &mut impl BufMut, items: usize) {
    put_head(out, 4, items as u64);
}

/// Appends the head of a map.
pub fn put_map_head(out: &mut impl BufMut, fields: usize) {
    put_head(out, 5, fields as u64);
}

/// Appends text, the way strings and keys are written.
pub fn put_text(out: &mut impl BufMut, text: &str) {
    put_head(out, 2, text.len() as u64);
    out.put_slice(text.as_bytes());
}

fn put_head(out: &mut impl BufMut, major: u8, argument: u64) {
    let major = major << 5;
    let [.., a4, a3, a2, a1] = argument.to_be_bytes();
    match argument {
        0..24 => out.put_u8(major | a1),
        24..0x100 => out.put_slice(&[major | 24, a1]),
        0x100..0x1_0000 => out.put_slice(&[major | 25, a2, a1]),
        0x1_0000..0x1_0000_0000 => out.put_slice(&[major | 26, a4, a3, a2, a1]),
        _ => {
            out.put_u8(major | 27);
            out.put_u64(argument);
        }
    }
}

/// An encoded object that can be written with its type, as documents are, and without, as items of lists are.
#[derive(Clone, Debug)]
pub struct Object {
    /// Keys and values, without a head.
    body: Box<[u8]>,
    fields: usize,
    /// Where `kind` and `apiVersion` are in the body; the keys are sorted, so they come in this order.
    kind: Range<usize>,
    api_version: Range<usize>,
}

impl Object {
    /// Encodes an object.
    pub fn new(value: &Value, schema: Option<&Schema>) -> Result<Self, Error> {
        let Value::Object(map) = value else { return Err(Error("an object is no map".into())) };
        let mut body = Vec::with_capacity(1024);
        let mut ranges = [0..0, 0..0];
        encode::fields(map, schema, 0, &mut body, |key, range| match key {
            "kind" => ranges[0] = range,
            "apiVersion" => ranges[1] = range,
            _ => {}
        })?;
        let [kind, api_version] = ranges;
        Ok(Self { body: body.into(), fields: map.len(), kind, api_version })
    }

    /// Bytes that [`Object::put`] needs at most.
    pub fn max_len(&self) -> usize {
        self.body.len() + 9
    }

    /// Appends the object, without [`MAGIC`].
    pub fn put(&self, out: &mut impl BufMut) {
        put_map_head(out, self.fields);
        out.put_slice(&self.body);
    }

    /// Appends the object without `kind` and `apiVersion`.
    pub fn put_item(&self, out: &mut impl BufMut) {
        let left_out = usize::from(!self.kind.is_empty()) + usize::from(!self.api_version.is_empty());
        put_map_head(out, self.fields - left_out);
        // An absent key has the range 0..0.
        let (first, second) = (&self.kind, self.kind.end.max(self.api_version.start)..self.api_version.end);
        let kept = [0..first.start, first.end..second.start, second.end.max(first.end)..self.body.len()];
        for part in kept {
            out.put_slice(self.body.get(part).unwrap_or_default());
        }
    }
}
