//! Snapshot files: the live state at one revision, in checksummed blocks. Used for compaction and for backups.
//!
//! ```text
//! header  = magic store_id revision log_sequence crc
//! block   = len crc item*          (len > 0)
//! footer  = 0 crc items bytes      (len = 0; nothing may follow)
//! item    = key_len value_len create_revision mod_revision key value
//! ```

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    format::{Reader, own},
    segment::write_durably,
    state::{Entry, Map, RingLimit, State, Version},
};
use crate::Error;

const MAGIC: [u8; 8] = *b"KEELSNP1";
const HEADER: usize = 36;
/// A block is closed when it reaches this size; one value may make it longer.
const BLOCK: usize = 256 << 10;
const MAX_BLOCK: usize = 64 << 20;

/// What a snapshot says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store_id: u64,
    pub(super) revision: u64,
    /// The first segment needed to go on from here.
    pub(super) log_sequence: u64,
}

/// The name of the snapshot of this revision.
pub(super) fn name(revision: u64) -> String {
    format!("{revision:020}.snap")
}

/// Writes a snapshot durably to `path`. Returns its size.
pub(super) fn write(path: &Path, header: Header, map: &Map) -> io::Result<u64> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut total = HEADER as u64;
    write_durably(dir, path, |file| {
        let mut head = Vec::with_capacity(HEADER);
        head.extend_from_slice(&MAGIC);
        for field in [header.store_id, header.revision, header.log_sequence] {
            head.extend_from_slice(&field.to_le_bytes());
        }
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        file.write_all(&head)?;
        let mut items = 0u64;
        let mut block = Vec::with_capacity(BLOCK + 4096);
        let flush = |file: &mut File, block: &mut Vec<u8>, total: &mut u64| {
            if !block.is_empty() {
                file.write_all(&(block.len() as u32).to_le_bytes())?;
                file.write_all(&crc32fast::hash(block).to_le_bytes())?;
                file.write_all(block)?;
                *total += 8 + block.len() as u64;
                block.clear();
            }
            io::Result::Ok(())
        };
        for (key, entry) in map {
            let Some((version, value)) = entry.at(header.revision).and_then(|v| Some((v, v.value.as_ref()?))) else {
                continue;
            };
            items += 1;
            block.extend_from_slice(&(key.len() as u32).to_le_bytes());
            block.extend_from_slice(&(value.len() as u32).to_le_bytes());
            block.extend_from_slice(&version.create_revision.to_le_bytes());
            block.extend_from_slice(&version.revision.to_le_bytes());
            block.extend_from_slice(key.as_bytes());
            block.extend_from_slice(value);
            if block.len() >= BLOCK {
                flush(file, &mut block, &mut total)?;
            }
        }
        flush(file, &mut block, &mut total)?;
        let mut counts = Vec::with_capacity(16);
        counts.extend_from_slice(&items.to_le_bytes());
        counts.extend_from_slice(&total.to_le_bytes());
        file.write_all(&0u32.to_le_bytes())?;
        file.write_all(&crc32fast::hash(&counts).to_le_bytes())?;
        file.write_all(&counts)
    })?;
    Ok(total + 24)
}

/// Reads a snapshot; anything but a whole one is [`Error::Corrupt`].
pub(super) fn read(path: &Path, limit: RingLimit) -> Result<(Header, State, u64), Error> {
    let file = File::open(path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
    let mut source = Source { file: io::BufReader::with_capacity(BLOCK, file), path: path.to_owned(), offset: 0 };

    let head = source.take(HEADER)?;
    let header = parse_header(&head).ok_or_else(|| source.corrupt_at(0, "the snapshot's header is damaged"))?;
    let mut map = Map::new();
    let mut items = 0u64;
    let mut last: Option<Arc<str>> = None;
    loop {
        let at = source.offset;
        let prefix = source.take(8)?;
        let mut r = Reader(&prefix);
        let (len, crc) = (r.u32().unwrap_or_default() as usize, r.u32().unwrap_or_default());
        let footer = len == 0;
        if len > MAX_BLOCK {
            return Err(source.corrupt_at(at, "a block's length is impossible"));
        }
        let block = source.take(if footer { 16 } else { len })?;
        if crc32fast::hash(&block) != crc {
            return Err(source.corrupt_at(at, "a block of the snapshot fails its checksum"));
        }
        let mut r = Reader(&block);
        if footer {
            if r.u64() != Some(items) || r.u64() != Some(at) {
                return Err(source.corrupt_at(at, "the snapshot is not complete"));
            }
            source.end()?;
            let size = source.offset;
            return Ok((header, State::new(map, header.revision, limit), size));
        }
        while !r.0.is_empty() {
            let item = parse_item(&mut r).filter(|(_, v)| v.revision <= header.revision);
            let (key, version) = item.ok_or_else(|| source.corrupt_at(at, "an item makes no sense"))?;
            if last.as_ref().is_some_and(|l| **l >= *key) {
                return Err(source.corrupt_at(at, "keys are out of order"));
            }
            last = Some(key.clone());
            map.insert(key, Entry::new(version));
            items += 1;
        }
    }
}

fn parse_header(head: &[u8]) -> Option<Header> {
    let (body, mut crc) = (head.get(..HEADER - 4)?, Reader(head.get(HEADER - 4..)?));
    let mut r = Reader(body);
    if crc.u32()? != crc32fast::hash(body) || r.take(8)? != MAGIC {
        return None;
    }
    Some(Header { store_id: r.u64()?, revision: r.u64()?, log_sequence: r.u64()? })
}

fn parse_item(r: &mut Reader<'_>) -> Option<(Arc<str>, Version)> {
    let (key_len, value_len) = (r.u32()?, r.u32()?);
    let (create_revision, revision) = (r.u64()?, r.u64()?);
    let key = Arc::from(r.str(key_len as usize)?);
    let value = Some(own(r.take(value_len as usize)?));
    Some((key, Version { revision, create_revision, value }))
}

/// A file read front to back, which knows where it is.
struct Source {
    file: io::BufReader<File>,
    path: PathBuf,
    offset: u64,
}

impl Source {
    fn take(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(len);
        let read = (&mut self.file).take(len as u64).read_to_end(&mut out);
        read.map_err(|e| Error::io(format!("cannot read {}", self.path.display()), e))?;
        if out.len() < len {
            return Err(self.corrupt_at(self.offset + out.len() as u64, "the snapshot ends too early"));
        }
        self.offset += len as u64;
        Ok(out)
    }

    fn end(&mut self) -> Result<(), Error> {
        let mut one = [0u8; 1];
        match self.file.read(&mut one) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.corrupt_at(self.offset, "there is something after the snapshot's end")),
            Err(e) => Err(Error::io(format!("cannot read {}", self.path.display()), e)),
        }
    }

    fn corrupt_at(&self, offset: u64, what: &str) -> Error {
        Error::corrupt(&self.path, offset, what)
    }
}
