//! What the bytes on disk mean: segment headers, batches and the records in them. Pure; files are elsewhere.
//!
//! ```text
//! segment = header (one sector) batch* zero*
//! batch   = header (48 bytes, never across a sector's border) records 0xff* trailer (8 bytes), a multiple of 16 bytes
//! record  = 1 key_len value_len key value | 2 key_len key | 3 revision | 4 next_segment
//! ```
//! All numbers are little-endian. A batch is what one `fdatasync` made durable; its CRC covers all of it.

use bytes::Bytes;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Batches start and end at multiples of this, which keeps headers and trailers inside one sector.
const ALIGN: usize = 16;
pub(super) const BATCH_HEADER: usize = 48;
pub(super) const SEGMENT_HEADER: usize = SECTOR;
const TRAILER: [u8; 8] = *b"endbatch";
const BATCH_MAGIC: u32 = 0x4b4c_4231;
const SEGMENT_MAGIC: [u8; 8] = *b"KEELLOG1";
/// A sector with fewer nonzero bytes than this might look unwritten after a little damage; see [`BatchHeader::sparse`].
const SPARSE_BELOW: usize = 8;
/// No batch is longer; the writer splits what waits at a smaller size.
pub(super) const MAX_BATCH: usize = 64 << 20;

pub(super) const MAX_KEY: usize = 4096;
pub(super) const MAX_VALUE: usize = 16 << 20;

/// The first sector of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Random, the same in all files of a store: a segment of another store is noticed.
    pub(super) store_id: u64,
    /// Position among the segments, from 1, without gaps.
    pub(super) sequence: u64,
    /// The next revision when the segment was made.
    pub(super) first_revision: u64,
    /// The chain value of the last batch before this segment.
    pub(super) chain: u32,
    /// The file grows by this many bytes at a time.
    pub(super) chunk: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0u8; SEGMENT_HEADER];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..16].copy_from_slice(&self.store_id.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_revision.to_le_bytes());
        out[32..36].copy_from_slice(&self.chain.to_le_bytes());
        out[36..40].copy_from_slice(&self.chunk.to_le_bytes());
        let crc = crc32fast::hash(&out[..SEGMENT_HEADER - 4]);
        out[SEGMENT_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes.get(..SEGMENT_HEADER).ok_or("the file is shorter than a segment's header")?;
        let (body, crc) = header.split_at(SEGMENT_HEADER - 4);
        let mut r = Reader(crc);
        if r.u32() != Some(crc32fast::hash(body)) {
            return Err("the segment's header fails its checksum");
        }
        let mut r = Reader(body);
        let read = |r: &mut Reader<'_>| {
            let magic = r.take(8)?;
            Some((magic == SEGMENT_MAGIC, r.u64()?, r.u64()?, r.u64()?, r.u32()?, r.u32()?))
        };
        match read(&mut r) {
            Some((true, store_id, sequence, first_revision, chain, chunk)) if chunk as usize >= SECTOR => {
                Ok(SegmentHeader { store_id, sequence, first_revision, chain, chunk })
            }
            _ => Err("this is not a segment of a version that this program knows"),
        }
    }
}

/// The start of every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    payload_len: u32,
    /// How many of the batch's sectors, after its first, hold next to nothing by nature. A write that was torn leaves
    /// more all-zero sectors than that; damage never does.
    pub(super) sparse: u32,
    pub(super) first_revision: u64,
    /// How many revisions it makes.
    pub(super) count: u32,
    body_crc: u32,
    /// The chain value before this batch: ties each batch to the one before.
    pub(super) previous: u32,
    pub(super) store_id: u64,
    /// This batch's chain value: the CRC of all the above.
    pub(super) chain: u32,
}

