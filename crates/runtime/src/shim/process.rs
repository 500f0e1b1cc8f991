//! A process whose stdio this shim holds: a container's first process, or one executed beside it.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, mknodat, open},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
};

use super::{
    Launch,
    log::{Log, Stream},
};

/// Input accepted from the runtime while the process does not read, in bytes.
pub(super) const STDIN_HIGH_BYTES: usize = 64 << 10;

/// What the process is.
pub(super) enum What {
    Container(Launch),
    /// Executed in a container; `tty` tells how its stdio is made, and `uid` who it is on the node.
    Exec {
        tty: bool,
        uid: u32,
    },
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A helper is at work; its PID.
    Launching(i32),
    /// Its PID, and whether it is this shim's child (an adopted one is not).
    Running { pid: i32, child: bool },
}

/// Standard input on its way to the process.
pub(super) struct Stdin {
    pub(super) fd: OwnedFd,
    pub(super) queue: VecDeque<u8>,
    /// To be closed when the queue is empty.
    pub(super) ending: bool,
    /// Registered for writability.
    pub(super) waiting: bool,
}

impl Stdin {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, queue: VecDeque::new(), ending: false, waiting: false }
    }

    /// Writes what the pipe takes; `false` when nobody reads any more.
    pub(super) fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            match rustix::io::write(&self.fd, self.queue.as_slices().0) {
                Ok(count) => {
                    self.queue.drain(..count);
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

pub(super) struct Process {
    pub(super) what: What,
    pub(super) state: State,
    /// Where its files are: the container's directory, or the exec's own.
    pub(super) dir: PathBuf,
    pub(super) stdin: Option<Stdin>,
    /// Outputs that have not ended; a terminal's master is the first.
    pub(super) outputs: [Option<OwnedFd>; 2],
    /// The outputs are not read: a session does not keep up.
    pub(super) paused: bool,
    pub(super) terminal: Option<OwnedFd>,
    /// Listens for the terminal's master until the helper is done.
    pub(super) console: Option<std::os::unix::net::UnixListener>,
    /// Readable when an adopted process ends.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) log: Option<Log>,
    /// Connections with a session.
    pub(super) sessions: Vec<u64>,
}

impl Process {
    pub(super) fn container(&self) -> Option<&Launch> {
        match &self.what {
            What::Container(launch) => Some(launch),
            What::Exec { .. } => None,
        }
    }

    /// Its user, as the node knows it.
    pub(super) fn uid(&self) -> u32 {
        match &self.what {
            What::Container(launch) => launch.uid,
            What::Exec { uid, .. } => *uid,
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        match &self.what {
            What::Container(launch) => launch.tty,
            What::Exec { tty, .. } => *tty,
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Launching(_) => None,
        }
    }

    pub(super) fn log(&mut self, stream: Stream, data: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, &now(), data);
        }
    }
}

/// The time of a log entry.
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The helper's ends of a new process's standard streams.
pub(super) struct ChildEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The shim's ends.
#[derive(Default)]
pub(super) struct ShimEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) outputs: [Option<OwnedFd>; 2],
}

/// Names of the pipes in a container's directory.
pub(crate) const PIPES: [&str; 2] = ["stdout", "stderr"];
const STDIN_PIPE: &str = "stdin";

/// Makes a container's named pipes. The container's own descriptors are open for reading too, so that it neither sees an
/// error nor a signal while no shim reads.
pub(super) fn container_pipes(dir: &Path, launch: &Launch) -> rustix::io::Result<(ShimEnds, ChildEnds)> {
    let make = |name: &str| {
        let path = dir.join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        rustix::fs::chown(&path, Some(Uid::from_raw(launch.uid)), None::<Gid>)?;
        rustix::io::Result::Ok(path)
    };
    let output = |name: &str| {
        let path = make(name)?;
        rustix::io::Result::Ok((open_output(&path)?, open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?))
    };
    let (stdout, child_stdout) = output(PIPES[0])?;
    let (stderr, child_stderr) = output(PIPES[1])?;
    let (stdin, child_stdin) = if launch.stdin {
        let path = make(STDIN_PIPE)?;
        let child = open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let own = open_input(&path)?;
        rustix::fs::fcntl_setfl(&child, OFlags::empty())?;
        (Some(own), Some(child))
    } else {
        (None, None)
    };
    Ok((
        ShimEnds { stdin, outputs: [Some(stdout), Some(stderr)] },
        ChildEnds { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr },
    ))
}

/// The shim's ends of pipes that a predecessor made.
pub(super) fn reopen_pipes(dir: &Path) -> ShimEnds {
    ShimEnds {
        stdin: open_input(&dir.join(STDIN_PIPE)).ok(),
        outputs: PIPES.map(|name| open_output(&dir.join(name)).ok()),
    }
}

fn open_output(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

fn open_input(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Pipes of an executed process, which ends with its shim and needs no names.
pub(super) fn exec_pipes(stdin: bool, uid: u32) -> rustix::io::Result<(ShimEnds, ChildEnds)> {
    let pipe = || {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&read, &write] {
            rustix::fs::fchown(end, Some(Uid::from_raw(uid)), None::<Gid>)?;
        }
        rustix::io::Result::Ok((read, write))
    };
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    for end in [&stdout, &stderr] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
    }
    let (stdin, child_stdin) = if stdin {
        let (child, own) = pipe()?;
        rustix::fs::fcntl_setfl(&own, OFlags::NONBLOCK)?;
        (Some(own), Some(child))
    } else {
        (None, None)
    };
    Ok((
        ShimEnds { stdin, outputs: [Some(stdout), Some(stderr)] },
        ChildEnds { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr },
    ))
}

/// Takes the terminal's master that a helper's child sent to `console`, and gives the terminal to `uid`, who may then open it
/// again as `/dev/stdout`.
pub(super) fn receive_terminal(console: &std::os::unix::net::UnixListener, uid: u32) -> Option<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = console.accept().ok()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 64];
    recvmsg(&stream, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let master = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })?;
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR).ok()?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // Whoever had it may have ended already.
    if let Ok(terminal) = ioctl_tiocgptpeer(&master, flags) {
        let _ = rustix::fs::fchown(terminal, Some(Uid::from_raw(uid)), None::<Gid>);
    }
    Some(master)
}
