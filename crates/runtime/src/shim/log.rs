//! CRI container logs: `<RFC 3339 time> <stream> <P|F> <line>\n`, one file per container.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Longest line, in bytes; longer ones are cut into partial entries, as containerd does by default.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;

/// Which of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A container's log file and the unfinished line of each stream.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    pending: [Vec<u8>; 2],
}

impl Log {
    /// Opens `path` for appending.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: open(path)?, pending: [Vec::new(), Vec::new()] })
    }

    /// Goes on in a new file at the same path; the old one has been renamed.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Logs what was read from `stream` at `time`. A full disk loses lines rather than stopping the container.
    pub(crate) fn write(&mut self, stream: Stream, time: &str, data: &[u8]) {
        let Some(pending) = self.pending.get_mut(stream.index()) else { return };
        let mut out = Vec::with_capacity(data.len() + 256);
        format_lines(pending, stream, time, data, &mut out);
        append(&mut self.file, &out);
    }

    /// Logs what is left of an unfinished last line, as a partial entry.
    pub(crate) fn finish(&mut self, time: &str) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(pending) = self.pending.get_mut(stream.index()) else { continue };
            if !pending.is_empty() {
                let mut out = Vec::new();
                push_entry(&mut out, stream, time, "P", pending, &[]);
                append(&mut self.file, &out);
                pending.clear();
            }
        }
    }
}

/// Appends entries. When there is no room for all, those that fit stay: half an entry would spoil the one that comes once
/// there is room again.
fn append(file: &mut File, entries: &[u8]) {
    let mut written = 0;
    while let Some(rest) = entries.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let torn = entries.get(..written).unwrap_or_default().iter().rev().take_while(|byte| **byte != b'\n').count();
    if written < entries.len()
        && torn > 0
        && let Ok(metadata) = file.metadata()
    {
        let _ = file.set_len(metadata.len().saturating_sub(torn as u64));
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Cuts `pending` + `data` into entries in `out`; what has no newline yet stays in `pending`.
fn format_lines(pending: &mut Vec<u8>, stream: Stream, time: &str, data: &[u8], out: &mut Vec<u8>) {
    let mut rest = data;
    while !rest.is_empty() {
        let room = MAX_LINE_BYTES.saturating_sub(pending.len());
        let window = rest.get(..room.min(rest.len())).unwrap_or_default();
        if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
            push_entry(out, stream, time, "F", pending, window.get(..end).unwrap_or_default());
            pending.clear();
            rest = rest.get(end + 1..).unwrap_or_default();
        } else if rest.len() > room {
            // A newline right after a full window ends this very line.
            let next_is_newline = rest.get(room) == Some(&b'\n');
            push_entry(out, stream, time, if next_is_newline { "F" } else { "P" }, pending, window);
            pending.clear();
            rest = rest.get(room + usize::from(next_is_newline)..).unwrap_or_default();
        } else {
            pending.extend_from_slice(rest);
            rest = &[];
        }
    }
}

fn push_entry(out: &mut Vec<u8>, stream: Stream, time: &str, tag: &str, head: &[u8], tail: &[u8]) {
    for part in [time, " ", stream.name(), " ", tag, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], entries: &[&str], left: &[u8]) {
        let (mut pending, mut out) = (Vec::new(), Vec::new());
        for chunk in chunks {
            format_lines(&mut pending, Stream::Stdout, "T", chunk, &mut out);
        }
        let expected: String = entries.iter().map(|entry| format!("T stdout {entry}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&out), expected);
        assert_eq!(pending, left);
    }

    #[test]
    fn lines() {
        check(&[b"a\nb\n"], &["F a", "F b"], b"");
        check(&[b"a", b"b", b"\nc"], &["F ab"], b"c");
        check(&[b"\n\n"], &["F ", "F "], b"");
        check(&[b""], &[], b"");
    }

    #[test]
    fn long_lines_are_cut() {
        let full = "x".repeat(MAX_LINE_BYTES);
        let long = format!("{full}yy\n");
        check(&[long.as_bytes()], &[&format!("P {full}"), "F yy"], b"");
        let exact = format!("{full}\n");
        check(&[exact.as_bytes()], &[&format!("F {full}")], b"");
        check(&[full.as_bytes(), b"\n"], &[&format!("F {full}")], b"");
    }

    /// Needs root: the small disk is a tmpfs.
    #[test]
    fn a_full_disk_loses_whole_lines_and_no_later_ones() {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", dir.path(), "tmpfs", flags, c"size=32k").unwrap();
        let path = dir.path().join("c.log");
        let filler = dir.path().join("filler");
        std::fs::write(&filler, [0; 8 << 10]).unwrap();
        let mut log = Log::open(&path).unwrap();
        // Not a divisor of a page: the last one that fits would be torn.
        let line = format!("{}\n", "x".repeat(1000));
        for _ in 0..40 {
            log.write(Stream::Stdout, "T", line.as_bytes());
        }
        let full = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&filler).unwrap();
        log.write(Stream::Stdout, "T", b"there is room\n");
        let text = std::fs::read_to_string(&path).unwrap();
        drop(log);
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        let entry = format!("T stdout F {line}");
        assert!((20..40).contains(&full.lines().count()), "{} lines fit", full.lines().count());
        assert_eq!(text, entry.repeat(full.lines().count()) + "T stdout F there is room\n");
    }
}
