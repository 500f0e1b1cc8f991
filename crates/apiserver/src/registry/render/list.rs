//! Lists as they are sent: items are written in chunks while the client reads; the response is never built as a whole.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::Resource;
use super::super::lists::{Entries, Listed, list_metadata};

/// Bytes sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A list's JSON in chunks.
pub(super) struct JsonChunks {
    head: Option<Bytes>,
    entries: Entries,
    first: bool,
    over: bool,
}

impl JsonChunks {
    pub(super) fn new(resource: &Resource, listed: Listed) -> Self {
        let kind = &resource.kind;
        let metadata = list_metadata(listed.revision, listed.next.as_deref(), listed.remaining);
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.kind,
            kind.api_version()
        );
        Self { head: Some(head.into()), entries: listed.entries, first: true, over: false }
    }
}

impl Iterator for JsonChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut out = BytesMut::with_capacity(1024);
        if let Some(head) = self.head.take() {
            out.put_slice(&head);
        }
        while out.len() < CHUNK_BYTES {
            let Some(entry) = self.entries.next() else {
                out.put_slice(b"]}\n");
                self.over = true;
                break;
            };
            if !self.first {
                out.put_u8(b',');
            }
            self.first = false;
            entry.write_item(&mut out);
        }
        Some(out.freeze())
    }
}
