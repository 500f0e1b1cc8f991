//! Files that are read again when they change, however they are changed: in place, by a rename over them, or by the swap of a
//! link to their directory, as mounted Secrets are.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Tells when something happens in the files' directories.
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Begins to watch; what happens from now on is told.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE;
        let directories: BTreeSet<PathBuf> = files.into_iter().map(directory).collect();
        for directory in directories {
            inotify::add_watch(&fd, &directory, what)?;
        }
        // Deprecated for types whose `as_raw_fd` may lie; an `OwnedFd` does not, and the other way is unsafe code.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Waits until something happened since the last time. It may be that no file is different.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
