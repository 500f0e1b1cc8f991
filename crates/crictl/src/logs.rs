//! `crictl logs`: reads a container's log file, which is on this machine, in CRI's format.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use clap::Args;
use keelson_cri::v1::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

use crate::{Error, Out, Runtime, containers, format};

/// Longest entry, in bytes; what is beyond is skipped. Runtimes cut at 16 KiB.
const MAX_ENTRY_BYTES: u64 = 1 << 20;
/// How often it is looked whether a container whose log stands still has ended.
const CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// `crictl logs`
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Follow log output
    #[arg(long, short)]
    follow: bool,
    /// Number of lines to show from the end of the logs; all by default
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Maximum bytes of logs to return; no limit by default
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    limit_bytes: i64,
    /// Show logs since timestamp (2020-03-16T15:00:00Z) or relative (42m for 42 minutes)
    #[arg(long, value_parser = since)]
    since: Option<jiff::Timestamp>,
    /// Show timestamps
    #[arg(long, short)]
    timestamps: bool,
    /// Print the logs for the previous instance of the container
    #[arg(long, short)]
    previous: bool,
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = format::duration(text).map_err(|_| format!("{text:?} is neither a time nor a duration"))?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

impl Logs {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let (mut status, _) = containers::status(&mut runtime, &self.id, false).await?;
        if self.previous {
            let id = previous(&mut runtime, &status).await?;
            status = containers::status(&mut runtime, &id, false).await?.0;
        }
        let path = Path::new(&status.log_path);
        if status.log_path.is_empty() {
            return Err(Error::Words(format!("the container {} has no log", status.id)));
        }
        let watch = if self.follow { Some(watch(path)?) } else { None };
        let file = File::open(path).map_err(Error::io(format!("open the log {}", path.display())))?;
        let mut reader = Reader { file: BufReader::new(file), partial: Vec::new() };
        if self.tail >= 0 {
            reader.seek_to_last(self.tail as usize).map_err(Error::io("read the log"))?;
        }
        let mut left = u64::try_from(self.limit_bytes).unwrap_or(u64::MAX);
        loop {
            // Before reading: what is written by its end is read afterwards.
            let running = watch.is_some() && {
                let (now, _) = containers::status(&mut runtime, &status.id, false).await?;
                now.state() == ContainerState::ContainerRunning
            };
            while let Some(entry) = reader.entry().map_err(Error::io("read the log"))? {
                if !self.show(&entry, &mut left, out)? {
                    return Ok(());
                }
            }
            out.flush().map_err(Error::io("write the output"))?;
            let Some(watch) = watch.as_ref().filter(|_| running) else { return Ok(()) };
            changed(watch).await;
            reader.reopen_if_rotated(path);
        }
    }

    /// Shows an entry; `false` when no more are wanted.
    fn show(&self, entry: &[u8], left: &mut u64, out: Out<'_>) -> Result<bool, Error> {
        let Some((time, error, text)) = parse(entry) else { return Ok(true) };
        if self.since.is_some_and(|since| time.parse::<jiff::Timestamp>().is_ok_and(|time| time < since)) {
            return Ok(true);
        }
        let mut line = if self.timestamps { format!("{time} ").into_bytes() } else { Vec::new() };
        line.extend_from_slice(&text);
        let shown = line.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= shown as u64;
        let line = line.get(..shown).unwrap_or_default();
        let written = if error { std::io::stderr().write_all(line) } else { out.write_all(line) };
        written.map_err(Error::io("write the output"))?;
        Ok(*left > 0)
    }
}

/// The container that this one took the place of.
async fn previous(runtime: &mut Runtime, status: &ContainerStatus) -> Result<String, Error> {
    let metadata = status.metadata.clone().unwrap_or_default();
    let request = runtime.ask(ListContainersRequest {
        filter: Some(ContainerFilter { label_selector: status.labels.clone(), ..Default::default() }),
    });
    let answer = runtime.clients.runtime.list_containers(request).await.map_err(Error::call("list containers"))?;
    let mut older: Vec<(u32, String)> = answer
        .into_inner()
        .containers
        .into_iter()
        .filter_map(|container| {
            let own = container.metadata?;
            (own.name == metadata.name && own.attempt < metadata.attempt).then_some((own.attempt, container.id))
        })
        .collect();
    older.sort();
    older
        .pop()
        .map(|(_, id)| id)
        .ok_or_else(|| Error::Words(format!("previous terminated container {:?} in the pod not found", metadata.name)))
}

