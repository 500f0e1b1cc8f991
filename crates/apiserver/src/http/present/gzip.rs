//! Compression while a body is sent.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::http::body::{Body, BoxError, Pieces};

/// Smaller bodies are not worth the work. Upstream's figure.
const THRESHOLD_BYTES: usize = 128 << 10;
/// Compressed bytes sent at a time, and plain bytes compressed at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The body, compressed if it is large, and whether it is.
pub(super) fn compressed(body: Body) -> (Body, bool) {
    match body {
        Body::Full(Some(bytes)) if bytes.len() > THRESHOLD_BYTES => {
            let pieces = std::iter::successors(Some(bytes), |rest| {
                let rest = rest.slice(PIECE_BYTES.min(rest.len())..);
                (!rest.is_empty()).then_some(rest)
            });
            (gzip(Box::new(pieces.map(|rest| Ok(rest.slice(..PIECE_BYTES.min(rest.len())))))), true)
        }
        Body::Chunks(mut chunks) => {
            let mut known = Vec::new();
            let mut length = 0;
            while length <= THRESHOLD_BYTES {
                match chunks.next() {
                    Some(Ok(chunk)) => {
                        length += chunk.len();
                        known.push(Ok(chunk));
                    }
                    Some(Err(error)) => {
                        known.push(Err(error));
                        return (Body::Chunks(Box::new(known.into_iter())), false);
                    }
                    None => return (Body::Chunks(Box::new(known.into_iter())), false),
                }
            }
            (gzip(Box::new(known.into_iter().chain(chunks))), true)
        }
        body => (body, false),
    }
}

fn gzip(pieces: Pieces) -> Body {
    let encoder = GzEncoder::new(Vec::with_capacity(PIECE_BYTES), Compression::fast());
    Body::Chunks(Box::new(Gzip { pieces, encoder: Some(encoder) }))
}

struct Gzip {
    pieces: Pieces,
    /// `None` at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Gzip {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let written = match self.pieces.next() {
                Some(piece) => piece.and_then(|piece| encoder.write_all(&piece).map_err(Into::into)),
                None => {
                    let rest = self.encoder.take()?.finish();
                    return Some(rest.map(Bytes::from).map_err(Into::into));
                }
            };
            if let Err(error) = written {
                self.encoder = None;
                return Some(Err(error));
            }
            if encoder.get_ref().len() >= PIECE_BYTES {
                let full = std::mem::replace(encoder.get_mut(), Vec::with_capacity(PIECE_BYTES));
                return Some(Ok(full.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn collect(body: Body) -> Vec<u8> {
        match body {
            Body::Full(bytes) => bytes.unwrap_or_default().to_vec(),
            Body::Chunks(chunks) => chunks.flat_map(Result::unwrap).collect(),
            Body::Stream(_) | Body::Witnessed(..) => panic!("no stream went in"),
        }
    }

    #[test]
    fn large_bodies_come_out_as_they_went_in() {
        let text: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let pieces: Vec<Result<Bytes, BoxError>> = text.chunks(70_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        for body in [Body::from(text.clone()), Body::Chunks(Box::new(pieces.into_iter()))] {
            let (body, done) = compressed(body);
            assert!(done);
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&*collect(body)).read_to_end(&mut out).unwrap();
            assert_eq!(out, text);
        }
    }

    #[test]
    fn small_ones_are_left_alone() {
        let chunks = Body::Chunks(Box::new(["a", "b"].into_iter().map(|s| Ok(Bytes::from(s)))));
        for (body, text) in [(Body::from("abc"), "abc"), (chunks, "ab"), (Body::empty(), "")] {
            let (body, done) = compressed(body);
            assert!(!done);
            assert_eq!(collect(body), text.as_bytes());
        }
    }
}