impl BatchHeader {
    fn encode(&self) -> [u8; BATCH_HEADER] {
        let mut out = [0u8; BATCH_HEADER];
        out[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        out[8..12].copy_from_slice(&self.sparse.to_le_bytes());
        out[12..20].copy_from_slice(&self.first_revision.to_le_bytes());
        out[20..24].copy_from_slice(&self.count.to_le_bytes());
        out[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        out[28..32].copy_from_slice(&self.previous.to_le_bytes());
        out[32..40].copy_from_slice(&self.store_id.to_le_bytes());
        let crc = crc32fast::hash(&out[..BATCH_HEADER - 4]);
        out[BATCH_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes.get(..BATCH_HEADER).ok_or("the file ends within a batch's header")?;
        let (body, crc) = header.split_at(BATCH_HEADER - 4);
        let chain = Reader(crc).u32().unwrap_or_default();
        if chain != crc32fast::hash(body) {
            return Err("a batch's header fails its checksum");
        }
        let mut r = Reader(body);
        let mut read = || {
            let magic = r.u32()?;
            let payload_len = r.u32()?;
            let sparse = r.u32()?;
            let header = BatchHeader {
                payload_len,
                sparse,
                first_revision: r.u64()?,
                count: r.u32()?,
                body_crc: r.u32()?,
                previous: r.u32()?,
                store_id: r.u64()?,
                chain,
            };
            (magic == BATCH_MAGIC && payload_len as usize <= MAX_BATCH).then_some(header)
        };
        read().ok_or("a batch's header is not of a version that this program knows")
    }

    /// Bytes from the header's first to the trailer's last.
    pub(super) fn total(&self) -> usize {
        (BATCH_HEADER + self.payload_len as usize + TRAILER.len()).next_multiple_of(ALIGN)
    }

    /// The records, if the checksum of the batch (header included) holds.
    pub(super) fn payload<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        let body = batch.get(BATCH_HEADER..self.total())?;
        if crc32fast::hash(body) != self.body_crc {
            return None;
        }
        body.get(..self.payload_len as usize)
    }
}

/// Where a batch starts, if the bytes before it end at `position`.
pub(super) fn batch_start(position: u64) -> u64 {
    let left = SECTOR as u64 - position % SECTOR as u64;
    if left < BATCH_HEADER as u64 { position + left } else { position }
}

/// A batch under construction. The buffer is kept between batches.
#[derive(Default)]
pub(super) struct BatchWriter {
    buffer: Vec<u8>,
    count: u32,
}

impl BatchWriter {
    pub(super) fn clear(&mut self) {
        // One huge batch should not hold its memory for ever.
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER, 0);
        self.count = 0;
    }

    pub(super) fn put(&mut self, key: &str, value: &[u8]) {
        self.count += 1;
        self.buffer.push(1);
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer.extend_from_slice(value);
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.count += 1;
        self.buffer.push(2);
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(key.as_bytes());
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.buffer.push(3);
        self.buffer.extend_from_slice(&revision.to_le_bytes());
    }

    pub(super) fn seal(&mut self, next_segment: u64) {
        self.buffer.push(4);
        self.buffer.extend_from_slice(&next_segment.to_le_bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.len() <= BATCH_HEADER
    }

    /// The finished batch, to be written at `start`, and its chain value.
    pub(super) fn finish(&mut self, start: u64, store_id: u64, first_revision: u64, previous: u32) -> (&[u8], u32) {
        let payload_len = self.buffer.len() - BATCH_HEADER;
        let total = (self.buffer.len() + TRAILER.len()).next_multiple_of(ALIGN);
        self.buffer.resize(total - TRAILER.len(), 0xff);
        self.buffer.extend_from_slice(&TRAILER);
        let mut header = BatchHeader {
            payload_len: payload_len as u32,
            sparse: 0,
            first_revision,
            count: self.count,
            body_crc: crc32fast::hash(&self.buffer[BATCH_HEADER..]),
            previous,
            store_id,
            chain: 0,
        };
        header.sparse = sectors(&self.buffer, start).skip(1).filter(|s| is_sparse(s)).count() as u32;
        let encoded = header.encode();
        self.buffer[..BATCH_HEADER].copy_from_slice(&encoded);
        let chain = Reader(&encoded[BATCH_HEADER - 4..]).u32().unwrap_or_default();
        (&self.buffer, chain)
    }
}

/// The parts of `bytes`, which lie at `start` of a file, that are in different sectors.
fn sectors(bytes: &[u8], start: u64) -> impl Iterator<Item = &[u8]> {
    let first = (SECTOR - (start % SECTOR as u64) as usize).min(bytes.len());
    let (head, tail) = bytes.split_at(first);
    std::iter::once(head).chain(tail.chunks(SECTOR))
}

fn is_sparse(sector: &[u8]) -> bool {
    sector.iter().filter(|b| **b != 0).take(SPARSE_BELOW).count() < SPARSE_BELOW
}

/// How many sectors of a batch at `start` are all zeros.
pub(super) fn zero_sectors(batch: &[u8], start: u64) -> u32 {
    sectors(batch, start).filter(|s| is_zero(s)).count() as u32
}

/// Whether all bytes are zeros; compares in blocks.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|c| ZEROS.get(..c.len()) == Some(c))
}

/// One record of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Put { key: &'a str, value: &'a [u8] },
    Delete { key: &'a str },
    Compact { revision: u64 },
    Seal { next_segment: u64 },
}

/// Reads records one after the other; `None` at the end, `Err` where the bytes make no sense.
pub(super) fn next_record<'a>(reader: &mut Reader<'a>) -> Option<Result<Record<'a>, &'static str>> {
    if reader.0.is_empty() {
        return None;
    }
    let mut read = || {
        Some(match reader.u8()? {
            1 => {
                let (key_len, value_len) = (reader.u32()?, reader.u32()?);
                let key = reader.str(key_len as usize)?;
                Record::Put { key, value: reader.take(value_len as usize)? }
            }
            2 => {
                let key_len = reader.u32()?;
                Record::Delete { key: reader.str(key_len as usize)? }
            }
            3 => Record::Compact { revision: reader.u64()? },
            4 => Record::Seal { next_segment: reader.u64()? },
            _ => return None,
        })
    };
    Some(read().ok_or("a record makes no sense although its checksum holds"))
}

/// Takes little-endian things off the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn str(&mut self, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(len)?).ok()
    }
}

/// Copies a value out of a file's buffer, so that it does not keep the buffer alive.
pub(super) fn own(value: &[u8]) -> Bytes {
    Bytes::from(Box::<[u8]>::from(value))
}
