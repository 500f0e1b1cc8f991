//! A bus of a test's own (Debian's `dbus-daemon`) with a stand-in for logind and systemd on it: what graceful node shutdown
//! needs of them, on machines that have neither. Nothing here can shut a machine down.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use zbus::Connection;

/// How long starting may take.
const START: Duration = Duration::from_secs(20);
const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const LOGIND_MANAGER: &str = "org.freedesktop.login1.Manager";

/// The bus and who is on it; dropped, they are gone.
pub struct Logind {
    dir: PathBuf,
    bus: Option<Child>,
    connection: Option<Connection>,
    inner: Arc<Inner>,
}

struct Inner {
    /// What logind waits at most, microseconds.
    delay_micros: AtomicU64,
    /// Where it reads, when it is told to, how long it is to wait.
    config_dir: PathBuf,
    /// What locks were asked for, in words.
    asked: Mutex<Vec<String>>,
    held: watch::Sender<usize>,
    /// Times it was told to read its configuration.
    reloads: AtomicU64,
}

impl Logind {
    /// A bus with its socket in `dir`, whose logind waits `delay` at most. With `delay` unset there is only the bus.
    ///
    /// # Errors
    /// When `dbus-daemon` is not there or does not start.
    pub async fn start(dir: &Path, delay: Option<Duration>) -> std::io::Result<Logind> {
        let config_dir = dir.join("logind.conf.d");
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>session</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\"/>\
             <allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>",
            socket(dir).display()
        );
        std::fs::write(dir.join("bus.conf"), config)?;
        let inner = Inner {
            delay_micros: AtomicU64::new(0),
            config_dir,
            asked: Mutex::default(),
            held: watch::Sender::new(0),
            reloads: AtomicU64::new(0),
        };
        let mut logind = Logind { dir: dir.into(), bus: None, connection: None, inner: Arc::new(inner) };
        logind.restart(delay).await?;
        Ok(logind)
    }

    /// Ends the bus, with which all connections end, and starts another at the same address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self, delay: Option<Duration>) -> std::io::Result<()> {
        self.connection = None;
        self.end_bus();
        let config = format!("--config-file={}", self.dir.join("bus.conf").display());
        let bus =
            Command::new("dbus-daemon").args(["--nofork", "--nopidfile", &config]).stderr(Stdio::inherit()).spawn()?;
        self.bus = Some(bus);
        let until = tokio::time::Instant::now() + START;
        while std::os::unix::net::UnixStream::connect(socket(&self.dir)).is_err() {
            if tokio::time::Instant::now() > until {
                return Err(std::io::Error::other("dbus-daemon does not listen"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Some(delay) = delay else { return Ok(()) };
        self.inner.set_delay(delay);
        let address = self.address();
        let connection = zbus::connection::Builder::address(address.as_str())
            .serve_at(LOGIND_PATH, Manager(self.inner.clone()))
            .serve_at("/org/freedesktop/systemd1", Systemd(self.inner.clone()))
            .name("org.freedesktop.systemd1")
            .name(LOGIND)
            .build();
        self.connection = Some(connection.await.map_err(std::io::Error::other)?);
        Ok(())
    }

    /// The bus's address, in D-Bus's form.
    pub fn address(&self) -> String {
        format!("unix:path={}", socket(&self.dir).display())
    }

    /// Where logind reads files that add to its configuration.
    pub fn config_dir(&self) -> &Path {
        &self.inner.config_dir
    }

    /// What locks were asked for: `what|who|mode`.
    pub fn asked(&self) -> Vec<String> {
        self.inner.asked.lock().clone()
    }

    /// How many times logind was told to read its configuration.
    pub fn reloads(&self) -> u64 {
        self.inner.reloads.load(Ordering::SeqCst)
    }

    /// How many locks make a shutdown wait, followed.
    pub fn held(&self) -> watch::Receiver<usize> {
        self.inner.held.subscribe()
    }

    /// Tells everybody that a shutdown begins, or that it is called off.
    ///
    /// # Errors
    /// When the bus is gone, or there is no logind on it.
    pub async fn prepare_for_shutdown(&self, begins: bool) -> zbus::Result<()> {
        let connection = self.connection.as_ref().ok_or_else(|| zbus::Error::Failure("no logind".into()))?;
        connection.emit_signal(None::<&str>, LOGIND_PATH, LOGIND_MANAGER, "PrepareForShutdown", &begins).await
    }

    fn end_bus(&mut self) {
        if let Some(mut bus) = self.bus.take() {
            let _ = bus.kill();
            let _ = bus.wait();
        }
        let _ = std::fs::remove_file(socket(&self.dir));
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        self.end_bus();
    }
}

/// The bus's socket in `dir`.
fn socket(dir: &Path) -> PathBuf {
    dir.join("bus")
}

impl Inner {
    fn set_delay(&self, delay: Duration) {
        self.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// What files in its directory say, as logind does with `InhibitDelayMaxSec`.
    fn reload(&self) {
        let files = std::fs::read_dir(&self.config_dir).into_iter().flatten().flatten();
        for text in files.filter_map(|file| std::fs::read_to_string(file.path()).ok()) {
            let mut in_section = false;
            for line in text.lines().map(str::trim) {
                in_section = if line.starts_with('[') { line == "[Login]" } else { in_section };
                let seconds = line.strip_prefix("InhibitDelayMaxSec=").and_then(|seconds| seconds.parse().ok());
                if let Some(seconds) = seconds.filter(|_| in_section) {
                    self.set_delay(Duration::from_secs(seconds));
                }
            }
        }
    }
}

struct Manager(Arc<Inner>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max_usec(&self) -> u64 {
        self.0.delay_micros.load(Ordering::SeqCst)
    }

    /// A lock is held until the descriptor is closed by whoever has it.
    fn inhibit(&self, what: &str, who: &str, _why: &str, mode: &str) -> zbus::fdo::Result<zbus::OwnedFd> {
        let (mut mine, theirs) = std::io::pipe().map_err(|error| zbus::fdo::Error::IOError(error.to_string()))?;
        self.0.asked.lock().push(format!("{what}|{who}|{mode}"));
        self.0.held.send_modify(|held| *held += 1);
        let held = self.0.held.clone();
        std::thread::spawn(move || {
            let _ = mine.read(&mut [0]);
            held.send_modify(|held| *held -= 1);
        });
        Ok(OwnedFd::from(theirs).into())
    }
}

struct Systemd(Arc<Inner>);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, unit: &str, whom: &str, signal: i32) -> zbus::fdo::Result<()> {
        if (unit, whom, signal) != ("systemd-logind.service", "all", 1) {
            return Err(zbus::fdo::Error::InvalidArgs(format!("{unit} {whom} {signal}")));
        }
        self.0.reloads.fetch_add(1, Ordering::SeqCst);
        let inner = self.0.clone();
        // logind takes its time.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            inner.reload();
        });
        Ok(())
    }
}
