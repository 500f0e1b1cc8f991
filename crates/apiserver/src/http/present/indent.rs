//! JSON for people: two spaces per level, as Go's `MarshalIndent` writes it. Works on the text as it passes by.

use bytes::{BufMut, Bytes, BytesMut};

use crate::http::body::Body;

/// A JSON body, indented.
pub(super) fn indented(body: Body) -> Body {
    let mut indent = Indent::default();
    match body {
        Body::Full(Some(bytes)) => Body::Full(Some(indent.push(&bytes))),
        Body::Chunks(chunks) => Body::Chunks(Box::new(chunks.map(move |chunk| Ok(indent.push(&chunk?))))),
        body => body,
    }
}

/// Where in the text we are.
#[derive(Default)]
struct Indent {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// A brace or bracket was opened and nothing has followed yet: an empty one is not broken up.
    opened: bool,
}

impl Indent {
    fn push(&mut self, json: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(json.len() * 2);
        for &byte in json {
            if self.in_text {
                out.put_u8(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if self.opened != closes {
                self.line(&mut out);
            }
            self.opened = false;
            out.put_u8(byte);
            match byte {
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(&mut out),
                b':' => out.put_u8(b' '),
                b'"' => self.in_text = true,
                _ => {}
            }
        }
        out.freeze()
    }

    fn line(&self, out: &mut BytesMut) {
        out.put_u8(b'\n');
        out.put_bytes(b' ', self.depth * 2);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Indent;

    #[test]
    fn looks_as_serde_writes_it() {
        for value in [
            json!(null),
            json!({}),
            json!([]),
            json!({"a": {}, "b": [], "c": [1, -2.5, {"d": "x, {y} \\ \" [z]: \n"}], "e": true}),
            json!([[[]], [{}], ""]),
        ] {
            let text = value.to_string();
            let whole = Indent::default().push(text.as_bytes());
            assert_eq!(whole, serde_json::to_string_pretty(&value).unwrap());
            let mut indent = Indent::default();
            let pieces: Vec<u8> = text.as_bytes().chunks(1).flat_map(|piece| indent.push(piece)).collect();
            assert_eq!(serde_json::from_slice::<Value>(&pieces).unwrap(), value);
            assert_eq!(pieces, whole);
        }
    }
}
