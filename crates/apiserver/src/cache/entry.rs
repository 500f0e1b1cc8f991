//! One version of an object: the stored bytes, and the little that selectors and indexes read. Stored JSON is written by
//! [`encode`]: `kind`, `apiVersion` and `metadata` come first and `metadata.resourceVersion` is absent, because it is only
//! known once the write has happened. [`Entry::write_object`] puts it in while copying to the wire.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use keelson_api::codec::{cbor, json, protobuf};
use keelson_api::kind::Kind;
use keelson_api::schema::Schema;
use keelson_api::selector::Labels;
use keelson_api::status::Status;
use keelson_store::KeyValue;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::shallow;
use crate::encryption::PLAIN;

const METADATA: &[u8] = b"\"metadata\":{";

/// A cached object.
#[derive(Debug)]
pub(crate) struct Entry {
    /// `/registry/pods/default/a`
    pub(crate) key: Arc<str>,
    /// Stored JSON, shared with the store.
    pub(crate) value: Bytes,
    /// The revision that wrote it: its resourceVersion.
    pub(crate) revision: u64,
    /// Where `metadata`'s first field starts in `value`.
    metadata_at: u32,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the kind's selectable fields, in the kind's order.
    fields: Box<[Box<str>]>,
    /// The store holds it in another form: in an older version, or without what the schema fills in.
    pub(crate) stale: bool,
    /// The number of the key that it is encrypted with in the store.
    pub(crate) sealed_with: u16,
    /// Other encodings; nothing is allocated until somebody asks for one.
    encodings: OnceLock<Box<Encodings>>,
}

/// Encodings besides the stored one, each made when first asked for and then shared.
#[derive(Debug, Default)]
struct Encodings {
    protobuf: OnceLock<Result<Bytes, Status>>,
    cbor: OnceLock<Result<cbor::Object, Status>>,
}

impl Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v)
    }
}

