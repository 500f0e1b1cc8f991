//! The log backend: events as lines of a file that is rotated by size, or of standard output. A thread of its own writes,
//! as much at once as there is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use keelson_client::clock;
use tokio::sync::mpsc;

use super::batch::Batches;
use super::sink::{Form, Item, Sink};
use crate::Error;
use crate::config::{AuditLog, AuditMode};

/// Bytes written at once, where nothing is said (`--audit-log-truncate-max-batch-size`).
const WRITE_BYTES: usize = 1 << 20;
/// What the name of a compressed file ends with.
const COMPRESSED: &str = "gz";
/// The time in the name of a file that was rotated out.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S";

/// Opens the log and starts its writer, which ends with the sink.
pub(super) fn start(config: &AuditLog) -> Result<Sink, Error> {
    let failed = |source| Error::File { path: config.path.display().to_string(), source };
    let output = match config.path.to_str() {
        Some("-") => Output::Stdout,
        _ => Output::File(Rotated::open(config).map_err(failed)?),
    };
    let AuditLog { mode, batch, truncate, format, .. } = *config;
    let (sink, mut queue) = Sink::new("log", mode, batch.buffer_events, Form { format, truncate });
    let at_once = truncate.map_or(WRITE_BYTES, |limit| limit.max_batch_bytes.min(WRITE_BYTES));
    let waits = batch.max_events > 1 && !batch.max_wait.is_zero();
    if mode == AuditMode::Batch && (waits || batch.throttle.is_some()) {
        queue = paced(Batches::new(queue, mode, &batch, at_once));
    }
    let write = move || write_all(queue, output, at_once);
    std::thread::Builder::new().name("audit-log".into()).spawn(write).map_err(failed)?;
    Ok(sink)
}

/// A queue to which events come in batches.
fn paced(mut batches: Batches) -> mpsc::Receiver<Item> {
    let (queue, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(batch) = batches.next().await {
            for item in batch {
                // What a writer that is gone does not take is lost, and counted.
                let _ = queue.send(item).await;
            }
        }
    });
    receiver
}

enum Output {
    Stdout,
    File(Rotated),
}

fn write_all(mut queue: mpsc::Receiver<Item>, mut output: Output, at_once: usize) {
    let mut items = Vec::new();
    let mut text = Vec::new();
    let mut failing = false;
    while let Some(first) = queue.blocking_recv() {
        text.extend_from_slice(&first.line);
        items.push(first);
        while text.len() < at_once
            && let Ok(item) = queue.try_recv()
        {
            text.extend_from_slice(&item.line);
            items.push(item);
        }
        let result = match &mut output {
            Output::Stdout => io::stdout().lock().write_all(&text),
            Output::File(file) => file.write(&text),
        };
        if let Err(error) = &result
            && !failing
        {
            tracing::error!(%error, "the audit log cannot be written");
        }
        failing = result.is_err();
        items.drain(..).for_each(|item: Item| item.end(!failing));
        text.clear();
        text.shrink_to(WRITE_BYTES);
    }
}

/// A file that makes way for a new one when it would become too large.
struct Rotated {
    path: PathBuf,
    /// 0: no limit.
    max_bytes: u64,
    /// 0: all are kept.
    max_backups: usize,
    /// Zero: however old they are.
    max_age: Duration,
    compress: bool,
    file: File,
    len: u64,
}

impl Rotated {
    fn open(config: &AuditLog) -> io::Result<Self> {
        if let Some(dir) = config.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)?;
        }
        let (file, len) = open(&config.path)?;
        let rotated = Self {
            path: config.path.clone(),
            max_bytes: config.max_size_mib.saturating_mul(1 << 20),
            max_backups: config.max_backups,
            max_age: Duration::from_secs(config.max_age_days.saturating_mul(24 * 3600)),
            compress: config.compress,
            file,
            len,
        };
        rotated.clean_up();
        Ok(rotated)
    }

    /// Appends whole lines; no line is split between two files.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let fits = self.fitting(rest);
            if fits == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = rest.split_at(fits);
            self.file.write_all(now)?;
            self.len += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Bytes of the lines that still fit in; a line that no file could hold is written to one of its own.
    fn fitting(&self, lines: &[u8]) -> usize {
        let room = if self.max_bytes == 0 { u64::MAX } else { self.max_bytes.saturating_sub(self.len) };
        if lines.len() as u64 <= room {
            return lines.len();
        }
        let within = lines.get(..usize::try_from(room).unwrap_or(usize::MAX)).unwrap_or(lines);
        let end = within.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if end > 0 || self.len > 0 {
            return end;
        }
        lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = clock::now();
        let stamp = format!("{}.{:03}", now.strftime(BACKUP_TIME), now.subsec_millisecond());
        let backup = self.path.with_file_name(self.backup_name(&stamp));
        std::fs::rename(&self.path, backup)?;
        (self.file, self.len) = open(&self.path)?;
        self.clean_up();
        Ok(())
    }

    /// `audit-2026-11-21T19-05-33.000.log`
    fn backup_name(&self, stamp: &str) -> String {
        let (stem, extension) = self.name_parts();
        format!("{stem}-{stamp}{extension}")
    }

    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = text(self.path.extension());
        (text(self.path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
    }

    /// Removes files that were rotated out and are too many or too old, and compresses the others if it is to.
    fn clean_up(&self) {
        let mut backups = self.backups();
        backups.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        // An age that reaches back beyond all time keeps everything.
        let oldest = clock::now().checked_sub(self.max_age).unwrap_or(jiff::Timestamp::MIN);
        for (at, (time, path)) in backups.iter().enumerate() {
            let too_many = self.max_backups > 0 && at >= self.max_backups;
            let too_old = !self.max_age.is_zero() && *time < oldest;
            if (too_many || too_old)
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::warn!(%error, path = %path.display(), "an old audit log cannot be removed");
            } else if self.compress
                && !(too_many || too_old)
                && path.extension().is_none_or(|extension| extension != COMPRESSED)
                && let Err(error) = compress(path)
            {
                tracing::warn!(%error, path = %path.display(), "an old audit log cannot be compressed");
            }
        }
    }

    fn backups(&self) -> Vec<(Timestamp, PathBuf)> {
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (stem, extension) = self.name_parts();
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let plain = name.strip_suffix(COMPRESSED).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
                let stamp = plain.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
                let (seconds, millis) = stamp.split_once('.')?;
                let time = jiff::civil::DateTime::strptime(BACKUP_TIME, seconds).ok()?;
                let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
                Some((time + Duration::from_millis(millis.parse().ok()?), entry.path()))
            })
            .collect()
    }
}

