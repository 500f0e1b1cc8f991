//! Leader election over a `coordination.k8s.io/v1` Lease, with upstream's defaults and record format.
//!
//! Others' clocks are not trusted: a lease counts as held for `lease_duration` after *we* saw it change.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::{EventRecorder, clock, metrics, reference};

/// Which lease, as whom and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// `kube-system`
    pub namespace: String,
    /// The lease's name: `kube-scheduler`.
    pub name: String,
    /// Unique to this process: `host_uuid`.
    pub identity: String,
    /// How long others wait before they take a lease that is no longer renewed.
    pub lease_duration: Duration,
    /// How long the holder tries to renew before it gives up; less than `lease_duration`.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry_period: Duration,
}

impl Config {
    /// Upstream's 15 s, 10 s and 2 s.
    pub fn new(namespace: &str, name: &str, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Takes part in an election.
pub struct LeaderElector {
    api: Api<Lease>,
    config: Config,
    recorder: Option<EventRecorder>,
    leading: watch::Sender<bool>,
}

/// The lease as last seen, and when.
struct Observed {
    lease: Lease,
    at: Instant,
}

/// Leadership, until [`lost`](Leadership::lost) is cancelled. Released when [`release`](Leadership::release) is called;
/// dropping it only stops renewing.
pub struct Leadership {
    /// Cancelled when the lease could not be renewed in time: stop acting at once.
    pub lost: CancellationToken,
    stop: CancellationToken,
    renewing: AbortOnDropHandle<()>,
}

impl Leadership {
    /// Gives the lease up, so that another can take it at once.
    pub async fn release(self) {
        self.stop.cancel();
        let _ = self.renewing.await;
    }
}

impl LeaderElector {
    /// `recorder` tells of changes of leadership.
    pub fn new(client: kube::Client, config: Config, recorder: Option<EventRecorder>) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, config, recorder, leading: watch::Sender::new(false) }
    }

    /// Whether this process leads.
    pub fn is_leader(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    fn set_leading(&self, leads: bool) {
        self.leading.send_replace(leads);
        metrics::leads(&self.config.name, leads);
    }

    /// Waits to become leader, however long that takes; `None` on shutdown.
    pub async fn acquire(&self, shutdown: &CancellationToken) -> Option<Leadership> {
        let mut observed = None;
        metrics::leads(&self.config.name, false);
        loop {
            match self.try_take(&mut observed).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.config.name, %error, "cannot take the lease"),
            }
            // Upstream's jitter factor for this pause is 1.2.
            let pause = self.config.retry_period.mul_f64(1.0 + 1.2 * rand::random::<f64>());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return None,
            }
        }
        tracing::info!(lease = self.config.name, identity = self.config.identity, "became leader");
        self.set_leading(true);
        if let (Some(recorder), Some(observed)) = (&self.recorder, &observed) {
            let message = format!("{} became leader", self.config.identity);
            recorder.normal(&reference(&observed.lease), "LeaderElection", message);
        }
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let renewer = Renewer {
            elector: Self {
                api: self.api.clone(),
                config: self.config.clone(),
                recorder: self.recorder.clone(),
                leading: self.leading.clone(),
            },
            lost: lost.clone(),
            stop: stop.clone(),
        };
        let renewing = AbortOnDropHandle::new(tokio::spawn(renewer.run(observed)));
        Some(Leadership { lost, stop, renewing })
    }

    /// Whether the lease is ours now.
    async fn try_take(&self, observed: &mut Option<Observed>) -> kube::Result<bool> {
        let now = clock::now();
        let Some(lease) = self.api.get_opt(&self.config.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.config.name.clone());
            lease.metadata.namespace = Some(self.config.namespace.clone());
            lease.spec = Some(self.record(now, now, 0));
            let lease = self.api.create(&PostParams::default(), &lease).await?;
            *observed = Some(Observed { lease, at: Instant::now() });
            return Ok(true);
        };
        if observed.as_ref().is_none_or(|seen| seen.lease.spec != lease.spec) {
            *observed = Some(Observed { lease: lease.clone(), at: Instant::now() });
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.config.identity;
        let term = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let expired = observed.as_ref().is_none_or(|seen| seen.at.elapsed() >= term);
        if !ours && !holder.is_empty() && !expired {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        let wanted = if ours {
            self.record(spec.acquire_time.map_or(now, |time| time.0), now, transitions)
        } else {
            self.record(now, now, transitions.saturating_add(1))
        };
        self.put(lease, wanted, observed).await?;
        Ok(true)
    }

    async fn put(&self, mut lease: Lease, spec: LeaseSpec, observed: &mut Option<Observed>) -> kube::Result<()> {
        lease.spec = Some(spec);
        lease.metadata.managed_fields = None;
        let lease = self.api.replace(&self.config.name, &PostParams::default(), &lease).await?;
        *observed = Some(Observed { lease, at: Instant::now() });
        Ok(())
    }

    fn record(&self, acquired: jiff::Timestamp, renewed: jiff::Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.lease_duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Keeps a lease that was taken.
struct Renewer {
    elector: LeaderElector,
    lost: CancellationToken,
    stop: CancellationToken,
}

impl Renewer {
    async fn run(self, mut observed: Option<Observed>) {
        let config = &self.elector.config;
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(config.retry_period) => {}
                () = self.stop.cancelled() => {
                    self.give_up(&mut observed).await;
                    return;
                }
            }
            if self.renew(&mut observed, renewed + config.renew_deadline).await {
                renewed = Instant::now();
            } else if renewed.elapsed() >= config.renew_deadline {
                break;
            }
        }
        tracing::error!(lease = config.name, "lost the lease: could not renew it in time");
        self.elector.set_leading(false);
        self.lost.cancel();
        if let (Some(recorder), Some(observed)) = (&self.elector.recorder, &observed) {
            let message = format!("{} stopped leading", config.identity);
            recorder.normal(&reference(&observed.lease), "LeaderElection", message);
        }
    }

    /// One write when nobody interfered; otherwise a fresh look.
    async fn renew(&self, observed: &mut Option<Observed>, deadline: Instant) -> bool {
        let elector = &self.elector;
        let attempt = async {
            if let Some(seen) = observed.as_ref().map(|seen| seen.lease.clone())
                && let Some(spec) = seen.spec.clone()
                // Not over a lease that somebody else has been seen to hold.
                && spec.holder_identity.as_deref() == Some(elector.config.identity.as_str())
            {
                let acquired = spec.acquire_time.map_or_else(clock::now, |time| time.0);
                let record = elector.record(acquired, clock::now(), spec.lease_transitions.unwrap_or(0));
                if elector.put(seen, record, observed).await.is_ok() {
                    return true;
                }
            }
            matches!(elector.try_take(observed).await, Ok(true))
        };
        tokio::time::timeout_at(deadline, attempt).await.unwrap_or(false)
    }

    async fn give_up(&self, observed: &mut Option<Observed>) {
        self.elector.set_leading(false);
        let Some(lease) = observed.as_ref().map(|seen| seen.lease.clone()) else { return };
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let now = clock::now();
        let mut record = self.elector.record(now, now, transitions);
        record.holder_identity = Some(String::new());
        record.lease_duration_seconds = Some(1);
        let put = self.elector.put(lease, record, observed);
        if !matches!(tokio::time::timeout(self.elector.config.retry_period, put).await, Ok(Ok(()))) {
            tracing::warn!(lease = self.elector.config.name, "could not release the lease; others must wait it out");
        }
    }
}
