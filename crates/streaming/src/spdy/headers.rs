//! Header blocks: names and values, compressed with one zlib stream per direction, primed with SPDY/3's dictionary.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What a block may come to when decompressed.
const MAX_BLOCK: usize = 64 << 10;

/// The dictionary's first part: each word follows its length, as it would in a header block.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// Its second part, as it is.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split(' ').map(|w| w.replace('_', " ")) {
        out.put_u32(word.len() as u32);
        out.put_slice(word.as_bytes());
    }
    out.put_slice(TEXT.as_bytes());
    out
}

/// The sending direction.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Result<Self, &'static str> {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).map_err(|_| "zlib refuses the dictionary")?;
        Ok(Deflater(zlib))
    }

    pub(super) fn encode(&mut self, headers: &HeaderMap) -> Result<Vec<u8>, &'static str> {
        let mut plain = Vec::new();
        plain.put_u32(headers.keys_len() as u32);
        for name in headers.keys() {
            let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let value = values.join(&0);
            for part in [name.as_str().as_bytes(), &value] {
                plain.put_u32(part.len() as u32);
                plain.put_slice(part);
            }
        }
        if plain.len() > MAX_BLOCK {
            return Err("too many headers");
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| "zlib cannot compress")?;
            rest = rest.get((self.0.total_in() - before) as usize..).unwrap_or_default();
            // With room left, all is flushed.
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

/// The receiving direction.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Inflater(Decompress::new(true))
    }

    pub(super) fn decode(&mut self, block: &[u8]) -> Result<HeaderMap, &'static str> {
        parse(&self.inflate(block)?).ok_or("a header block makes no sense")
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let (before_in, before_out) = (self.0.total_in(), out.len());
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err("the header stream ends"),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| "headers use another dictionary")?;
                }
                Err(_) => return Err("headers cannot be decompressed"),
            }
            let taken = (self.0.total_in() - before_in) as usize;
            rest = rest.get(taken..).unwrap_or_default();
            if out.len() > MAX_BLOCK {
                return Err("a header block is too long");
            }
            if out.len() == out.capacity() {
                out.reserve(4096);
            } else if rest.is_empty() {
                return Ok(out);
            } else if taken == 0 && out.len() == before_out && self.0.total_in() != 0 {
                return Err("headers cannot be decompressed");
            }
        }
    }
}

/// Names and values of a decompressed block.
fn parse(mut plain: &[u8]) -> Option<HeaderMap> {
    let count = plain.try_get_u32().ok()?;
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_bytes(part(&mut plain)?).ok()?;
        for value in part(&mut plain)?.split(|b| *b == 0) {
            headers.try_append(name.clone(), HeaderValue::from_bytes(value).ok()?).ok()?;
        }
    }
    plain.is_empty().then_some(headers)
}

/// A length and so many bytes.
fn part<'a>(plain: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = plain.try_get_u32().ok()?;
    let (part, rest) = plain.split_at_checked(len as usize)?;
    *plain = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adler-32 of the dictionary, which every SPDY/3 stream carries in its first bytes.
    #[test]
    fn the_dictionary_is_the_specifications() {
        assert_eq!(dictionary().len(), 1423);
        let first = Deflater::new().expect("zlib").encode(&HeaderMap::new()).expect("encodes");
        assert_eq!(first.get(2..6), Some(&[0xe3, 0xc6, 0xa7, 0xc2][..]));
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let (mut out, mut back) = (Deflater::new().expect("zlib"), Inflater::new());
        for n in 0..50 {
            let mut headers = HeaderMap::new();
            headers.insert("streamtype", HeaderValue::from_static("stdin"));
            headers.insert("port", HeaderValue::from(n));
            headers.append("many", HeaderValue::from_static("a"));
            headers.append("many", HeaderValue::from_str(&"b".repeat(n * 100)).expect("a value"));
            let block = out.encode(&headers).expect("encodes");
            assert_eq!(back.decode(&block).expect("decodes"), headers);
        }
        let empty = out.encode(&HeaderMap::new()).expect("encodes");
        assert!(back.decode(&empty).expect("decodes").is_empty());
    }

    #[test]
    fn a_small_block_cannot_become_a_big_one() {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary()).expect("zlib");
        let mut bomb = Vec::with_capacity(1 << 20);
        zlib.compress_vec(&vec![0; 2 << 20], &mut bomb, FlushCompress::Sync).expect("zlib");
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        assert_eq!(Inflater::new().decode(&bomb), Err("a header block is too long"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300), plain: bool) {
            if plain {
                let _ = parse(&bytes);
            }
            let _ = Inflater::new().decode(&bytes);
            let mut valid = Deflater::new().expect("zlib").encode(&HeaderMap::new()).expect("encodes");
            valid.extend_from_slice(&bytes);
            let _ = Inflater::new().decode(&valid);
        }
    }
}
