//! Waking up when something happens in directories.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// What is of interest: for files that are read whole once they are written, and for files that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Files that were closed after they were written, made, or moved here.
    Written,
    /// Also each write, and files that go.
    Everything,
}

/// What happens in some directories.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Begins to watch; what happens from now on is told. The error is the kernel's: a directory is missing, or watches are used up.
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>, interest: Interest) -> std::io::Result<Self> {
        use inotify::WatchFlags as What;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = What::CREATE
            | What::MOVED_TO
            | match interest {
                Interest::Written => What::CLOSE_WRITE,
                Interest::Everything => What::MODIFY | What::DELETE | What::MOVED_FROM,
            };
        for directory in directories {
            inotify::add_watch(&fd, directory, what)?;
        }
        // Deprecated for types whose `as_raw_fd` may lie; an `OwnedFd` does not, and the other way is unsafe code.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Waits until something happened since the last time. It may be that no file is different.
    pub async fn wait(&self) -> std::io::Result<()> {
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
