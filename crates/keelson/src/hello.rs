//! `keelson hello`, the program in `keelson.local/hello`: a web server that says which pod answers, and with `get URL` a
//! client to ask one. Plain threads and sockets: it should cost next to nothing in each pod.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// Connections served at once; more are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// Largest request head, in bytes.
const MAX_HEAD_BYTES: u64 = 64 << 10;
/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// A server that is told to end goes on for as long as requests come less than this apart…
const QUIET: Duration = Duration::from_millis(500);
/// …but for no longer than this.
const DRAIN: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
/// Stack of a connection's thread.
const STACK_BYTES: usize = 128 << 10;

/// Runs the server, or the client.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let result = match args {
        [] => serve(),
        [command, url] if command == "get" => get(url),
        _ => Err(std::io::Error::other("usage: hello [get http://HOST[:PORT]/PATH]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> std::io::Result<()> {
    // As PID 1 of a container nothing ends us that we do not handle: a thread waits for the signals and leaves.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let traffic = Arc::new(Traffic::new());
    let seen = traffic.clone();
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        if let Ok(signal) = signals.wait() {
            if signal == Signal::SIGTERM {
                seen.drain();
            }
            println!("{signal}: goodbye");
            std::process::exit(0);
        }
    })?;

    let port: u16 = std::env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(80);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("{} listens on port {port}", who());
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        traffic.note();
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (slot, traffic) = (open.clone(), traffic.clone());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _ = answer(&stream, &traffic);
            slot.fetch_sub(1, Ordering::Relaxed);
        });
        if thread.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// When there was something to do last, so that an asked-to-leave server knows when it is no longer needed.
struct Traffic {
    since: Instant,
    /// Milliseconds after `since`; 0 for never.
    last_ms: AtomicU64,
    draining: AtomicBool,
}

impl Traffic {
    fn new() -> Self {
        Self { since: Instant::now(), last_ms: AtomicU64::new(0), draining: AtomicBool::new(false) }
    }

    fn note(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns when clients have stopped coming: a terminating pod is told to end while the nodes still learn that its
    /// address is no longer an endpoint. Without traffic that is at once.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + DRAIN;
        loop {
            let last = self.last_ms.load(Ordering::Relaxed);
            let quiet = Duration::from_millis(self.now_ms().saturating_sub(last));
            if last == 0 || quiet >= QUIET || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(QUIET.saturating_sub(quiet));
        }
    }
}

/// The pod's name and the version.
fn who() -> String {
    let name = std::env::var("POD_NAME").ok().filter(|n| !n.is_empty());
    let name = name.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let version = std::env::var("VERSION").unwrap_or_else(|_| env!("CARGO_PKG_VERSION").into());
    format!("{name} (version {version})")
}

/// Answers requests until the connection ends.
fn answer(stream: &TcpStream, traffic: &Traffic) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        let mut limited = (&mut reader).take(MAX_HEAD_BYTES);
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let header = |name: &str| {
            head.iter()
                .skip(1)
                .filter_map(|l| l.split_once(':'))
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.trim())
        };
        let length: u64 = header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let close = header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
            || head.first().is_some_and(|line| line.ends_with("HTTP/1.0"))
            || traffic.draining.load(Ordering::Relaxed);
        traffic.note();
        println!("{peer} {}", head.first().map_or("", String::as_str));
        let body = format!("Hello from {}\n\n{}\n", who(), head.join("\n"));
        let connection = if close { "close" } else { "keep-alive" };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(response.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// Prints what a server answers.
fn get(url: &str) -> std::io::Result<()> {
    let rest = url.strip_prefix("http://").ok_or_else(|| std::io::Error::other("only http:// is spoken here"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut last = std::io::Error::other(format!("{address}: no such host"));
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(IDLE))?;
                write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
                let mut answer = Vec::new();
                stream.take(1 << 20).read_to_end(&mut answer)?;
                let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |i| i + 4);
                return std::io::stdout().write_all(&answer[end..]);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