#[derive(Default, Deserialize)]
struct HeadMetadata<'a> {
    #[serde(borrow, default)]
    labels: Option<std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Entry {
    /// Reads what selectors need from a stored version. Bytes that are no JSON object of our making are an error: the
    /// store is damaged.
    pub(crate) fn new(kind: &Kind, kv: KeyValue) -> Result<Self, String> {
        let at = find(kv.value.get(..512.min(kv.value.len())).unwrap_or_default(), METADATA);
        let at = at.ok_or_else(|| format!("{}: no metadata at the start", kv.key))? + METADATA.len();
        let wrong = |e: serde_json::Error| format!("{}: {e}", kv.key);
        let (labels, fields) = if kind.field_selectors.is_empty() {
            // `metadata` is first, and the rest need not be looked at.
            let metadata = kv.value.get(at - 1..).unwrap_or_default();
            let mut metadata = serde_json::Deserializer::from_slice(metadata).into_iter::<HeadMetadata<'_>>();
            let metadata = metadata.next().transpose().map_err(wrong)?;
            let labels = metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            (labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect(), Box::default())
        } else {
            let object = shallow::read(kind, &kv.value).map_err(wrong)?;
            let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
            let labels = labels.filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect();
            (labels, kind.field_selectors.iter().map(|field| field.get(&object).into()).collect())
        };
        let metadata_at = u32::try_from(at).map_err(|_| format!("{}: too large", kv.key))?;
        let (key, value, revision) = (kv.key, kv.value, kv.mod_revision);
        let (stale, sealed_with, encodings) = (false, PLAIN, OnceLock::new());
        Ok(Self { key, value, revision, metadata_at, labels, fields, stale, sealed_with, encodings })
    }

    /// `metadata.name`
    pub(crate) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// `metadata.namespace`, of a namespaced object.
    pub(crate) fn namespace(&self) -> &str {
        self.key.rsplit('/').nth(1).unwrap_or_default()
    }

    /// A selectable field by its place in the kind's list.
    pub(crate) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |value| value)
    }

    /// Bytes that [`Entry::write_object`] needs at most.
    pub(crate) fn wire_len(&self) -> usize {
        self.value.len() + 48
    }

    /// Appends the object's JSON with `revision` as its resourceVersion.
    pub(crate) fn write_object(&self, out: &mut BytesMut, revision: u64) {
        let (head, rest) = self.value.split_at(self.metadata_at as usize);
        out.reserve(self.wire_len());
        out.put_slice(head);
        write_revision(out, revision);
        out.put_slice(rest);
    }

    /// Appends the object as it stands in a list: without `kind` and `apiVersion`.
    pub(crate) fn write_item(&self, out: &mut BytesMut) {
        let (_, rest) = self.value.split_at(self.metadata_at as usize);
        out.reserve(self.wire_len());
        out.put_slice(b"{\"metadata\":{");
        write_revision(out, self.revision);
        out.put_slice(rest);
    }

    /// Appends a `PartialObjectMetadata` of the object, of that version of `meta.k8s.io`.
    pub(crate) fn write_partial(&self, out: &mut BytesMut, revision: u64, api_version: &str) {
        let metadata = self.value.get(self.metadata_at as usize..).unwrap_or_default();
        let metadata = metadata.get(..object_end(metadata)).unwrap_or_default();
        out.reserve(metadata.len() + 128);
        out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
        out.put_slice(api_version.as_bytes());
        out.put_slice(b"\",\"metadata\":{");
        write_revision(out, revision);
        out.put_slice(metadata);
        out.put_slice(b"}}");
    }

    /// The object's protobuf message. The schema is that of the stored kind.
    pub(crate) fn protobuf(&self, schema: &Schema) -> Result<Bytes, Status> {
        let made = self.encodings.get_or_init(Box::default).protobuf.get_or_init(|| {
            let message = protobuf::encode_message(&self.decode()?, schema).map_err(Status::internal)?;
            Ok(message.into_boxed_slice().into())
        });
        made.clone()
    }

    /// The object in CBOR. The schema is that of the stored kind; custom resources have none.
    pub(crate) fn cbor(&self, schema: Option<&Schema>) -> Result<&cbor::Object, Status> {
        let made = self
            .encodings
            .get_or_init(Box::default)
            .cbor
            .get_or_init(|| cbor::Object::new(&self.decode()?, schema).map_err(Status::internal));
        made.as_ref().map_err(Clone::clone)
    }

    /// The decoded object, resourceVersion included.
    pub(crate) fn decode(&self) -> Result<Value, Status> {
        self.decode_at(self.revision)
    }

    /// As [`Entry::decode`], with another resourceVersion (a deletion's).
    pub(crate) fn decode_at(&self, revision: u64) -> Result<Value, Status> {
        // Text is checked once here, not string by string.
        let text = std::str::from_utf8(&self.value).map_err(Status::internal)?;
        let mut object: Value = serde_json::from_str(text).map_err(Status::internal)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), revision.to_string().into());
        }
        Ok(object)
    }

    /// The object as a typed view.
    pub(crate) fn typed<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Status> {
        serde_json::from_slice(&self.value).map_err(Status::internal)
    }
}

fn write_revision(out: &mut BytesMut, revision: u64) {
    use std::fmt::Write as _;
    // Writing to a buffer that grows cannot fail.
    let _ = write!(out, "\"resourceVersion\":\"{revision}\",");
}

/// Where the JSON object ends whose fields these are: at its closing brace.
fn object_end(fields: &[u8]) -> usize {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (i, byte) in fields.iter().enumerate() {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_text = false,
            (true, _) => {}
            (false, b'"') => in_text = true,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') if depth == 0 => return i,
            (false, b'}' | b']') => depth -= 1,
            (false, _) => {}
        }
    }
    fields.len()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A comma, unless the object has just begun.
fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

/// A scratch buffer larger than this is not kept.
const MAX_SCRATCH: usize = 256 << 10;

