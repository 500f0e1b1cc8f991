//! What a shim does with processes: start, attach, signal, adopt, and record how they end.

use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::EventFlags,
    process::{Pid, PidfdFlags, pidfd_open},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    EXIT_FILE, Exit, Launch, LaunchResult,
    connection::Role,
    files::{process_start_time, read_json, write_json},
    helper::CONSOLE_SOCKET,
    log::Log,
    pidfd::exit_code,
    process::{
        Process, STDIN_HIGH_BYTES, ShimEnds, State, Stdin, What, container_pipes, exec_pipes, now, receive_terminal,
        reopen_pipes,
    },
    protocol::{Event, Kind, Reply, container_dir},
    reactor::{Shim, Token, file_name},
    sys,
};
use keelson_cri::steps;

use crate::{
    cgroup::{self, SIGKILL},
    processes,
};

/// How long an adopted process's parent may take to reap it, for its exit code to be known.
const REAP_PATIENCE: Duration = Duration::from_secs(2);

impl Shim {
    /// The process that is the container `id`.
    fn container(&self, id: &str) -> Option<u64> {
        let is_it = |process: &Process| process.container().is_some_and(|launch| launch.id == id);
        self.processes.iter().find(|(_, process)| is_it(process)).map(|(id, _)| *id)
    }

    fn running_container(&self, id: &str) -> Option<u64> {
        self.container(id).filter(|id| self.processes.get(id).is_some_and(|process| process.pid().is_some()))
    }

    /// The process that the helper with this PID is starting.
    pub(super) fn launching(&self, helper: i32) -> Option<u64> {
        self.processes.iter().find(|(_, process)| process.state == State::Launching(helper)).map(|(id, _)| *id)
    }

