//! The audit log: who asked for what, and what came of it, as the policy wants it written down. Without a policy nothing
//! of this runs.
//!
//! - [`policy`]: how much, of which requests
//! - [`event`]: what is known of a request, and its events
//! - [`sink`]: the buffer before a backend
//! - [`batch`]: how events are taken from it
//! - [`log`], [`webhook`]: the backends
//! - [`legacy`]: events as text

mod batch;
mod event;
mod legacy;
mod log;
mod policy;
mod sink;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use keelson_api::status::Status;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use event::{Incoming, Record};
pub(crate) use policy::{Level, Stage};

use self::policy::Policy;
use self::sink::Sink;
use crate::config::Config;
use crate::{Error, UserInfo};

/// The policy and where events go.
pub(crate) struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    /// Requests by level.
    levels: [AtomicU64; 4],
    events: AtomicU64,
    refusals: AtomicU64,
    /// Events that were too large for a backend even without their objects.
    too_large: AtomicU64,
    /// Events that nobody waits for, on their way to the backends.
    later: TaskTracker,
    /// Room for what they write, in bytes.
    backlog: Arc<Semaphore>,
}

impl Audit {
    /// `None` without a policy, or without a backend.
    pub(crate) fn new(config: &Config) -> Result<Option<Arc<Self>>, Error> {
        let Some(audit) = &config.audit else { return Ok(None) };
        let path = audit.policy.display().to_string();
        let text =
            std::fs::read_to_string(&audit.policy).map_err(|source| Error::File { path: path.clone(), source })?;
        let policy = Policy::parse(&text).map_err(|why| Error::Configuration { path, why })?;
        let mut sinks: Vec<Sink> = Vec::new();
        sinks.extend(audit.log.as_ref().map(log::start).transpose()?);
        sinks.extend(audit.webhook.as_ref().map(webhook::start).transpose()?);
        if sinks.is_empty() {
            tracing::warn!("there is an audit policy, but no backend: no events are recorded");
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            policy,
            sinks,
            levels: Default::default(),
            events: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
            later: TaskTracker::new(),
            backlog: Arc::new(Semaphore::new(sink::BUFFER_BYTES)),
        })))
    }

    /// The record of a request, if the policy wants one. Without a user, authentication failed.
    pub(crate) fn begin(&self, request: &Incoming<'_>, user: Option<&Arc<UserInfo>>) -> Option<Arc<Record>> {
        let verdict = self.policy.verdict(user.map(Arc::as_ref), request.info);
        let level = verdict.as_ref().map_or(Level::None, |verdict| verdict.level);
        if let Some(count) = self.levels.get(level as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let verdict = verdict?;
        Some(Arc::new(Record::new(&verdict, request, user.cloned())))
    }

    /// Writes the event of a stage. An error is for the client, if its request cannot be served yet.
    pub(crate) async fn write(&self, record: &Record, stage: Stage) -> Result<(), Status> {
        match self.lines(record, stage) {
            Some(lines) => self.send(lines).await,
            None => Ok(()),
        }
    }

    /// As [`Audit::write`], for a body that ends: nobody waits.
    pub(crate) fn write_later(self: &Arc<Self>, record: &Record, stage: Stage) {
        let Some(lines) = self.lines(record, stage) else { return };
        // Without a runtime the server is gone, and with it who would write.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Ok(bytes) = u32::try_from(lines.iter().flatten().map(Bytes::len).sum::<usize>()) else { return };
        // Its request is over and cannot be held up: behind a backend that stands still, it is lost.
        let Ok(room) = self.backlog.clone().try_acquire_many_owned(bytes) else {
            return self.sinks.iter().for_each(Sink::lose);
        };
        let audit = self.clone();
        let send = async move {
            // Errors have been counted.
            let _ = audit.send(lines).await;
            drop(room);
        };
        self.later.spawn_on(send, &runtime);
    }

    /// The event of a stage as each backend is to have it; nothing for one that it is too large for. `None` when the policy
    /// leaves the stage out.
    fn lines(&self, record: &Record, stage: Stage) -> Option<Vec<Option<Bytes>>> {
        let moment = record.at(stage)?;
        let mut json = None;
        let lines: Vec<_> = self.sinks.iter().map(|sink| sink.line(&moment, &mut json)).collect();
        let missing = lines.iter().filter(|line| line.is_none()).count();
        if missing > 0 {
            tracing::warn!(uri = record.uri(), "an audit event is too large even after truncating");
            self.too_large.fetch_add(missing as u64, Ordering::Relaxed);
        }
        Some(lines)
    }

    /// Lines in the order of the backends.
    async fn send(&self, lines: Vec<Option<Bytes>>) -> Result<(), Status> {
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut stored = true;
        for (sink, line) in self.sinks.iter().zip(lines) {
            if let Some(line) = line {
                stored &= sink.write(line).await;
            }
        }
        if stored {
            return Ok(());
        }
        self.refusals.fetch_add(1, Ordering::Relaxed);
        Err(Status::internal("failed to store audit event"))
    }

    /// Waits until the backends have everything.
    pub(crate) async fn flush(&self) {
        self.later.close();
        self.later.wait().await;
        for sink in &self.sinks {
            sink.flush().await;
        }
    }

    /// Requests by what the policy said of them.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (Level, u64)> + '_ {
        let levels = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
        levels.into_iter().zip(self.levels.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Events written so far, and requests that were turned away because theirs could not be.
    pub(crate) fn events(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.refusals.load(Ordering::Relaxed))
    }

    /// Events lost so far, by backend, and those that were too large.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let too_large = ("truncate", self.too_large.load(Ordering::Relaxed));
        self.sinks.iter().map(Sink::losses).chain([too_large])
    }
}