thread_local! {
    /// Objects are written here and copied out when their size is known. A buffer of its own for each, cut to its size
    /// afterwards, would leave a hole behind every object: with 100,000 of them, more than they themselves are.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Serializes an object for the store: type first, no resourceVersion. `managed` is the JSON of managed fields that the object
/// has not.
pub(crate) fn encode(object: &Value, managed: Option<&[u8]>) -> Result<Bytes, Status> {
    let Some(map) = object.as_object() else { return Err(Status::internal("an object to store is no JSON object")) };
    SCRATCH.with_borrow_mut(|out| {
        out.clear();
        write_stored(map, managed, out);
        let bytes = Bytes::copy_from_slice(out);
        if out.capacity() > MAX_SCRATCH {
            *out = Vec::new();
        }
        Ok(bytes)
    })
}

fn write_stored(map: &Map<String, Value>, managed: Option<&[u8]>, out: &mut Vec<u8>) {
    let empty = Value::Object(Map::new());
    out.extend_from_slice(b"{\"kind\":");
    json::write(map.get("kind").unwrap_or(&Value::Null), out);
    out.extend_from_slice(b",\"apiVersion\":");
    json::write(map.get("apiVersion").unwrap_or(&Value::Null), out);
    out.extend_from_slice(b",\"metadata\":{");
    let metadata = map.get("metadata").unwrap_or(&empty).as_object();
    let fields = metadata.into_iter().flatten().filter(|(k, v)| *k != "resourceVersion" && !v.is_null());
    // Among the others by its name, where it would be if it were one of them.
    let mut managed = managed;
    let put_managed = |out: &mut Vec<u8>, managed: &[u8]| {
        separate(out);
        out.extend_from_slice(b"\"managedFields\":");
        out.extend_from_slice(managed);
    };
    for (key, value) in fields {
        if let Some(managed) = managed.take_if(|_| key.as_str() > "managedFields") {
            put_managed(out, managed);
        }
        separate(out);
        json::write_text(key, out);
        out.push(b':');
        json::write(value, out);
    }
    if let Some(managed) = managed {
        put_managed(out, managed);
    }
    out.push(b'}');
    for (key, value) in map.iter().filter(|(k, _)| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata")) {
        out.push(b',');
        json::write_text(key, out);
        out.push(b':');
        json::write(value, out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use keelson_api::codec::Encoding;
    use keelson_api::kinds;
    use serde_json::json;

    use super::*;
    use crate::cache::frames::{FrameKey, Frames};
    use crate::cache::resource::EventType;

    fn entry() -> (Arc<Kind>, Entry) {
        let kind = Arc::new(kinds::all().into_iter().find(|kind| kind.kind == "Secret").unwrap());
        let object = json!({
            "kind": "Secret", "apiVersion": "v1", "data": {"k": "AAE="},
            "metadata": {"name": "a", "namespace": "n", "annotations": {"x": "} \\\" {[", "y": "]"}, "uid": "u"},
        });
        let kv = KeyValue {
            key: "/registry/secrets/n/a".into(),
            value: encode(&object, None).unwrap(),
            create_revision: 3,
            mod_revision: 7,
        };
        let entry = Entry::new(&kind, kv).unwrap();
        (kind, entry)
    }

    #[test]
    fn every_encoding_is_made_once() {
        let (kind, entry) = entry();
        assert!(entry.encodings.get().is_none(), "nothing is made before it is asked for");
        let schema = protobuf::schema_for("v1", "Secret").unwrap();
        let first = entry.protobuf(schema).unwrap();
        assert_eq!(first.as_ptr(), entry.protobuf(schema).unwrap().as_ptr());
        let object = protobuf::decode_message(&first, schema).unwrap();
        assert_eq!(object["metadata"]["resourceVersion"], "7");
        let first = std::ptr::from_ref(entry.cbor(Some(schema)).unwrap());
        assert!(std::ptr::eq(first, entry.cbor(None).unwrap()));

        let frames = Frames::default();
        let key = |partial| FrameKey { event: EventType::Added, encoding: Encoding::Cbor, partial, kind: kind.clone() };
        let mut made = 0;
        for partial in [None, None, Some(true), Some(true), Some(false), None] {
            frames
                .get(&key(partial), || {
                    made += 1;
                    Ok(Bytes::new())
                })
                .unwrap();
        }
        assert_eq!(made, 3);
    }

    #[test]
    fn managed_fields_may_come_apart() {
        for others in
            [json!({}), json!({"labels": {"a": "b"}, "name": "a"}), json!({"name": "a"}), json!({"labels": {}})]
        {
            let apart = json!({"kind": "K", "apiVersion": "v1", "metadata": others, "data": {}});
            let mut inside = apart.clone();
            inside["metadata"]["managedFields"] = json!([{"manager": "m"}]);
            assert_eq!(encode(&apart, Some(br#"[{"manager":"m"}]"#)).unwrap(), encode(&inside, None).unwrap());
        }
    }

    #[test]
    fn metadata_is_cut_out_of_the_stored_bytes() {
        let (_, entry) = entry();
        let mut out = BytesMut::new();
        entry.write_partial(&mut out, 9, "meta.k8s.io/v1");
        let partial: Value = serde_json::from_slice(&out).unwrap();
        let mut expected = entry.decode().unwrap();
        expected["metadata"]["resourceVersion"] = "9".into();
        let expected = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": expected["metadata"],
        });
        assert_eq!(partial, expected);
    }
}