    pub(super) fn start(&mut self, connection: u64, launch: Launch) {
        if self.container(&launch.id).is_some() {
            return self.fail(connection, format!("container {} is running already", launch.id));
        }
        let dir = container_dir(&self.dir, &launch.id);
        match self.try_start(&dir, launch) {
            Ok(process) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.role = Role::AwaitsStart(process);
                }
            }
            Err(message) => self.fail(connection, message),
        }
    }

    fn try_start(&mut self, dir: &Path, launch: Launch) -> Result<u64, String> {
        write_json(&dir.join(Launch::FILE), &launch).map_err(|error| format!("note the launch: {error}"))?;
        steps::reached("shim-launch-noted");
        let log = match &launch.log_path {
            Some(path) => Some(Log::open(path).map_err(|error| format!("open log {}: {error}", path.display()))?),
            None => None,
        };
        let mut command = Command::new("/proc/self/exe");
        command.args(["shim", "create"]).arg(dir);
        let (ends, console) = if launch.tty {
            (ShimEnds::default(), Some(terminal_stdio(&mut command, dir)?))
        } else {
            let (own, child) =
                container_pipes(dir, &launch).map_err(|error| format!("make the stdio pipes: {error}"))?;
            stdio(&mut command, child);
            (own, None)
        };
        self.launch(command, What::Container(launch), dir, ends, console, log)
    }

    pub(super) fn exec(&mut self, connection: u64, id: String, process: &serde_json::Value, tty: bool, role: Role) {
        if self.running_container(&id).is_none() {
            return self.reply(connection, &Reply::NotRunning);
        }
        let Role::Session { stdin, stdout, stderr, owner, .. } = role else { return };
        match self.try_exec(id, process, tty, stdin) {
            Ok(process) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.role = Role::Session { process, stdin, stdout, stderr, owner };
                }
                if let Some(process) = self.processes.get_mut(&process) {
                    process.sessions.push(connection);
                }
            }
            Err(message) => self.fail(connection, message),
        }
    }

    fn try_exec(&mut self, id: String, description: &serde_json::Value, tty: bool, stdin: bool) -> Result<u64, String> {
        let container = container_dir(&self.dir, &id);
        let dir = container.join(format!("x{}", self.new_id()));
        // A predecessor may have left a directory of this name.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
        write_json(&dir.join("process.json"), description).map_err(|error| format!("write the process: {error}"))?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["shim", "exec"]).arg(&container).arg(&dir);
        let first = self.container(&id).and_then(|id| self.processes.get(&id)?.container().map(|l| l.first_uid));
        let uid = description.pointer("/user/uid").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let uid = first.unwrap_or(0).saturating_add(u32::try_from(uid).unwrap_or(u32::MAX));
        let (ends, console) = if tty {
            (ShimEnds::default(), Some(terminal_stdio(&mut command, &dir)?))
        } else {
            let (own, child) = exec_pipes(stdin, uid).map_err(|error| format!("make the stdio pipes: {error}"))?;
            stdio(&mut command, child);
            (own, None)
        };
        let launched = self.launch(command, What::Exec { tty, uid }, &dir, ends, console, None);
        if launched.is_err() {
            let _ = std::fs::remove_dir_all(&dir);
        }
        launched
    }

    /// Starts the helper and keeps the process's record.
    fn launch(
        &mut self,
        mut command: Command,
        what: What,
        dir: &Path,
        ends: ShimEnds,
        console: Option<UnixListener>,
        log: Option<Log>,
    ) -> Result<u64, String> {
        let child = command
            .env_clear()
            .envs(steps::environment())
            .spawn()
            .map_err(|error| format!("start the helper: {error}"))?;
        // The command still holds the child's ends; output could never end while it does.
        drop(command);
        let id = self.new_id();
        let process = Process {
            what,
            state: State::Launching(child.id() as i32),
            dir: dir.into(),
            stdin: ends.stdin.map(Stdin::new),
            outputs: ends.outputs,
            paused: false,
            terminal: None,
            console,
            pidfd: None,
            log,
            sessions: Vec::new(),
        };
        // Its outputs are not read before the helper has ended: the reply comes first.
        self.processes.insert(id, process);
        steps::reached("shim-helper-started");
        Ok(id)
    }

    /// A helper has ended: its word decides what became of the process.
    pub(super) fn launched(&mut self, id: u64, helper_code: i32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let result = read_json::<LaunchResult>(&process.dir.join(LaunchResult::FILE));
        let waiting = |role: Role| matches!(role, Role::AwaitsStart(process) | Role::Session { process, owner: true, .. } if process == id);
        let waiters: Vec<u64> =
            self.connections.iter().filter(|(_, connection)| waiting(connection.role)).map(|(id, _)| *id).collect();
        let failure = match result {
            Ok(Some(LaunchResult::Started { pid, started_at_ns, .. })) if helper_code == 0 => {
                process.state = State::Running { pid, child: true };
                let uid = process.uid();
                if let Some(terminal) = process.console.take().and_then(|console| receive_terminal(&console, uid)) {
                    process.stdin = terminal.try_clone().ok().map(Stdin::new);
                    process.outputs = [terminal.try_clone().ok(), None];
                    process.terminal = Some(terminal);
                }
                self.watch_outputs(id);
                steps::reached("shim-launched");
                for waiter in waiters {
                    if let Some(connection) = self.connections.get_mut(&waiter)
                        && connection.role == Role::AwaitsStart(id)
                    {
                        connection.role = Role::Idle;
                    }
                    self.reply(waiter, &Reply::Started { started_at_ns });
                }
                return;
            }
            Ok(Some(LaunchResult::Failed { message })) => message,
            Ok(_) => format!("the helper ended with code {helper_code}"),
            Err(error) => format!("the helper's result is unreadable: {error}"),
        };
        if let Some(dir) =
            self.processes.get(&id).filter(|process| process.container().is_some()).map(|p| p.dir.clone())
        {
            end_half_started(&dir);
        }
        for waiter in waiters {
            if let Some(connection) = self.connections.get_mut(&waiter) {
                connection.role = Role::Idle;
            }
            self.fail(waiter, failure.clone());
        }
        self.drain_outputs(id);
        if let Some(process) = self.processes.remove(&id) {
            self.release(process);
        }
    }

    /// Ends the record of a process: closes its descriptors, removes its control group or exec directory.
    fn release(&mut self, mut process: Process) {
        for fd in process.outputs.iter().flatten() {
            self.forget(fd.as_fd());
        }
        if let Some(stdin) = process.stdin.take_if(|stdin| stdin.waiting) {
            self.forget(stdin.fd.as_fd());
        }
        if let Some(pidfd) = &process.pidfd {
            self.forget(pidfd.as_fd());
        }
        match &process.what {
            What::Container(launch) => {
                if !cgroup::remove(&launch.cgroup) {
                    cgroup::signal_all(&launch.cgroup, SIGKILL);
                    if !cgroup::remove(&launch.cgroup) {
                        self.end_group(launch.cgroup.clone());
                    }
                }
            }
            What::Exec { .. } => {
                let _ = std::fs::remove_dir_all(&process.dir);
            }
        }
    }

    /// A process has ended with `code`: records it, delivers its last output, tells who waits.
    pub(super) fn ended(&mut self, id: u64, code: i32, unknown: bool) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let mut exited = None;
        if let What::Container(launch) = &process.what {
            let oom_killed = cgroup::oom_kills(&launch.cgroup) > 0;
            let finished_at_ns = jiff::Timestamp::now().as_nanosecond() as i64;
            let exit = Exit { code, finished_at_ns, oom_killed, unknown };
            steps::reached("shim-exit-seen");
            // Before anything else: from here on the exit code cannot be lost to a crash.
            if let Err(error) = write_json(&launch.exit_file, &exit) {
                eprintln!("shim: note the end of {}: {error}", launch.id);
                // A full disk; the state directory is in memory as a rule.
                let _ = write_json(&process.dir.join(EXIT_FILE), &exit);
            }
            steps::reached("shim-exit-noted");
            if !launch.own_pid_namespace {
                cgroup::signal_all(&launch.cgroup, SIGKILL);
            }
            exited = Some(Event::Exited { id: launch.id.clone(), exit });
        }
        self.drain_outputs(id);
        let Some(mut process) = self.processes.remove(&id) else { return };
        if let Some(log) = &mut process.log {
            log.finish(&now());
        }
        for session in std::mem::take(&mut process.sessions) {
            if let Some(connection) = self.connections.get_mut(&session) {
                connection.role = Role::Idle;
                connection.closing = true;
            }
            self.send(session, Kind::Exit, &code.to_be_bytes());
        }
        self.release(process);
        steps::reached("shim-released");
        if let Some(event) = exited {
            self.notify(&event);
        }
    }

    /// Answers once a container that is being started has been.
    pub(super) fn await_start(&mut self, connection: u64, id: &str) {
        let found = self.container(id).and_then(|id| Some((id, self.processes.get(&id)?)));
        let reply = match found.map(|(id, process)| (id, process.state, process.dir.join(LaunchResult::FILE))) {
            None => Reply::NotRunning,
            Some((process, State::Launching(_), _)) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.role = Role::AwaitsStart(process);
                }
                return;
            }
            Some((_, State::Running { .. }, result)) => match read_json(&result) {
                Ok(Some(LaunchResult::Started { started_at_ns, .. })) => Reply::Started { started_at_ns },
                _ => Reply::Error { message: "the helper's result is unreadable".into() },
            },
        };
        self.reply(connection, &reply);
    }

    pub(super) fn attach(&mut self, connection: u64, id: &str, role: Role) {
        let (Some(process), Role::Session { stdin, stdout, stderr, owner, .. }) = (self.running_container(id), role)
        else {
            return self.reply(connection, &Reply::NotRunning);
        };
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.role = Role::Session { process, stdin, stdout, stderr, owner };
        }
        if let Some(process) = self.processes.get_mut(&process) {
            process.sessions.push(connection);
        }
        self.reply(connection, &Reply::Started { started_at_ns: 0 });
    }

    pub(super) fn stdin(&mut self, process: u64, connection: u64, data: &[u8]) {
        let Some(stdin) = self.processes.get_mut(&process).and_then(|process| process.stdin.as_mut()) else { return };
        stdin.queue.extend(data);
        self.write_stdin(process);
        let queued =
            self.processes.get(&process).and_then(|process| process.stdin.as_ref()).map_or(0, |s| s.queue.len());
        self.pause_connection(connection, queued > STDIN_HIGH_BYTES);
    }

    /// Writes what the process takes of its input, and watches for room if more is left.
    pub(super) fn write_stdin(&mut self, id: u64) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(stdin) = &mut process.stdin else { return };
        let open = stdin.flush();
        let done = !open || stdin.queue.is_empty();
        let (was_waiting, ending) = (stdin.waiting, stdin.ending || !open);
        stdin.waiting = !done;
        let sessions = process.sessions.clone();
        if done {
            if was_waiting && let Some(stdin) = self.processes.get(&id).and_then(|process| process.stdin.as_ref()) {
                self.forget(stdin.fd.as_fd());
            }
            if ending && let Some(process) = self.processes.get_mut(&id) {
                process.stdin = None;
            }
            for session in sessions {
                self.pause_connection(session, false);
            }
        } else if !was_waiting && let Some(stdin) = self.processes.get(&id).and_then(|process| process.stdin.as_ref()) {
            let _ = self.add(stdin.fd.as_fd(), Token::Stdin(id), EventFlags::OUT);
        }
    }

    /// A session has no more input. A container's input stays open for the next one unless it is to be attached once.
    pub(super) fn stdin_ended(&mut self, id: u64) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let keep = process.container().is_some_and(|launch| !launch.stdin_once) || process.is_terminal();
        if let Some(stdin) = process.stdin.as_mut().filter(|_| !keep) {
            stdin.ending = true;
            self.write_stdin(id);
        }
    }

    /// The connection of a session has gone.
    pub(super) fn session_ended(&mut self, id: u64, connection: u64, stdin: bool, owner: bool) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.sessions.retain(|session| *session != connection);
        if owner && process.is_terminal() {
            // Its terminal hangs up, as when a user closes a window.
            for fd in process.outputs.iter_mut().filter_map(Option::take) {
                let _ = fd;
            }
            process.stdin = None;
            process.terminal = None;
        } else if stdin {
            self.stdin_ended(id);
        }
        self.resume_output(id);
    }

    pub(super) fn resize(&mut self, id: u64, payload: &[u8]) {
        let terminal = self.processes.get(&id).and_then(|process| process.terminal.as_ref());
        if let (Some(terminal), [c1, c0, r1, r0]) = (terminal, payload) {
            let (ws_col, ws_row) = (u16::from_be_bytes([*c1, *c0]), u16::from_be_bytes([*r1, *r0]));
            let _ = tcsetwinsize(terminal, Winsize { ws_col, ws_row, ws_xpixel: 0, ws_ypixel: 0 });
        }
    }

    pub(super) fn signal(&mut self, id: u64, signal: i32) {
        if let Some(pid) = self.processes.get(&id).and_then(Process::pid) {
            let _ = send_signal(pid, signal);
        }
    }

    pub(super) fn kill(&mut self, id: &str, signal: i32, all: bool) -> Reply {
        let Some(process) = self.container(id).and_then(|id| self.processes.get(&id)) else {
            return Reply::NotRunning;
        };
        if all && let Some(launch) = process.container() {
            cgroup::signal_all(&launch.cgroup, signal);
        }
        if let State::Launching(helper) = process.state
            && signal == SIGKILL
        {
            // It is told as the start's failure.
            let _ = send_signal(helper, signal);
            return Reply::Ok;
        }
        match process.pid().map(|pid| send_signal(pid, signal)) {
            Some(Ok(())) => Reply::Ok,
            Some(Err(message)) => Reply::Error { message },
            None => Reply::NotRunning,
        }
    }

    pub(super) fn reopen_log(&mut self, id: &str) -> Reply {
        let Some(process) = self.running_container(id).and_then(|id| self.processes.get_mut(&id)) else {
            return Reply::NotRunning;
        };
        match process.log.as_mut().map(Log::reopen) {
            Some(Err(error)) => Reply::Error { message: format!("reopen the log: {error}") },
            _ => Reply::Ok,
        }
    }

    /// Takes over the containers of a shim that died.
    pub(super) fn adopt(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.dir.join("c")) else { return };
        let dirs: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|dir| file_name(dir).is_some()).collect();
        for dir in dirs {
            if let Ok(Some(launch)) = read_json::<Launch>(&dir.join(Launch::FILE)) {
                self.adopt_container(&dir, launch);
            }
        }
    }

    fn adopt_container(&mut self, dir: &Path, launch: Launch) {
        let result = read_json::<LaunchResult>(&dir.join(LaunchResult::FILE)).ok().flatten();
        let begun = matches!(result, Some(LaunchResult::Started { begun: true, .. }));
        if !begun && !launch.exit_file.exists() && !dir.join(EXIT_FILE).exists() {
            end_half_started(dir);
        }
        let alive = match result {
            Some(LaunchResult::Started { pid, start_time, begun: true, .. }) => Pid::from_raw(pid)
                .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
                .filter(|_| process_start_time(pid) == Some(start_time))
                .map(|pidfd| (pid, pidfd)),
            _ => None,
        };
        let id = self.new_id();
        // One that has ended gets no new file in place of one that somebody has removed.
        let path = launch.log_path.as_deref().filter(|path| alive.is_some() || path.exists());
        let log = path.and_then(|path| Log::open(path).ok());
        let ends = reopen_pipes(dir);
        let mut process = Process {
            what: What::Container(launch),
            state: State::Running { pid: 0, child: false },
            dir: dir.into(),
            stdin: ends.stdin.map(Stdin::new),
            outputs: ends.outputs,
            paused: false,
            terminal: None,
            console: None,
            pidfd: None,
            log,
            sessions: Vec::new(),
        };
        let Some((pid, pidfd)) = alive else {
            // It ended, or never began, while nobody looked. Its runtime may know with which code; what is left of it is
            // ended here.
            if let Some(launch) = process.container() {
                cgroup::signal_all(&launch.cgroup, SIGKILL);
            }
            self.processes.insert(id, process);
            self.drain_outputs(id);
            if let Some(mut process) = self.processes.remove(&id) {
                if let Some(log) = &mut process.log {
                    log.finish(&now());
                }
                self.release(process);
            }
            return;
        };
        process.state = State::Running { pid, child: false };
        let watched = self.add(pidfd.as_fd(), Token::Pidfd(id), EventFlags::IN);
        process.pidfd = Some(pidfd);
        self.processes.insert(id, process);
        self.watch_outputs(id);
        if watched.is_err() {
            self.ended(id, 255, true);
        }
    }

    /// An adopted process has ended. It was not this shim's child: its status is known once its parent has reaped it, if
    /// the kernel is one that tells.
    pub(super) fn adopted_ended(&mut self, id: u64, reaped: bool) {
        let Some(pidfd) = self.processes.get(&id).and_then(|process| process.pidfd.as_ref()) else { return };
        match exit_code(pidfd.as_fd()) {
            Some(code) => self.ended(id, code, false),
            None if reaped => self.ended(id, 255, true),
            // From now on only the reaping is reported.
            None => {
                self.watch_reaping(pidfd.as_fd(), id);
                self.zombies.push((id, Instant::now() + REAP_PATIENCE));
            }
        }
    }

    /// Gives up on parents that do not reap.
    pub(super) fn end_zombies(&mut self) {
        let now = Instant::now();
        let (due, waiting) =
            std::mem::take(&mut self.zombies).into_iter().partition::<Vec<_>, _>(|(_, end)| *end <= now);
        self.zombies = waiting;
        for (id, _) in due {
            self.adopted_ended(id, true);
        }
    }
}

