//! Reading a log file: from the start, its last lines, or since a moment; in chunks, so that a log of any size costs a
//! fixed amount of memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use jiff::Timestamp;

use super::line;

/// Bytes read backwards at a time to find the last lines.
const BLOCK: u64 = 16 << 10;
/// Longest line; runtimes cut lines into parts of 16 KiB, so this is generous.
const MAX_LINE: u64 = 1 << 20;

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
    /// What is written later, too: without it, a read ends where the file ended when it was opened.
    pub follow: bool,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The output is full; there may be more.
    More,
    /// The end of the file as it is now.
    End,
    /// `limit_bytes` are out.
    Done,
}

/// A log file being read.
pub(crate) struct Reader {
    file: BufReader<Take<File>>,
    options: Options,
    left: Option<u64>,
    /// A line whose end is not written yet.
    unfinished: Vec<u8>,
    at_line_start: bool,
}

impl Reader {
    /// Opens `path` at the place the options ask for.
    pub(crate) fn open(path: &Path, options: Options) -> std::io::Result<Reader> {
        let mut file = File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let start = match options.tail_lines {
            Some(lines) => tail_offset(&mut file, size, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        let limit = if options.follow { u64::MAX } else { size - start };
        Ok(Reader {
            file: BufReader::with_capacity(32 << 10, file.take(limit)),
            options,
            left: options.limit_bytes,
            unfinished: Vec::new(),
            at_line_start: true,
        })
    }

    /// Goes on in another file (after rotation).
    pub(crate) fn switch(&mut self, path: &Path) -> std::io::Result<()> {
        self.file = BufReader::with_capacity(32 << 10, File::open(path)?.take(u64::MAX));
        self.unfinished.clear();
        Ok(())
    }

    /// Appends up to about `size` bytes to `output`.
    pub(crate) fn read(&mut self, output: &mut Vec<u8>, size: usize) -> std::io::Result<Progress> {
        loop {
            if self.left == Some(0) {
                return Ok(Progress::Done);
            }
            if output.len() >= size {
                return Ok(Progress::More);
            }
            let room = MAX_LINE.saturating_sub(self.unfinished.len() as u64);
            let read = (&mut self.file).take(room).read_until(b'\n', &mut self.unfinished)?;
            if self.unfinished.last() == Some(&b'\n') {
                self.unfinished.pop();
            } else if (self.unfinished.len() as u64) < MAX_LINE {
                if read == 0 {
                    return Ok(Progress::End);
                }
                continue;
            }
            let text = std::mem::take(&mut self.unfinished);
            self.emit(&text, output);
            self.unfinished = text;
            self.unfinished.clear();
        }
    }

    fn emit(&mut self, text: &[u8], output: &mut Vec<u8>) {
        let Some(line) = line::parse(text) else { return };
        if let Some(since) = self.options.since
            && line.timestamp().is_some_and(|time| time < since)
        {
            return;
        }
        let before = output.len();
        if self.options.timestamps && self.at_line_start {
            stamp(line.time, output);
            output.push(b' ');
        }
        output.extend_from_slice(line.text);
        if !line.partial {
            output.push(b'\n');
        }
        self.at_line_start = !line.partial;
        if let Some(left) = &mut self.left {
            let grown = (output.len() - before) as u64;
            if grown >= *left {
                output.truncate(before + *left as usize);
                *left = 0;
            } else {
                *left -= grown;
            }
        }
    }
}

/// Offset at which the last `lines` of the first `size` bytes' lines begin.
fn tail_offset(file: &mut File, size: u64, lines: u64) -> std::io::Result<u64> {
    if lines == 0 {
        return Ok(size);
    }
    let mut left = size;
    let mut found = 0;
    let mut block = Vec::new();
    while left > 0 {
        let start = left.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(left - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let at = start + index as u64;
            // The newline at the very end closes the last line; it begins none.
            if *byte == b'\n' && at + 1 != size {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        left = start;
    }
    Ok(0)
}

/// The end of a log as plain text, for termination messages.
pub(crate) fn tail_text(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let mut reader = Reader::open(path, Options { tail_lines: Some(lines as u64), ..Options::default() }).ok()?;
    let mut output = Vec::new();
    while reader.read(&mut output, usize::MAX).ok()? == Progress::More {}
    let start = output.len().saturating_sub(bytes);
    output.get(start..).map(|end| String::from_utf8_lossy(end).into_owned())
}

/// Writes a line's time with all nine digits of its nanoseconds, however the runtime wrote it.
fn stamp(time: &str, output: &mut Vec<u8>) {
    const DIGITS: usize = 9;
    let Some(local) = time.strip_suffix('Z') else { return output.extend_from_slice(time.as_bytes()) };
    output.extend_from_slice(local.as_bytes());
    let digits = local.rsplit_once('.').map(|(_, fraction)| fraction.len());
    if digits.is_none() {
        output.push(b'.');
    }
    output.extend(std::iter::repeat_n(b'0', DIGITS.saturating_sub(digits.unwrap_or(0))));
    output.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn log(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("0.log");
        let lines: String = (0..5)
            .map(|n| format!("2026-01-01T00:00:0{n}.000000000Z stdout F line {n}\n"))
            .chain(["2026-01-01T00:00:05.000000000Z stderr P par\n".into()])
            .chain(["2026-01-01T00:00:06.000000000Z stderr F tial\n".into()])
            .collect();
        std::fs::write(&path, lines).unwrap();
        path
    }

    fn read(path: &Path, options: Options) -> String {
        let mut reader = Reader::open(path, options).unwrap();
        let mut output = Vec::new();
        while reader.read(&mut output, usize::MAX).unwrap() == Progress::More {}
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn times_have_nine_digits() {
        for (time, expected) in [
            ("2026-01-01T00:00:04Z", "2026-01-01T00:00:04.000000000Z"),
            ("2026-01-01T00:00:04.12345678Z", "2026-01-01T00:00:04.123456780Z"),
            ("2026-01-01T00:00:04.123456789Z", "2026-01-01T00:00:04.123456789Z"),
        ] {
            let mut output = Vec::new();
            super::stamp(time, &mut output);
            assert_eq!(String::from_utf8(output).unwrap(), expected);
        }
    }

    #[test]
    fn options() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let all = "line 0\nline 1\nline 2\nline 3\nline 4\npartial\n";
        assert_eq!(read(&path, Options::default()), all);
        for (lines, text) in [(0, ""), (2, "partial\n"), (3, "line 4\npartial\n"), (7, all), (100, all)] {
            assert_eq!(read(&path, Options { tail_lines: Some(lines), ..Options::default() }), text, "tail {lines}");
        }
        let since = Some("2026-01-01T00:00:04Z".parse().unwrap());
        assert_eq!(read(&path, Options { since, ..Options::default() }), "line 4\npartial\n");
        assert_eq!(read(&path, Options { limit_bytes: Some(9), ..Options::default() }), "line 0\nli");
        let stamped = read(&path, Options { timestamps: true, since, ..Options::default() });
        assert_eq!(
            stamped, "2026-01-01T00:00:04.000000000Z line 4\n2026-01-01T00:00:05.000000000Z partial\n",
            "a line has one time"
        );
    }

    #[test]
    fn what_is_written_later_is_for_followers() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        for (follow, expected) in [(false, "partial\n"), (true, "partial\nlater\n")] {
            let options = Options { tail_lines: Some(2), follow, ..Options::default() };
            let mut reader = Reader::open(&path, options).unwrap();
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"2026-01-01T00:00:07.000000000Z stdout F later\n").unwrap();
            let mut output = Vec::new();
            while reader.read(&mut output, usize::MAX).unwrap() == Progress::More {}
            assert_eq!(String::from_utf8(output).unwrap(), expected, "follow {follow}");
            file.set_len(file.metadata().unwrap().len() - 46).unwrap();
        }
    }

    #[test]
    fn tail_across_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: Vec<String> =
            (0..3000).map(|n| format!("2026-01-01T00:00:00.000000000Z stdout F number {n}")).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let text = read(&path, Options { tail_lines: Some(1500), ..Options::default() });
        assert_eq!((text.lines().count(), text.lines().next()), (1500, Some("number 1500")));
        assert_eq!(tail_text(&path, 80, 19).unwrap(), "r 2998\nnumber 2999\n");
    }
}
