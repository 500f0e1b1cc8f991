//! Lists as they are sent: items are written in chunks while the client reads; the response is never built as a whole.

use bytes::{BufMut, Bytes, BytesMut};
use keelson_api::codec::{Encoding, cbor, protobuf};
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::super::Resource;
use super::super::lists::{Listed, list_metadata};
use super::super::table::{self, Include};
use super::form::{Form, encode, unwritable};
use crate::http::body::{Body, BoxError};

/// Bytes sent at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Items encoded before other tasks get their turn.
const TURN_ITEMS: usize = 16;

/// The type that a list names.
struct ListType {
    api_version: String,
    kind: String,
}

impl ListType {
    fn of(form: &Form) -> Self {
        let kind = &form.resource.kind;
        match form.partial {
            None => Self { api_version: kind.api_version(), kind: kind.list_kind.to_string() },
            Some(beta) => {
                Self { api_version: super::meta_version(beta).into(), kind: "PartialObjectMetadataList".into() }
            }
        }
    }
}

/// A list of whole objects, or of their metadata.
pub(super) async fn objects(form: Form, listed: Listed) -> Result<Body, Status> {
    let list = ListType::of(&form);
    let metadata = list_metadata(listed.revision, listed.next.as_deref(), listed.remaining);
    let frame = match form.encoding {
        Encoding::Json => {
            let ListType { api_version, kind } = &list;
            let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata}}}");
            Frame::json(&head, "items")
        }
        Encoding::Yaml => {
            let head = json!({ "apiVersion": list.api_version });
            let tail = json!({ "kind": list.kind, "metadata": metadata });
            let frame = Frame::yaml(&head, "items", Some(&tail))?;
            return Ok(stream(frame, listed.entries, move |entry, out| put_yaml_item(form.item(&entry)?, out)));
        }
        Encoding::Protobuf => {
            let mut messages = Vec::new();
            for (i, entry) in listed.entries.enumerate() {
                messages.push(form.message(&entry)?);
                if i % TURN_ITEMS == TURN_ITEMS - 1 {
                    tokio::task::yield_now().await;
                }
            }
            let length = messages.iter().map(|message| protobuf::item_len(message.len())).sum();
            let head = protobuf::list_head(&list.api_version, &list.kind, &metadata, length).map_err(unwritable)?;
            let frame =
                Frame { head: head.into(), tail: Bytes::from_static(&protobuf::ENVELOPE_TAIL), ..Frame::default() };
            return Ok(stream(frame, messages.into_iter(), |message, out| {
                protobuf::put_item_head(out, message.len());
                out.put_slice(&message);
                Ok(())
            }));
        }
        Encoding::Cbor => {
            let entries: Vec<_> = listed.entries.collect();
            let frame = Frame::cbor(&list, &metadata, entries.len())?;
            return Ok(stream(frame, entries.into_iter(), move |entry, out| form.put_item(&entry, out)));
        }
    };
    Ok(stream(frame, listed.entries, move |entry, out| form.put_item(&entry, out)))
}

/// A table of objects.
pub(super) fn table(
    resource: Resource,
    listed: Listed,
    include: Include,
    beta: bool,
    encoding: Encoding,
) -> Result<Body, Status> {
    let metadata = list_metadata(listed.revision, listed.next.as_deref(), listed.remaining);
    let (api_version, columns) = (super::meta_version(beta), table::columns(&resource.kind));
    let head = json!({"apiVersion": api_version, "columnDefinitions": columns, "kind": "Table", "metadata": metadata});
    let yaml = encoding == Encoding::Yaml;
    let frame = if yaml { Frame::yaml(&head, "rows", None)? } else { Frame::json(&head.to_string(), "rows") };
    Ok(stream(frame, listed.entries, move |entry, out| {
        let row = table::row(&resource.kind, resource.decode(&entry)?, include, beta);
        if yaml { put_yaml_item(row, out) } else { serde_json::to_writer(out.writer(), &row).map_err(Status::internal) }
    }))
}

fn put_yaml_item(item: Value, out: &mut BytesMut) -> Result<(), Status> {
    out.put_slice(&encode(&Value::Array(vec![item]), Encoding::Yaml)?);
    Ok(())
}

/// What a list consists of besides its items.
#[derive(Default)]
struct Frame {
    head: Bytes,
    /// Before the first item, between items, and in place of all items when there is none.
    first: Bytes,
    between: &'static [u8],
    none: Bytes,
    tail: Bytes,
}

impl Frame {
    /// Around the items of a JSON object that has `head` before them.
    fn json(head: &str, items: &str) -> Self {
        let head = format!("{},\"{items}\":[", head.strip_suffix('}').unwrap_or(head));
        Self { head: head.into(), between: b",", tail: Bytes::from_static(b"]}\n"), ..Self::default() }
    }

    /// Around the items of a YAML document that has `head` before them and `tail` after.
    fn yaml(head: &Value, items: &str, tail: Option<&Value>) -> Result<Self, Status> {
        Ok(Self {
            head: encode(head, Encoding::Yaml)?,
            first: format!("{items}:\n").into(),
            none: format!("{items}: []\n").into(),
            tail: tail.map(|tail| encode(tail, Encoding::Yaml)).transpose()?.unwrap_or_default(),
            between: b"",
        })
    }

    /// Keys are sorted as CBOR sorts them.
    fn cbor(list: &ListType, metadata: &Value, items: usize) -> Result<Self, Status> {
        let mut head = BytesMut::from(&cbor::MAGIC[..]);
        cbor::put_map_head(&mut head, 4);
        cbor::put_text(&mut head, "kind");
        cbor::put_text(&mut head, &list.kind);
        cbor::put_text(&mut head, "items");
        cbor::put_array_head(&mut head, items);
        let mut tail = BytesMut::new();
        cbor::put_text(&mut tail, "metadata");
        cbor::Object::new(metadata, None).map_err(unwritable)?.put(&mut tail);
        cbor::put_text(&mut tail, "apiVersion");
        cbor::put_text(&mut tail, &list.api_version);
        Ok(Self { head: head.freeze(), tail: tail.freeze(), ..Self::default() })
    }
}

/// A body that writes its items as it is read.
fn stream<T: 'static>(
    frame: Frame,
    items: impl Iterator<Item = T> + Send + 'static,
    put: impl FnMut(T, &mut BytesMut) -> Result<(), Status> + Send + 'static,
) -> Body {
    Body::Chunks(Box::new(Chunks { frame: Some(frame), items, put, any: false }))
}

struct Chunks<I, P> {
    /// `None` when all is written.
    frame: Option<Frame>,
    items: I,
    put: P,
    any: bool,
}

impl<T, I, P> Iterator for Chunks<I, P>
where
    I: Iterator<Item = T>,
    P: FnMut(T, &mut BytesMut) -> Result<(), Status>,
{
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.frame.as_mut()?;
        let mut out = BytesMut::with_capacity(1024);
        out.put_slice(&std::mem::take(&mut frame.head));
        while out.len() < CHUNK_BYTES {
            let Some(item) = self.items.next() else {
                out.put_slice(if self.any { b"" } else { &frame.none });
                out.put_slice(&frame.tail);
                self.frame = None;
                break;
            };
            out.put_slice(if self.any { frame.between } else { &frame.first });
            self.any = true;
            if let Err(status) = (self.put)(item, &mut out) {
                self.frame = None;
                return Some(Err(Box::new(status)));
            }
        }
        Some(Ok(out.freeze()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.frame.is_none() { (0, Some(0)) } else { (1, None) }
    }
}
