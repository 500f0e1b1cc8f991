//! The shim's event loop: one epoll over the listener, signals, connections and the stdio of processes.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::{Errno, ioctl_fionread},
    process::{WaitOptions, WaitStatus, wait},
};

use super::{
    connection::{Connection, Input, Role},
    log::Stream,
    pause,
    process::{Process, State},
    protocol::{Event, Kind, Reply, Request, SOCKET},
};
use crate::cgroup;
use keelson_cri::steps;

/// A session's unwritten output above which its process is no longer read, and below which it is again, in bytes.
const BACKLOG_HIGH_BYTES: usize = 256 << 10;
const BACKLOG_LOW_BYTES: usize = 64 << 10;
/// Connections at once; more are refused.
const MAX_CONNECTIONS: usize = 512;
/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Ended children nobody asked about that are remembered, in case their helper's word comes later.
const MAX_UNCLAIMED: usize = 1024;
/// What is read of each output of a process that has ended, in bytes: as much as waits there, within these bounds. A pipe
/// holds 64 KiB unless a process with the capability for it asks for more.
const MIN_DRAIN_BYTES: usize = 64 << 10;
const MAX_DRAIN_BYTES: usize = 4 << 20;
/// The first and the longest pause between looks at a control group whose processes were killed.
const GROUP_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_GROUP_PAUSE: Duration = Duration::from_secs(10);

/// What an epoll event is about. Packed into the event's 64 bits: the kind in the top byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Signals,
    Connection(u64),
    Output(u64, Stream),
    Stdin(u64),
    Pidfd(u64),
}

impl Token {
    fn pack(self) -> EventData {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Connection(id) => (2, id),
            Self::Output(id, Stream::Stdout) => (3, id),
            Self::Output(id, Stream::Stderr) => (4, id),
            Self::Stdin(id) => (5, id),
            Self::Pidfd(id) => (6, id),
        };
        EventData::new_u64(kind << 56 | id)
    }

    fn unpack(data: EventData) -> Option<Self> {
        let bits = data.u64();
        let id = bits & ((1 << 56) - 1);
        Some(match bits >> 56 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection(id),
            3 => Self::Output(id, Stream::Stdout),
            4 => Self::Output(id, Stream::Stderr),
            5 => Self::Stdin(id),
            6 => Self::Pidfd(id),
            _ => return None,
        })
    }
}

/// A control group that is to be removed, when to try that next, and the pause after that.
pub(super) struct DyingGroup {
    path: PathBuf,
    next: Instant,
    pause: Duration,
}

pub(super) struct Shim {
    /// The sandbox's state directory.
    pub(super) dir: PathBuf,
    epoll: OwnedFd,
    listener: UnixListener,
    signals: SignalFd,
    next_id: u64,
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) processes: HashMap<u64, Process>,
    unclaimed: VecDeque<(i32, i32)>,
    /// Groups that still held dying processes when their container ended.
    pub(super) dying_cgroups: Vec<DyingGroup>,
    /// Adopted processes that have ended and are not reaped yet, and how long to wait for that.
    pub(super) zombies: Vec<(u64, Instant)>,
    /// When connections are accepted again, if that is not always.
    listening_again: Option<Instant>,
    stopping: bool,
    buffer: Vec<u8>,
}

/// Serves the sandbox whose state directory is `dir` until told to stop.
pub(super) fn serve(dir: PathBuf, share_pid: bool) -> Result<(), String> {
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    // Relative names keep the sockets' paths short, however deep the state directory lies.
    std::env::set_current_dir(&dir).map_err(say("enter the state directory"))?;
    let _ = rustix::process::setsid();
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("become a subreaper: {error}"))?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().map_err(|error| format!("block SIGCHLD: {error}"))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("watch for SIGCHLD: {error}"))?;
    // One at a time: a runtime that was killed may have started one that is not done starting.
    let lock = std::fs::File::create(dir.join("lock")).map_err(say("make the lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| format!("take the lock: {error}"))?;
    if share_pid && !pause::is_pinned(&dir) {
        pause::end(&dir);
        pause::pid_namespace_init(&dir)?;
    }
    let _ = std::fs::remove_file(SOCKET);
    let mut shim = Shim {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("make an epoll: {error}"))?,
        listener: UnixListener::bind(SOCKET).map_err(say("listen"))?,
        signals,
        dir,
        next_id: 1,
        connections: HashMap::new(),
        processes: HashMap::new(),
        unclaimed: VecDeque::new(),
        dying_cgroups: Vec::new(),
        zombies: Vec::new(),
        listening_again: None,
        stopping: false,
        buffer: vec![0; 32 << 10],
    };
    shim.listener.set_nonblocking(true).map_err(say("listen"))?;
    shim.add(shim.listener.as_fd(), Token::Listener, EventFlags::IN)?;
    shim.add(shim.signals.as_fd(), Token::Signals, EventFlags::IN)?;
    steps::reached("shim-listening");
    shim.adopt();
    // Whoever started this process waits for one byte. If it has gone, nobody knows of this shim; the next one asks for
    // another.
    std::io::stdout().write_all(b"\n").and_then(|()| std::io::stdout().flush()).map_err(say("say that it is ready"))?;
    steps::reached("shim-ready");
    shim.run()
}

