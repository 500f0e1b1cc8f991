//! Reading a directory back: the newest snapshot, the segments after it, and the judgement whether a bad end of the log is a
//! write that a crash tore (undone, with a warning) or damage (refused). The reasons are in the parent module's head.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Options,
    format::{
        BATCH_HEADER, BatchHeader, BatchWriter, MAX_BATCH, Reader, Record, SECTOR, SEGMENT_HEADER, SegmentHeader,
        batch_start, is_zero, next_record, own, zero_sectors,
    },
    segment::Segment,
    snapshot,
    state::{Map, State, Version},
};
use crate::Error;

/// A segment on disk and the first revision that may be in it.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    pub(super) first_revision: u64,
    /// Used bytes; of the active segment, those at its opening.
    pub(super) bytes: u64,
}

/// All that the writer needs to go on.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) active: Segment,
    pub(super) chain: u32,
    pub(super) store_id: u64,
    pub(super) logs: Vec<LogFile>,
    pub(super) snapshot: Option<PathBuf>,
    pub(super) snapshot_bytes: u64,
}

/// Reads everything in `dir`; makes a new store when there is nothing.
pub(super) fn recover(dir: &Path, options: &Options) -> Result<Recovered, Error> {
    let (mut logs, snapshots) = list(dir)?;
    let newest = snapshots.last_key_value().map(|(_, path)| path.clone());
    let (mut replay, first, snapshot_bytes) = match &newest {
        None => {
            let state = State::new(Map::new(), 0, options.ring());
            if logs.is_empty() {
                return create(dir, options, state);
            }
            (Replay { state, store_id: None, chain: None }, 1, 0)
        }
        Some(path) => {
            let (header, state, size) = snapshot::read(path, options.ring())?;
            if path.file_name() != Some(snapshot::name(header.revision).as_ref()) {
                return Err(Error::corrupt(path, 0, "the snapshot is of another revision than its name says"));
            }
            (Replay { state, store_id: Some(header.store_id), chain: None }, header.log_sequence, size)
        }
    };
    // What a compaction had made superfluous when it was cut short.
    let mut left_over: Vec<PathBuf> = snapshots.into_values().filter(|p| Some(p) != newest.as_ref()).collect();
    let needed = logs.split_off(&first);
    left_over.extend(logs.into_values());

    let mut known = Vec::new();
    let last = needed.last_key_value().map_or(0, |(sequence, _)| *sequence);
    let mut tail = None;
    let mut torn = Vec::new();
    let mut unsealed: Option<(PathBuf, SegmentHeader, u64)> = None;
    for sequence in first..=last.max(first) {
        let Some(path) = needed.get(&sequence) else {
            return Err(Error::corrupt(&dir.join(Segment::name(sequence)), 0, "the segment is missing"));
        };
        // A segment may be without its seal only while its successor is new and empty.
        let is_last = sequence == last;
        let before_last = sequence + 1 == last;
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        let scanned = replay.segment(path, &bytes, sequence, is_last || before_last)?;
        if let Some((unsealed_path, ..)) = &unsealed
            && scanned.end > SEGMENT_HEADER as u64
        {
            return Err(Error::corrupt(
                unsealed_path,
                0,
                "the log goes on in another segment but this one is not sealed",
            ));
        }
        let first_revision = scanned.header.first_revision;
        known.push(LogFile { path: path.clone(), sequence, first_revision, bytes: scanned.end });
        torn.extend(scanned.torn.map(|range| (path.clone(), scanned.header, scanned.end, range)));
        match (scanned.sealed, is_last) {
            (true, true) => {
                let missing = dir.join(Segment::name(sequence + 1));
                return Err(Error::corrupt(&missing, 0, "the segment is missing; the one before is sealed"));
            }
            (true, false) => {}
            (false, false) if before_last => unsealed = Some((path.clone(), scanned.header, scanned.end)),
            (false, false) => return Err(Error::corrupt(path, scanned.end, "the segment ends without a seal")),
            (false, true) => tail = Some((path.clone(), scanned.header, scanned.end)),
        }
    }
    let Some((path, header, end)) = tail else {
        return Err(Error::corrupt(dir, 0, "the log has no end"));
    };
    // Everything is known to be well: only now change files.
    for (path, header, end, (from, to)) in torn {
        tracing::warn!(
            file = %path.display(), offset = from, bytes = to - from,
            "the last write was cut off by a crash before it was acknowledged; it is undone"
        );
        let undo = Segment::open(path.clone(), header, end).and_then(|mut s| s.erase(from, to));
        undo.map_err(|e| Error::io(format!("cannot repair {}", path.display()), e))?;
    }
    let store_id = replay.store_id.unwrap_or_default();
    let chain = replay.chain.unwrap_or_default();
    if let Some((path, header, end)) = unsealed {
        let seal = Segment::open(path.clone(), header, end)
            .and_then(|mut s| append_seal(&mut s, store_id, replay.state.revision + 1, chain));
        seal.map_err(|e| Error::io(format!("cannot seal {}", path.display()), e))?;
    }
    for path in left_over {
        std::fs::remove_file(&path).map_err(|e| Error::io(format!("cannot remove {}", path.display()), e))?;
    }
    let active = Segment::open(path.clone(), header, end);
    Ok(Recovered {
        active: active.map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?,
        state: replay.state,
        chain,
        store_id,
        logs: known,
        snapshot: newest,
        snapshot_bytes,
    })
}