/// Time, whether it is standard error, and text of an entry; partial ones without a line's end.
fn parse(entry: &[u8]) -> Option<(String, bool, Vec<u8>)> {
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let mut text = parts.next().unwrap_or_default().to_vec();
    if tag.split(|byte| *byte == b':').next() == Some(b"F") {
        text.push(b'\n');
    }
    Some((String::from_utf8_lossy(time).into_owned(), stream == b"stderr", text))
}

struct Reader {
    file: BufReader<File>,
    /// The start of an entry whose end is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    /// The next whole entry, without its line's end.
    fn entry(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let room = MAX_ENTRY_BYTES.saturating_sub(self.partial.len() as u64).max(1);
        self.file.by_ref().take(room).read_until(b'\n', &mut self.partial)?;
        if self.partial.last() == Some(&b'\n') {
            self.partial.pop();
            return Ok(Some(std::mem::take(&mut self.partial)));
        }
        if self.partial.len() as u64 >= MAX_ENTRY_BYTES {
            self.partial.clear();
        }
        Ok(None)
    }

    /// Goes to where the last `count` entries begin, reading backwards.
    fn seek_to_last(&mut self, count: usize) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = self.file.get_ref();
        let mut position = file.metadata()?.len();
        let mut buffer = [0; 8192];
        // The last entry's own end does not count.
        let (mut seen, mut target) = (0, 0);
        let end = position;
        'search: while position > 0 {
            let size = position.min(buffer.len() as u64);
            position -= size;
            let piece = buffer.get_mut(..size as usize).unwrap_or_default();
            file.read_exact_at(piece, position)?;
            for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let after = position + index as u64 + 1;
                if after < end || count == 0 {
                    seen += 1;
                    if seen >= count.max(1) {
                        target = after;
                        break 'search;
                    }
                }
            }
        }
        self.file.seek(SeekFrom::Start(target)).map(drop)
    }

    /// Goes on in the new file once the runtime has rotated the log and the old one is read.
    fn reopen_if_rotated(&mut self, path: &Path) {
        use std::os::unix::fs::MetadataExt;
        let (Ok(old), Ok(new)) = (self.file.get_ref().metadata(), std::fs::metadata(path)) else { return };
        let unread = self.file.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        if old.ino() != new.ino()
            && !unread
            && let Ok(file) = File::open(path)
        {
            self.file = BufReader::new(file);
        }
    }
}

type Watch = Arc<std::os::fd::OwnedFd>;

/// Watches the directory of `path`: the file may be replaced.
fn watch(path: &Path) -> Result<Watch, Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let watch = || {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, events)?;
        std::io::Result::Ok(Arc::new(fd))
    };
    watch().map_err(Error::io(format!("watch {}", dir.display())))
}

/// Waits until something changed, or it is time to look at the container again.
async fn changed(watch: &Watch) {
    let watch = watch.clone();
    let wait = move || {
        let mut descriptors = [PollFd::new(&*watch, PollFlags::IN)];
        if poll(&mut descriptors, Some(&CHECK)).is_ok_and(|ready| ready > 0) {
            let mut buffer = [0; 4096];
            while rustix::io::read(&*watch, &mut buffer).is_ok_and(|count| count > 0) {}
        }
    };
    let _ = tokio::task::spawn_blocking(wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let text =
            |entry: &str| parse(entry.as_bytes()).map(|(_, error, text)| (error, String::from_utf8(text).unwrap()));
        assert_eq!(text("2026-01-01T00:00:00Z stdout F a b"), Some((false, "a b\n".into())));
        assert_eq!(text("2026-01-01T00:00:00Z stderr P a"), Some((true, "a".into())));
        assert_eq!(text("2026-01-01T00:00:00Z stdout F "), Some((false, "\n".into())));
        assert_eq!(text("rubbish"), None);
    }

    #[test]
    fn the_end_is_found() {
        let path = std::env::temp_dir().join(format!("keelson-crictl-{}", std::process::id()));
        std::fs::write(&path, "one\ntwo\nthree\npart").unwrap();
        for (count, expected) in [(0, vec![]), (1, vec![]), (2, vec!["three"]), (9, vec!["one", "two", "three"])] {
            let mut reader = Reader { file: BufReader::new(File::open(&path).unwrap()), partial: Vec::new() };
            reader.seek_to_last(count).unwrap();
            let mut found = Vec::new();
            while let Some(entry) = reader.entry().unwrap() {
                found.push(String::from_utf8(entry).unwrap());
            }
            assert_eq!(found, expected, "{count}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