impl Shim {
    fn run(&mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(32);
        loop {
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("wait for events: {error}")),
            }
            for event in events.drain(..) {
                let flags = event.flags;
                match Token::unpack(event.data) {
                    Some(Token::Listener) => self.accept(),
                    Some(Token::Signals) => self.reap(),
                    Some(Token::Connection(id)) => self.connection_event(id, flags),
                    Some(Token::Output(id, stream)) => self.read_output(id, stream),
                    Some(Token::Stdin(id)) => self.write_stdin(id),
                    Some(Token::Pidfd(id)) => self.adopted_ended(id, flags.contains(EventFlags::HUP)),
                    None => {}
                }
            }
            if !self.zombies.is_empty() {
                self.end_zombies();
            }
            self.listen_again();
            if !self.dying_cgroups.is_empty() {
                self.end_groups();
            }
            if self.stopping && self.connections.values().all(|connection| connection.backlog() == 0) {
                steps::reached("shim-stopping");
                return Ok(());
            }
        }
    }

    /// Until there is something to do without being asked; usually there is none, and nothing to wake for.
    fn timeout(&self) -> Option<Timespec> {
        let groups = self.dying_cgroups.iter().map(|group| group.next);
        let first = self.zombies.iter().map(|(_, end)| *end).chain(groups).chain(self.listening_again).min()?;
        let left = first.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: Token, flags: EventFlags) -> Result<(), String> {
        epoll::add(&self.epoll, fd, token.pack(), flags).map_err(|error| format!("watch a descriptor: {error}"))
    }

    /// Watches for nothing but the hang-up that a pidfd reports when its process has been reaped.
    pub(super) fn watch_reaping(&self, pidfd: BorrowedFd<'_>, id: u64) {
        let _ = epoll::modify(&self.epoll, pidfd, Token::Pidfd(id).pack(), EventFlags::empty());
    }

    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Watches the listener again after a pause.
    fn listen_again(&mut self) {
        if self.listening_again.take_if(|when| *when <= Instant::now()).is_some()
            && self.add(self.listener.as_fd(), Token::Listener, EventFlags::IN).is_err()
        {
            self.listening_again = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                Err(_) => {
                    // Out of descriptors, as a rule. Who waits to be let in waits on; asking without end helps nobody.
                    self.forget(self.listener.as_fd());
                    self.listening_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            if self.connections.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.new_id();
            if self.add(stream.as_fd(), Token::Connection(id), EventFlags::IN).is_ok() {
                self.connections.insert(id, Connection::new(stream));
            }
        }
    }

    /// Collects ended children. Helpers go first: what they started may be among the ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut helpers = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(code) = exit_code(status) else { continue };
            let pid = pid.as_raw_nonzero().get();
            match self.launching(pid) {
                Some(process) => helpers.push((process, code)),
                None => {
                    if self.unclaimed.len() >= MAX_UNCLAIMED {
                        self.unclaimed.pop_front();
                    }
                    self.unclaimed.push_back((pid, code));
                }
            }
        }
        for (process, code) in helpers {
            self.launched(process, code);
        }
        self.claim();
        self.dying_cgroups.retain(|group| !cgroup::remove(&group.path));
    }

    /// Sees to it that `group` goes once its processes have died.
    pub(super) fn end_group(&mut self, path: PathBuf) {
        self.dying_cgroups.push(DyingGroup { path, next: Instant::now() + GROUP_PAUSE, pause: GROUP_PAUSE });
    }

    /// Kills again what is in dying groups: it may have forked. What sleeps whatever happens is asked ever less often.
    fn end_groups(&mut self) {
        let now = Instant::now();
        self.dying_cgroups.retain_mut(|group| {
            if group.next > now {
                return true;
            }
            cgroup::signal_all(&group.path, cgroup::SIGKILL);
            group.pause = (group.pause * 2).min(LONGEST_GROUP_PAUSE);
            group.next = now + group.pause;
            !cgroup::remove(&group.path)
        });
    }

    /// Ends the processes whose PID is among the ended children.
    pub(super) fn claim(&mut self) {
        for (pid, code) in std::mem::take(&mut self.unclaimed) {
            let owner = self.processes.iter().find(|(_, process)| process.pid() == Some(pid)).map(|(id, _)| *id);
            match owner {
                Some(process) => self.ended(process, code, false),
                None => self.unclaimed.push_back((pid, code)),
            }
        }
        // They are of use only while a helper may still say that one of them was what it started. Later, their PIDs are
        // somebody else's.
        if !self.processes.values().any(|process| matches!(process.state, State::Launching(_))) {
            self.unclaimed.clear();
        }
    }

    fn connection_event(&mut self, id: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.paused && flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            // Gone for good, and reported for as long as it is watched.
            return self.drop_connection(id);
        }
        if connection.paused || !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let input = connection.read(&mut buffer);
        self.buffer = buffer;
        let (frames, ended) = match input {
            Input::Frames(frames) => (frames, false),
            Input::Ended(frames) => (frames, true),
        };
        for (kind, payload) in frames {
            self.frame(id, kind, &payload);
        }
        if ended {
            self.drop_connection(id);
        }
    }

    fn frame(&mut self, id: u64, kind: Kind, payload: &[u8]) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.closing {
            // Input for a process that has ended, from a peer that has not heard of it yet.
            return;
        }
        match (kind, connection.role) {
            (Kind::Request, Role::Idle) => match serde_json::from_slice(payload) {
                Ok(request) => self.request(id, request),
                Err(error) => self.fail(id, format!("unreadable request: {error}")),
            },
            (Kind::Stdin, Role::Session { process, stdin: true, .. }) => self.stdin(process, id, payload),
            (Kind::StdinEof, Role::Session { process, stdin: true, .. }) => self.stdin_ended(process),
            (Kind::Resize, Role::Session { process, .. }) => self.resize(process, payload),
            (Kind::Signal, Role::Session { process, owner: true, .. }) => {
                if let Some(signal) = payload.first() {
                    self.signal(process, i32::from(*signal));
                }
            }
            // A frame that has no meaning here is a bug of the peer; the connection ends.
            _ => self.drop_connection(id),
        }
    }

    fn request(&mut self, id: u64, request: Request) {
        match request {
            Request::Start { launch } => self.start(id, launch),
            Request::Exec { id: container, process, tty, stdin, stdout, stderr } => {
                self.exec(
                    id,
                    container,
                    &process,
                    tty,
                    Role::Session { process: 0, stdin, stdout, stderr, owner: true },
                );
            }
            Request::Attach { id: container, stdin, stdout, stderr } => {
                self.attach(id, &container, Role::Session { process: 0, stdin, stdout, stderr, owner: false });
            }
            Request::Kill { id: container, signal, all } => {
                let reply = self.kill(&container, signal, all);
                self.reply(id, &reply);
            }
            Request::Await { id: container } => self.await_start(id, &container),
            Request::ReopenLog { id: container } => {
                let reply = self.reopen_log(&container);
                self.reply(id, &reply);
            }
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.role = Role::Subscriber;
                }
                self.reply(id, &Reply::Ok);
            }
            Request::Stop => {
                let busy = self.processes.values().any(|process| process.container().is_some());
                if busy {
                    self.fail(id, "containers are running".into());
                } else {
                    self.stopping = true;
                    self.reply(id, &Reply::Ok);
                }
            }
        }
    }

    pub(super) fn reply(&mut self, id: u64, reply: &Reply) {
        self.send(id, Kind::Reply, &serde_json::to_vec(reply).unwrap_or_default());
    }

    pub(super) fn fail(&mut self, id: u64, message: String) {
        self.reply(id, &Reply::Error { message });
    }

    pub(super) fn notify(&mut self, event: &Event) {
        let payload = serde_json::to_vec(event).unwrap_or_default();
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.role == Role::Subscriber)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.send(id, Kind::Event, &payload);
        }
    }

    pub(super) fn send(&mut self, id: u64, kind: Kind, payload: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.push(kind, payload);
            self.flush(id);
        }
    }

    /// Writes what a connection's socket takes, watches for room if more is left, and lets its process be read again when
    /// the backlog is low.
    pub(super) fn flush(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.flush().is_err() || connection.closing && connection.backlog() == 0 {
            return self.drop_connection(id);
        }
        let role = connection.role;
        self.watch_connection(id);
        if let Role::Session { process, .. } = role {
            self.resume_output(process);
        }
    }

    fn watch_connection(&self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !connection.paused);
        flags.set(EventFlags::OUT, connection.backlog() > 0);
        let _ = epoll::modify(&self.epoll, &connection.stream, Token::Connection(id).pack(), flags);
    }

    /// Stops or goes on reading a connection whose process does not take its input.
    pub(super) fn pause_connection(&mut self, id: u64, paused: bool) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.paused != paused
        {
            connection.paused = paused;
            self.watch_connection(id);
        }
    }

    fn drop_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.forget(connection.stream.as_fd());
        if let Role::Session { process, stdin, owner, .. } = connection.role {
            self.session_ended(process, id, stdin, owner);
        }
    }

    /// Reads one of a process's outputs once, for the log and the sessions.
    fn read_output(&mut self, id: u64, stream: Stream) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let _ = self.pump(id, stream, &mut buffer);
        self.buffer = buffer;
        self.pause_output(id);
    }

    /// Reads what is in the outputs of a process that has ended, and no more: others that write there may go on for ever.
    pub(super) fn drain_outputs(&mut self, id: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let output = self.processes.get(&id).and_then(|process| process.outputs.get(stream.index())?.as_ref());
            let waiting = output.and_then(|fd| ioctl_fionread(fd).ok()).unwrap_or(0);
            // A terminal does not tell all that it holds.
            let mut left = usize::try_from(waiting).unwrap_or(0).clamp(MIN_DRAIN_BYTES, MAX_DRAIN_BYTES);
            while left > 0 {
                match self.pump(id, stream, &mut buffer) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        self.buffer = buffer;
    }

    /// One read and its length; 0 when there is nothing more for now, or ever.
    fn pump(&mut self, id: u64, stream: Stream, buffer: &mut [u8]) -> usize {
        let Some(process) = self.processes.get_mut(&id) else { return 0 };
        let Some(Some(fd)) = process.outputs.get(stream.index()) else { return 0 };
        let count = match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer)) {
            Ok(count) => count,
            Err(Errno::AGAIN) => return 0,
            // A terminal whose last process has gone answers EIO.
            Err(_) => 0,
        };
        if count == 0 {
            if let Some(fd) = process.outputs.get_mut(stream.index()).and_then(Option::take) {
                self.forget(fd.as_fd());
            }
            return 0;
        }
        let data = buffer.get(..count).unwrap_or_default();
        process.log(stream, data);
        for session in process.sessions.clone() {
            let wants = self.connections.get(&session).map(|connection| connection.role);
            match (wants, stream) {
                (Some(Role::Session { stdout: true, .. }), Stream::Stdout) => self.send(session, Kind::Stdout, data),
                (Some(Role::Session { stderr: true, .. }), Stream::Stderr) => self.send(session, Kind::Stderr, data),
                _ => {}
            }
        }
        count
    }

    fn backlog(&self, process: &Process) -> usize {
        let backlogs = process.sessions.iter().filter_map(|id| self.connections.get(id)).map(Connection::backlog);
        backlogs.max().unwrap_or(0)
    }

    fn pause_output(&mut self, id: u64) {
        let Some(process) = self.processes.get(&id) else { return };
        if !process.paused && self.backlog(process) > BACKLOG_HIGH_BYTES {
            for fd in process.outputs.iter().flatten() {
                self.forget(fd.as_fd());
            }
            if let Some(process) = self.processes.get_mut(&id) {
                process.paused = true;
            }
        }
    }

    pub(super) fn resume_output(&mut self, id: u64) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.paused && self.backlog(process) < BACKLOG_LOW_BYTES {
            if let Some(process) = self.processes.get_mut(&id) {
                process.paused = false;
            }
            self.watch_outputs(id);
        }
    }

    pub(super) fn watch_outputs(&self, id: u64) {
        let Some(process) = self.processes.get(&id) else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(Some(fd)) = process.outputs.get(stream.index()) {
                let _ = self.add(fd.as_fd(), Token::Output(id, stream), EventFlags::IN);
            }
        }
    }
}

/// Exit status, or 128 + signal, as shells and CRI count; `None` for a process that goes on.
fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

/// Whether `path` names a directory entry, for names that come from directory listings.
pub(super) fn file_name(path: &Path) -> Option<String> {
    path.file_name().and_then(|name| name.to_str()).map(String::from)
}
