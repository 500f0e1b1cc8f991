//! A priority level while requests run: seats that are taken and given back.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Period;
use super::estimate::Cost;
use super::meters::{Meters, Reason};
use super::queues::{Answer, QueueSet, Queuing};
use super::share::Shares;

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    pub(super) shares: Shares,
    /// `None`: exempt.
    pub(super) queuing: Option<Queuing>,
}

#[derive(Deserialize)]
pub(super) struct View {
    metadata: super::Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    exempt: Option<Part>,
    limited: Option<Part>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Part {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: u32,
    borrowing_limit_percent: Option<u32>,
    limit_response: Response,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response {
    queuing: Option<QueuingView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueuingView {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl From<View> for Settings {
    fn from(View { metadata, spec }: View) -> Self {
        let exempt = spec.limited.is_none();
        let part = spec.limited.or(spec.exempt).unwrap_or_default();
        let queuing = part.limit_response.queuing.map_or(Queuing { queues: 0, hand_size: 1, length: 0 }, |view| {
            Queuing { queues: view.queues, hand_size: view.hand_size, length: view.queue_length_limit }
        });
        Self {
            name: metadata.name,
            uid: super::header(&metadata.uid),
            shares: Shares {
                shares: part.nominal_concurrency_shares.unwrap_or(if exempt { 0 } else { 30 }),
                lendable_percent: part.lendable_percent,
                borrowing_percent: part.borrowing_limit_percent,
            },
            queuing: (!exempt).then_some(queuing),
        }
    }
}

/// What a waiting request waits for. Dropped unused, the seats go back.
type Grant = oneshot::Sender<Seats>;

/// The level. Requests hold it, so one that is deleted goes on until they are done.
#[derive(Debug)]
pub(super) struct Level {
    /// `None`: exempt.
    set: Option<Mutex<QueueSet<(Grant, Taking)>>>,
}

/// What the seats are for.
#[derive(Clone, Debug)]
struct Taking {
    cost: Cost,
    meters: Arc<Meters>,
}

/// Seats of a level, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seats {
    /// `None` once they are given back.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    level: Arc<Level>,
    queue: usize,
    /// `None` when exempt.
    since: Option<Instant>,
    taking: Taking,
}

/// A request that waits in a queue, and leaves it when dropped.
struct Waiting<'a> {
    level: &'a Arc<Level>,
    /// `None` once it has left it.
    place: Option<(usize, u64)>,
    meters: &'a Meters,
    /// It has waited long enough.
    late: bool,
}

impl Level {
    pub(super) fn new(settings: &Settings, limit: u32) -> Self {
        let set = |queuing| Mutex::new(QueueSet::new(queuing, limit, Instant::now()));
        Self { set: settings.queuing.map(set) }
    }

    /// Whether the level can be given these settings: it is limited now and then, or exempt now and then.
    pub(super) fn fits(&self, settings: &Settings) -> bool {
        self.set.is_some() == settings.queuing.is_some()
    }

    pub(super) fn is_exempt(&self) -> bool {
        self.set.is_none()
    }

    pub(super) fn configure(self: &Arc<Self>, settings: &Settings) {
        if let (Some(set), Some(queuing)) = (&self.set, settings.queuing) {
            set.lock().configure(queuing, Instant::now());
        }
    }

    /// Changes how many seats there are.
    pub(super) fn set_limit(self: &Arc<Self>, limit: u32) {
        let Some(set) = &self.set else { return };
        let mut set = set.lock();
        set.set_limit(limit, Instant::now());
        self.dispatch(&mut set);
    }

    /// Seats there are, and queues that are in use; nothing when exempt.
    pub(super) fn state(&self) -> (u32, usize) {
        self.set.as_ref().map_or((0, 0), |set| set.lock().state())
    }

    /// The demand since this was last asked.
    pub(super) fn period(&self) -> Option<Period> {
        Some(self.set.as_ref()?.lock().demand.period(Instant::now()))
    }

    /// What an exempt level gives: a seat that is only counted.
    pub(super) fn pass(self: &Arc<Self>, meters: &Arc<Meters>) -> Seats {
        meters.begin(1);
        Seats {
            held: Some(Held {
                level: self.clone(),
                queue: 0,
                since: None,
                taking: Taking { cost: Cost::ONE, meters: meters.clone() },
            }),
        }
    }

    /// Seats for a request of a flow; waits for them `longest`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        flow: u64,
        cost: Cost,
        meters: &Arc<Meters>,
        now: Instant,
        longest: Duration,
    ) -> Result<Seats, Reason> {
        let taking = || Taking { cost, meters: meters.clone() };
        let Some(set) = &self.set else { return Ok(self.pass(meters)) };
        let mut receiver = None;
        let answer = {
            let mut set = set.lock();
            let grant = || {
                let (sender, waits) = oneshot::channel();
                receiver = Some(waits);
                (sender, taking())
            };
            let queues = set.has_queues();
            (set.arrive(flow, cost.seats, now, grant), queues)
        };
        let place = match answer {
            (Answer::Go(queue), _) => {
                meters.begin(cost.seats);
                return Ok(self.seats(queue, now, taking()));
            }
            (Answer::Full, queues) => return Err(if queues { Reason::QueueFull } else { Reason::ConcurrencyLimit }),
            (Answer::Wait(queue, number), _) => (queue, number),
        };
        let mut waiting = Waiting::new(self, place, meters);
        let Some(receiver) = receiver else { return Err(Reason::Cancelled) };
        match tokio::time::timeout(longest, receiver).await {
            Ok(Ok(seats)) => {
                waiting.granted();
                Ok(seats)
            }
            Ok(Err(_)) => {
                waiting.granted();
                Err(Reason::Cancelled)
            }
            Err(_) => {
                waiting.late = true;
                Err(Reason::TimeOut)
            }
        }
    }

    fn seats(self: &Arc<Self>, queue: usize, since: Instant, taking: Taking) -> Seats {
        Seats { held: Some(Held { level: self.clone(), queue, since: Some(since), taking }) }
    }

    /// Gives free seats to whoever is next.
    fn dispatch(self: &Arc<Self>, set: &mut QueueSet<(Grant, Taking)>) {
        let now = Instant::now();
        while let Some(granted) = set.next(now) {
            let (grant, taking) = granted.grant;
            taking.meters.begin(granted.seats);
            if let Err(mut unwanted) = grant.send(self.seats(granted.queue, now, taking)) {
                // Who waited has gone, and the lock is held: what the drop would do is done here.
                if let Some(held) = unwanted.held.take() {
                    held.taking.meters.end(granted.seats);
                }
                set.finish(granted.queue, granted.seats, Duration::ZERO, now);
            }
        }
    }

    fn give_back(self: &Arc<Self>, queue: usize, seats: u32, since: Instant) {
        let Some(set) = &self.set else { return };
        let now = Instant::now();
        let mut set = set.lock();
        set.finish(queue, seats, now.saturating_duration_since(since), now);
        self.dispatch(&mut set);
    }
}

impl Seats {
    /// Gives them back before anything was done with them.
    pub(crate) fn give_up(mut self) {
        if let Some(held) = &mut self.held {
            held.taking.cost.after = Duration::ZERO;
        }
    }

