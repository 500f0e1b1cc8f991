//! The active segment: appending a batch durably, growing the file ahead of it, and undoing a write that failed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::format::{SEGMENT_HEADER, SegmentHeader, batch_start};

static ZEROS: [u8; 128 << 10] = [0; 128 << 10];

/// A log file open for appending.
pub(super) struct Segment {
    file: File,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Where the last batch ends.
    pub(super) position: u64,
    /// Up to here the file is allocated and filled with zeros.
    allocated: u64,
    /// A range that a failed write may have left half written: zeros go there before anything else.
    dirty: Option<(u64, u64)>,
}

impl Segment {
    /// The name of the segment with this sequence number.
    pub(super) fn name(sequence: u64) -> String {
        format!("{sequence:016}.log")
    }

    /// Makes a segment and makes its existence durable.
    pub(super) fn create(dir: &Path, header: SegmentHeader) -> io::Result<Segment> {
        let path = dir.join(Self::name(header.sequence));
        write_durably(dir, &path, |file| {
            file.write_all(&header.encode())?;
            let chunk = u64::from(header.chunk);
            allocate(file, SEGMENT_HEADER as u64, chunk.max(SEGMENT_HEADER as u64))
        })?;
        Self::open(path, header, SEGMENT_HEADER as u64)
    }

    /// Opens a segment whose batches are known to end at `position`.
    pub(super) fn open(path: PathBuf, header: SegmentHeader, position: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let allocated = file.metadata()?.len();
        Ok(Segment { file, path, header, position, allocated, dirty: None })
    }

    /// Where the next batch goes.
    pub(super) fn next_start(&self) -> u64 {
        batch_start(self.position)
    }

    /// Writes a batch at [`Self::next_start`] and waits until it is durable. On an error nothing of it stays; if even that
    /// cannot be had now, it is tried again before the next batch.
    pub(super) fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        self.repair()?;
        let start = self.next_start();
        let end = start + batch.len() as u64;
        if end > self.allocated {
            self.extend(end)?;
        }
        self.dirty = Some((start, end));
        let written = self.file.write_all_at(batch, start).and_then(|()| Ok(rustix::fs::fdatasync(&self.file)?));
        match written {
            Ok(()) => {
                self.position = end;
                self.dirty = None;
                Ok(())
            }
            Err(error) => {
                if let Err(repair) = self.repair() {
                    tracing::warn!(file = %self.path.display(), error = %repair, "cannot undo a failed write yet");
                }
                Err(error)
            }
        }
    }

    /// Puts zeros over a range and makes them durable.
    pub(super) fn erase(&mut self, start: u64, end: u64) -> io::Result<()> {
        self.dirty = Some((start, end));
        self.repair()
    }

    fn repair(&mut self) -> io::Result<()> {
        if let Some((start, end)) = self.dirty {
            zero(&self.file, start, end)?;
            rustix::fs::fdatasync(&self.file)?;
            self.dirty = None;
        }
        Ok(())
    }

    /// Grows the file, and makes that durable before any batch relies on it: a file that ends within a batch has then
    /// been cut off by something else than a crash.
    fn extend(&mut self, end: u64) -> io::Result<()> {
        let target = end.next_multiple_of(u64::from(self.header.chunk));
        let grown = allocate(&self.file, self.allocated, target).and_then(|()| Ok(rustix::fs::fdatasync(&self.file)?));
        if let Err(error) = grown {
            if let Err(undo) = self.file.set_len(self.allocated) {
                tracing::warn!(file = %self.path.display(), error = %undo, "cannot shrink a file after failing to grow it");
            }
            return Err(error);
        }
        self.allocated = target;
        Ok(())
    }
}

/// Reserves the blocks, then writes zeros: writing into blocks that are reserved but unwritten costs the file system a
/// journal commit each time, which is most of what a small durable write costs.
fn allocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), start, end.saturating_sub(start).max(1)) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    zero(file, start, end)
}

fn zero(file: &File, mut start: u64, end: u64) -> io::Result<()> {
    while start < end {
        let len = (end - start).min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..len as usize).unwrap_or(&ZEROS);
        file.write_all_at(zeros, start)?;
        start += len;
    }
    Ok(())
}

/// Makes a file that is there entirely or not at all, whatever happens: temporary name, sync, rename, sync.
pub(super) fn write_durably(dir: &Path, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let result = (|| {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        sync_dir(dir)
    })();
    if result.is_err() {
        // Best effort: left-over temporary files are removed at the next start as well.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
