//! logind on the system's bus: the inhibitor lock that makes a shutdown wait, how long at most, and the signal that one begins
//! (systemd's "Inhibitor Locks"; `org.freedesktop.login1(5)`).

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

use crate::Error;
use crate::config::go_duration;

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const LOGIND_MANAGER: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD_MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long the bus or logind may take to answer.
const ANSWER: Duration = Duration::from_secs(25);
/// Signals that wait to be heeded.
const QUEUE: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// The file that asks logind to wait as long as pods have.
const DROP_IN: &str = "99-kubelet.conf";
/// logind takes its new configuration in its own time: waits before it is asked again.
const RELOADS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// SIGHUP
const RELOAD: i32 = 1;

/// A connection to logind with the lock that makes the shutdown wait.
pub(super) struct Watch {
    bus: Connection,
    signals: MessageStream,
    lock: Option<OwnedFd>,
}

impl Watch {
    /// Connects to the bus at `address` (the system's where that is unset), sees to it that logind waits for `period`, and
    /// takes the lock.
    pub(super) async fn start(address: Option<&str>, config_dir: &Path, period: Duration) -> Result<Watch, Error> {
        let builder = match address {
            Some(address) => zbus::connection::Builder::address(address),
            None => zbus::connection::Builder::system(),
        };
        let bus = tokio::time::timeout(ANSWER, builder.method_timeout(ANSWER).build()).await;
        let bus = bus.map_err(|_| Error::message("the system bus does not answer"))?;
        let bus = bus.map_err(|error| Error::message(format!("the system bus: {error}")))?;
        // Of no other sender: anybody may send signals on the system's bus.
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(LOGIND)
            .path(LOGIND_PATH)
            .interface(LOGIND_MANAGER)
            .member("PrepareForShutdown")
            .build()
            .map_err(failed("failed to monitor shutdown"))?;
        // Before the lock is taken, so that no signal is missed once logind waits for it.
        let signals = MessageStream::for_match_rule(rule, &bus, Some(QUEUE)).await;
        let signals = signals.map_err(failed("failed to monitor shutdown"))?;
        let mut watch = Watch { bus, signals, lock: None };
        watch.make_wait(config_dir, period).await?;
        watch.inhibit().await?;
        Ok(watch)
    }

    /// Makes logind wait for locks as long as `period`.
    async fn make_wait(&self, config_dir: &Path, period: Duration) -> Result<(), Error> {
        if self.longest_wait().await? >= period {
            return Ok(());
        }
        write_drop_in(config_dir, period).map_err(|error| {
            Error::message(format!("unable to override inhibit delay by shutdown manager: {error}"))
        })?;
        let body = ("systemd-logind.service", "all", RELOAD);
        let reloaded = self.bus.call_method(Some(SYSTEMD), SYSTEMD_PATH, Some(SYSTEMD_MANAGER), "KillUnit", &body);
        reloaded.await.map_err(failed("unable to reload logind conf"))?;
        let mut longest = self.longest_wait().await?;
        for pause in RELOADS {
            if longest >= period {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            longest = self.longest_wait().await?;
        }
        if longest >= period {
            return Ok(());
        }
        let attempts = RELOADS.len() + 1;
        Err(Error::message(format!(
            "node shutdown manager was timed out after {attempts} attempts waiting for logind InhibitDelayMaxSec to update \
             to {} (ShutdownGracePeriod), current value is {}",
            go_duration(period),
            go_duration(longest)
        )))
    }

    /// How long logind waits for locks.
    async fn longest_wait(&self) -> Result<Duration, Error> {
        let wrong = failed("failed reading InhibitDelayMaxUSec property from logind");
        let body = (LOGIND_MANAGER, "InhibitDelayMaxUSec");
        let properties = Some("org.freedesktop.DBus.Properties");
        let micros = async {
            let answer = self.bus.call_method(Some(LOGIND), LOGIND_PATH, properties, "Get", &body).await?;
            let value: OwnedVariant = answer.body().deserialize()?;
            u64::try_from(value)
        };
        micros.await.map(Duration::from_micros).map_err(wrong)
    }

    /// Takes the lock, and lets go of the one before.
    pub(super) async fn inhibit(&mut self) -> Result<(), Error> {
        let body = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay");
        let lock = async {
            let answer =
                self.bus.call_method(Some(LOGIND), LOGIND_PATH, Some(LOGIND_MANAGER), "Inhibit", &body).await?;
            answer.body().deserialize::<zbus::OwnedFd>()
        };
        let lock = lock.await.map_err(failed("failed creating systemd inhibitor"))?;
        self.lock = Some(lock.into());
        Ok(())
    }

    /// Lets the shutdown go on.
    pub(super) fn release(&mut self) {
        self.lock = None;
    }

    /// Whether a shutdown begins (or else is called off), once logind says so; nothing when the bus is gone.
    pub(super) async fn next(&mut self) -> Option<bool> {
        loop {
            let signal: Message = self.signals.next().await?.ok()?;
            match signal.body().deserialize() {
                Ok(begins) => return Some(begins),
                Err(error) => tracing::error!(%error, "logind's PrepareForShutdown is not understood"),
            }
        }
    }
}

/// Asks logind, in a file that it reads when it is told to, to wait for `period`.
fn write_drop_in(dir: &Path, period: Duration) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let path = dir.join(DROP_IN);
    let text = format!(
        "# Written by the kubelet: its pods have this long to end before the machine goes down.\n[Login]\n\
         InhibitDelayMaxSec={}\n",
        period.as_secs()
    );
    std::fs::write(&path, text).map_err(Error::file("write", &path))
}

fn failed(what: &'static str) -> impl Fn(zbus::Error) -> Error {
    move |error| Error::message(format!("{what}: {error}"))
}