    /// How long after `begin` they were given.
    pub(super) fn since(&self, begin: Instant) -> Duration {
        let since = self.held.as_ref().and_then(|held| held.since);
        since.map_or(Duration::ZERO, |since| since.saturating_duration_since(begin))
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let Some(Held { level, queue, since, taking: Taking { cost, meters } }) = self.held.take() else { return };
        meters.end(cost.seats);
        let Some(since) = since else { return };
        if cost.after.is_zero() {
            return level.give_back(queue, cost.seats, since);
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(cost.after).await;
                    level.give_back(queue, cost.seats, since);
                });
            }
            Err(_) => level.give_back(queue, cost.seats, since),
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(level: &'a Arc<Level>, place: (usize, u64), meters: &'a Meters) -> Self {
        meters.waiting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self { level, place: Some(place), meters, late: false }
    }

    fn granted(&mut self) {
        self.place = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.meters.waiting.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        let Some((queue, number)) = self.place else { return };
        if !self.late {
            self.meters.reject(Reason::Cancelled);
        }
        if let Some(set) = &self.level.set {
            // A grant that came too late is dropped with its receiver, which gives the seats back.
            let mut set = set.lock();
            if set.abandon(queue, number, Instant::now()) {
                // Who was behind it may need fewer seats.
                self.level.dispatch(&mut set);
            }
        }
    }
}
