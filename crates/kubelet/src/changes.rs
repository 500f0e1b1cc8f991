//! Waking up when something happens in a directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// What happens in one directory.
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Begins to watch; what happens from now on is told. Files are written, made, moved and removed.
    pub(crate) fn of(directory: &Path) -> std::io::Result<Changes> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, directory, what)?;
        // Deprecated for types whose `as_raw_fd` may lie; an `OwnedFd` does not, and the other way is unsafe code.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Changes(fd))
    }

    /// Waits until something happened since the last time.
    pub(crate) async fn wait(&self) -> std::io::Result<()> {
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