/// Puts a compressed file in the place of one that is not. What is half written is nobody's log: its name has no end.
fn compress(path: &Path) -> io::Result<()> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (partial, whole) = (named(".gz.partial"), named(".gz"));
    let _ = std::fs::remove_file(&partial);
    let (out, _) = open(&partial)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(partial, whole)?;
    std::fs::remove_file(path)
}

/// For appending; only the owner may read what others did.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_make_way() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditLog {
            max_size_mib: 1,
            max_backups: 2,
            max_age_days: 1,
            ..AuditLog::new(dir.path().join("logs/audit.log"))
        };
        let old = dir.path().join("logs/audit-2001-02-03T04-05-06.007.log");
        std::fs::create_dir_all(old.parent().unwrap()).unwrap();
        std::fs::write(&old, "old\n").unwrap();
        let other = dir.path().join("logs/audit-of-somebody.log");
        std::fs::write(&other, "kept\n").unwrap();
        let mut log = Rotated::open(&config).unwrap();
        assert!(!old.exists() && other.exists());
        let line = |byte: u8, len: usize| {
            let mut line = vec![byte; len - 1];
            line.push(b'\n');
            line
        };
        // Two lines fit into a MiB, the third begins a new file; one that no file could hold has its own.
        let mut text = Vec::new();
        for byte in *b"abc" {
            text.extend(line(byte, 400 << 10));
        }
        log.write(&text).unwrap();
        assert_eq!(log.len, 400 << 10);
        log.write(&line(b'd', 2 << 20)).unwrap();
        assert_eq!(log.len, 2 << 20);
        let files = names(&dir.path().join("logs"));
        assert_eq!(files.len(), 4, "{files:?}");
        // The next one drops the oldest.
        std::thread::sleep(Duration::from_millis(2));
        log.write(b"e\n").unwrap();
        let files = names(&dir.path().join("logs"));
        assert_eq!(files.len(), 4, "{files:?}");
        let mut lines = 0;
        for file in files.iter().filter(|name| *name != "audit-of-somebody.log") {
            let text = std::fs::read(dir.path().join("logs").join(file)).unwrap();
            assert_eq!(text.last(), Some(&b'\n'), "{file}");
            lines += text.iter().filter(|byte| **byte == b'\n').count();
        }
        assert_eq!(lines, 3, "the two oldest lines went with their file");
    }

    #[test]
    fn an_age_beyond_all_time_keeps_all() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("audit-2001-02-03T04-05-06.007.log");
        std::fs::write(&old, "old\n").unwrap();
        let path = dir.path().join("audit.log");
        Rotated::open(&AuditLog { max_size_mib: 1, max_age_days: u64::MAX, ..AuditLog::new(path) }).unwrap();
        assert!(old.exists());
    }

    #[test]
    fn what_made_way_is_compressed_and_still_counted() {
        let dir = tempfile::tempdir().unwrap();
        // One from before the flag was given, and what a crash left.
        let old = dir.path().join("audit-2026-02-03T04-05-06.007.log");
        std::fs::write(&old, "old\n").unwrap();
        std::fs::write(dir.path().join("audit-2026-02-03T04-05-06.007.log.gz.partial"), "half").unwrap();
        let path = dir.path().join("audit.log");
        let config = AuditLog { max_size_mib: 1, max_backups: 2, compress: true, ..AuditLog::new(path) };
        let mut log = Rotated::open(&config).unwrap();
        let read = |name: &str| {
            let mut text = String::new();
            let file = File::open(dir.path().join(name)).unwrap();
            io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
            text
        };
        assert_eq!(names(dir.path()), ["audit-2026-02-03T04-05-06.007.log.gz", "audit.log"]);
        assert_eq!(read("audit-2026-02-03T04-05-06.007.log.gz"), "old\n");
        for _ in 0..3 {
            let mut line = vec![b'x'; 1 << 20];
            line[(1 << 20) - 1] = b'\n';
            log.write(&line).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let names = names(dir.path());
        assert_eq!(names.len(), 3, "two are kept, the oldest is gone: {names:?}");
        assert!(names[..2].iter().all(|name| name.ends_with(".log.gz") && read(name).len() == 1 << 20), "{names:?}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join(&names[0])).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