/// Ends a segment for good. The chain does not go through seals: the next segment exists already.
pub(super) fn append_seal(s: &mut Segment, store_id: u64, next_revision: u64, chain: u32) -> std::io::Result<()> {
    let mut batch = BatchWriter::default();
    batch.clear();
    batch.seal(s.header.sequence + 1);
    let (bytes, _) = batch.finish(s.next_start(), store_id, next_revision, chain);
    s.append(bytes)
}

fn create(dir: &Path, options: &Options, state: State) -> Result<Recovered, Error> {
    let (store_id, first_revision) = (random_id(), state.revision + 1);
    let header = SegmentHeader { store_id, sequence: 1, first_revision, chain: 0, chunk: options.chunk() };
    let active = Segment::create(dir, header).map_err(|e| Error::io("cannot make the first segment".into(), e))?;
    let logs = vec![LogFile { path: active.path.clone(), sequence: 1, first_revision, bytes: active.position }];
    Ok(Recovered { state, active, chain: 0, store_id, logs, snapshot: None, snapshot_bytes: 0 })
}

type Files = BTreeMap<u64, PathBuf>;

/// The segments by sequence and the snapshots by revision. Left-over temporary files are removed; strangers are let be.
fn list(dir: &Path) -> Result<(Files, Files), Error> {
    let (mut logs, mut snapshots) = (Files::new(), Files::new());
    let context = || format!("cannot list {}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(context(), e))? {
        let path = entry.map_err(|e| Error::io(context(), e))?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
        match (stem, path.extension().and_then(|e| e.to_str())) {
            (Some(n), Some("log")) => drop(logs.insert(n, path)),
            (Some(n), Some("snap")) => drop(snapshots.insert(n, path)),
            (Some(_), Some("tmp")) => {
                std::fs::remove_file(&path).map_err(|e| Error::io(format!("cannot remove {}", path.display()), e))?;
            }
            _ => {}
        }
    }
    Ok((logs, snapshots))
}

/// The standard library's hash seeds come from the kernel's random numbers.
pub(super) fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

struct Scanned {
    header: SegmentHeader,
    /// Where the last good batch ends.
    end: u64,
    sealed: bool,
    /// What a crash left of a write that nobody was told about.
    torn: Option<(u64, u64)>,
}

struct Replay {
    state: State,
    store_id: Option<u64>,
    /// The chain value after the last batch; unknown before the first segment.
    chain: Option<u32>,
}

