//! Watches a layer's tar stream on its way to the reader for what the reader would take into memory whole: long names and
//! PAX records. It reads no more than it must to know where entries begin.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Size of a tar block, in bytes.
const BLOCK: usize = 512;
/// Longest name or set of records of one entry, in bytes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Passes a tar stream on.
pub(super) struct Guard<R> {
    inner: R,
    state: State,
    /// The block that is being collected, or the PAX records.
    buffer: Vec<u8>,
    /// Size that PAX records give the next entry.
    size: Option<u64>,
}

enum State {
    Header,
    /// Further parts of a sparse file's map; then its content, so many bytes of it.
    Sparse(u64),
    /// Records of the next entry, so many bytes still.
    Records(u64, u64),
    /// Content, so many bytes with what fills the last block.
    Content(u64),
    /// What is not understood here is not either by the reader, which says so.
    Unknown,
}

impl<R: Read> Guard<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, state: State::Header, buffer: Vec::with_capacity(BLOCK), size: None }
    }

    /// Follows `bytes` of the stream.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Unknown => return Ok(()),
                State::Content(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        self.state = State::Header;
                    }
                }
                State::Records(left, padding) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                    *left -= taken as u64;
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        let padding = *padding;
                        self.size = size_record(&self.buffer);
                        self.buffer.clear();
                        self.state = after(padding);
                    }
                }
                State::Header | State::Sparse(_) => {
                    let taken = bytes.len().min(BLOCK - self.buffer.len());
                    self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if self.buffer.len() == BLOCK {
                        self.state = self.block()?;
                        self.buffer.clear();
                    }
                }
            }
        }
        Ok(())
    }

    /// What follows the collected block.
    fn block(&mut self) -> io::Result<State> {
        let flag = |at: usize| self.buffer.get(at).is_some_and(|byte| *byte == 1);
        if let State::Sparse(content) = self.state {
            return Ok(if flag(504) { State::Sparse(content) } else { after(content) });
        }
        if self.buffer.iter().all(|byte| *byte == 0) {
            return Ok(State::Header);
        }
        let header = Header::from_byte_slice(&self.buffer);
        let Ok(own) = header.entry_size() else { return Ok(State::Unknown) };
        let kind = header.entry_type();
        let extension = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if extension && own > MAX_EXTENSION_BYTES {
            let message = format!("an entry's name or records have {own} bytes, more than {MAX_EXTENSION_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if kind == EntryType::XHeader {
            let padding = padded(own).map(|padded| padded - own);
            return Ok(padding.map_or(State::Unknown, |padding| {
                if own == 0 { State::Header } else { State::Records(own, padding) }
            }));
        }
        let size = if extension { own } else { self.size.take().unwrap_or(own) };
        let Some(content) = padded(size) else { return Ok(State::Unknown) };
        Ok(if kind == EntryType::GNUSparse && flag(482) { State::Sparse(content) } else { after(content) })
    }
}

fn after(content: u64) -> State {
    if content == 0 { State::Header } else { State::Content(content) }
}

fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
}

/// The value of the record `size`.
fn size_record(records: &[u8]) -> Option<u64> {
    let value = records.split(|byte| *byte == b'\n').rev().find_map(|record| {
        let text = record.split(|byte| *byte == b' ').nth(1)?;
        text.strip_prefix(b"size=")
    })?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.follow(buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}