/// Ends what a helper that did not get to its end has left: forks of it, which are not in the container's control groups
/// yet, and a first process that would wait for ever to be let go (which the kernel calls by the helper's command line, too).
fn end_half_started(dir: &Path) {
    let words: [&[u8]; 3] = [b"shim", b"create", dir.as_os_str().as_encoded_bytes()];
    processes::end_all("cmdline", &words);
}

fn send_signal(pid: i32, signal: i32) -> Result<(), String> {
    sys::signal(pid, signal).map_err(|error| format!("signal {signal}: {error}"))
}

fn stdio(command: &mut Command, child: super::process::ChildEnds) {
    command.stdin(child.stdin.map_or_else(Stdio::null, Stdio::from)).stdout(child.stdout).stderr(child.stderr);
}

/// Standard streams come from the terminal that the helper makes; its master arrives on the returned socket.
fn terminal_stdio(command: &mut Command, dir: &Path) -> Result<UnixListener, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let path = dir.join(CONSOLE_SOCKET);
    // The working directory is the sandbox's, so the relative name is short enough for a socket address.
    let relative = std::env::current_dir().ok().and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_path_buf));
    let relative = relative.unwrap_or_else(|| path.clone());
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&relative).map_err(|error| format!("listen for the terminal: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| format!("listen for the terminal: {error}"))?;
    Ok(listener)
}