impl Replay {
    fn segment(&mut self, path: &Path, bytes: &[u8], sequence: u64, may_be_torn: bool) -> Result<Scanned, Error> {
        let corrupt = |offset: usize, what: &str| Error::corrupt(path, offset as u64, what);
        let header = SegmentHeader::decode(bytes).map_err(|what| corrupt(0, what))?;
        if header.sequence != sequence {
            return Err(corrupt(16, "the segment's number is another than its name says"));
        }
        if *self.store_id.get_or_insert(header.store_id) != header.store_id {
            return Err(corrupt(8, "the segment is of another store"));
        }
        // The first segment after a snapshot may start before the snapshot's revision.
        let mut revision = header.first_revision;
        let mut chain = header.chain;
        match self.chain {
            Some(expected) if expected != chain => return Err(corrupt(32, "batches before this segment are missing")),
            Some(_) if revision != self.state.revision + 1 => return Err(corrupt(24, "revisions are missing")),
            None if revision > self.state.revision + 1 => return Err(corrupt(24, "revisions before it are missing")),
            _ => {}
        }
        let mut scanned = Scanned { header, end: SEGMENT_HEADER as u64, sealed: false, torn: None };
        let mut position = SEGMENT_HEADER;
        loop {
            let start = batch_start(position as u64) as usize;
            let (padding, rest) = match (bytes.get(position..start), bytes.get(start..)) {
                (Some(padding), Some(rest)) => (padding, rest),
                _ => break,
            };
            if !is_zero(padding) {
                return Err(corrupt(position, "there is something between two batches"));
            }
            if rest.len() < BATCH_HEADER && is_zero(rest) {
                break;
            }
            if is_zero(rest.get(..BATCH_HEADER).unwrap_or(rest)) {
                scanned.torn = unwritten_header(rest, start, may_be_torn && !scanned.sealed)
                    .map_err(|(offset, what)| corrupt(offset, what))?;
                break;
            }
            let batch = BatchHeader::decode(rest).map_err(|what| corrupt(start, what))?;
            if batch.store_id != header.store_id || batch.previous != chain || scanned.sealed {
                return Err(corrupt(start, "a batch is not the one that belongs after the one before"));
            }
            if batch.first_revision != revision {
                return Err(corrupt(start, "revisions are missing"));
            }
            let Some(whole) = rest.get(..batch.total()) else {
                return Err(corrupt(start, "the file ends within a batch"));
            };
            let Some(mut payload) = batch.payload(whole).map(Reader) else {
                let after = rest.get(batch.total()..).unwrap_or_default();
                if may_be_torn && zero_sectors(whole, start as u64) > batch.sparse && is_zero(after) {
                    scanned.torn = Some((start as u64, (start + batch.total()) as u64));
                    break;
                }
                return Err(corrupt(start, "a batch fails its checksum"));
            };
            let first = revision;
            while let Some(record) = next_record(&mut payload) {
                match record.map_err(|what| corrupt(start, what))? {
                    Record::Seal { .. } => scanned.sealed = true,
                    record => self.record(record, &mut revision).map_err(|what| corrupt(start, what))?,
                }
            }
            if revision - first != u64::from(batch.count) {
                return Err(corrupt(start, "a batch does not make the revisions that it says"));
            }
            position = start + batch.total();
            if !scanned.sealed {
                chain = batch.chain;
                scanned.end = position as u64;
            }
        }
        // Growing the file is durable before a batch uses the room, so a used part chunk means that an end was cut off.
        if !(bytes.len() as u64).is_multiple_of(u64::from(header.chunk))
            && position > bytes.len() - bytes.len() % header.chunk as usize
        {
            return Err(corrupt(bytes.len(), "the file was cut off"));
        }
        self.chain = Some(chain);
        if revision <= self.state.revision && !scanned.sealed {
            return Err(corrupt(position, "the log ends before the snapshot's revision"));
        }
        Ok(scanned)
    }

    fn record(&mut self, record: Record<'_>, revision: &mut u64) -> Result<(), &'static str> {
        let at = *revision;
        let known = at <= self.state.revision;
        let (key, value) = match record {
            Record::Put { key, value } => (key, Some(value)),
            Record::Delete { key } => (key, None),
            Record::Compact { revision } => {
                self.state.compact(revision.min(self.state.revision));
                return Ok(());
            }
            Record::Seal { .. } => return Ok(()),
        };
        *revision += 1;
        if known {
            return Ok(());
        }
        let current = self.state.map.get_key_value(key).map(|(k, e)| (k.clone(), e.current.clone()));
        let live = current.as_ref().filter(|(_, v)| v.value.is_some());
        let create_revision = match (&value, live) {
            (None, None) => return Err("a deletion of a key that is not there"),
            (_, Some((_, version))) => version.create_revision,
            (Some(_), None) => at,
        };
        let key = current.map_or_else(|| Arc::from(key), |(key, _)| key);
        self.state.apply(&key, Version { revision: at, create_revision, value: value.map(own) });
        Ok(())
    }
}

type Judgement = Result<Option<(u64, u64)>, (usize, &'static str)>;

/// The header's place holds zeros: the end of the log, or a write whose first sector never reached the disk, or damage.
fn unwritten_header(rest: &[u8], start: usize, may_be_torn: bool) -> Judgement {
    if is_zero(rest) {
        return Ok(None);
    }
    let first = rest.iter().position(|b| *b != 0).unwrap_or_default();
    let last = rest.iter().rposition(|b| *b != 0).unwrap_or_default();
    let sector_end = SECTOR - start % SECTOR;
    if !may_be_torn || first < sector_end || last >= MAX_BATCH {
        return Err((start + first, "there is something after the end of the log"));
    }
    let headers = (0..last).step_by(16).filter_map(|at| BatchHeader::decode(rest.get(at..)?).ok().map(|_| at));
    match headers.into_iter().next() {
        Some(at) => Err((start, if at > 0 { "a batch before another one is gone" } else { "a batch is gone" })),
        None => Ok(Some((start as u64, (start + last + 1) as u64))),
    }
}
