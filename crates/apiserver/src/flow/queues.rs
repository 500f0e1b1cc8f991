//! Fair queues of one priority level: a pure state machine. A request takes seats while it executes; when too few are free
//! it waits in one of the queues that its flow is dealt. Seats go to the queue whose next request would be done first if
//! all queues were served at once, bit by bit; what was guessed of a request's duration is put right when it ends.
//!
//! Upstream guesses 3 ms. A server that is flooded takes longer, and what has not ended would seem to have cost next to nothing:
//! who comes new would wait until the flood has caught up with that. So the guess is what requests took lately.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::demand::Demand;

/// What a request is taken to last at least, until it has ended.
const GUESS_SECONDS: f64 = 0.003;
/// What one that lasts longer is taken for, among those that are guessed by.
const LONG_SECONDS: f64 = 1.0;
/// The part of a guess that the last one to end makes up.
const LATEST: f64 = 1.0 / 32.0;

/// How requests beyond the limit are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    /// 0: they are turned away.
    pub(super) queues: usize,
    /// Queues that a flow is dealt.
    pub(super) hand_size: usize,
    /// Requests of one queue.
    pub(super) length: usize,
}

/// What a request is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on; the queue's index is for [`QueueSet::finish`].
    Go(usize),
    /// In the queue of this index, under this number.
    Wait(usize, u64),
    Full,
}

/// A request that may go on now.
#[derive(Debug)]
pub(super) struct Granted<G> {
    pub(super) queue: usize,
    pub(super) seats: u32,
    pub(super) grant: G,
}

/// The queues, with what executes.
#[derive(Debug)]
pub(super) struct QueueSet<G> {
    queuing: Queuing,
    /// Seats.
    limit: u32,
    queues: Vec<Queue<G>>,
    executing_seats: u32,
    waiting: usize,
    waiting_seats: u32,
    /// Queues with requests that wait or execute.
    active: usize,
    /// Seat-seconds that each active queue was due since the beginning.
    virtual_time: f64,
    updated: Instant,
    /// How many seconds a request will last.
    guess: f64,
    /// Where the last request was taken from.
    last: usize,
    next_number: u64,
    pub(super) demand: Demand,
}

#[derive(Debug)]
struct Queue<G> {
    waiting: VecDeque<Waiting<G>>,
    waiting_seats: u32,
    executing: u32,
    executing_seats: u32,
    /// Seat-seconds that were guessed of those.
    guessed: f64,
    /// When, in virtual time, its next request begins.
    start: f64,
}

#[derive(Debug)]
struct Waiting<G> {
    number: u64,
    seats: u32,
    grant: G,
}

impl<G> Default for Queue<G> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), waiting_seats: 0, executing: 0, executing_seats: 0, guessed: 0.0, start: 0.0 }
    }
}

impl<G> Queue<G> {
    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }
}

impl<G> QueueSet<G> {
    pub(super) fn new(queuing: Queuing, limit: u32, now: Instant) -> Self {
        let mut set = Self {
            queuing,
            limit,
            queues: Vec::new(),
            executing_seats: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            virtual_time: 0.0,
            updated: now,
            guess: GUESS_SECONDS,
            last: 0,
            next_number: 0,
            demand: Demand::new(now),
        };
        set.configure(queuing, now);
        set
    }

    /// Changes the queues. Those that are too many are kept until they are empty, but get no new requests.
    pub(super) fn configure(&mut self, queuing: Queuing, now: Instant) {
        self.advance(now);
        self.queuing = queuing;
        let wanted = queuing.queues.max(1);
        while self.queues.len() > wanted && self.queues.last().is_some_and(|queue| !queue.is_active()) {
            self.queues.pop();
        }
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
    }

    /// Changes the seats there are.
    pub(super) fn set_limit(&mut self, limit: u32, now: Instant) {
        self.advance(now);
        self.limit = limit;
    }

    /// Whether requests beyond the limit may wait.
    pub(super) fn has_queues(&self) -> bool {
        self.queuing.queues > 0
    }

    /// Seats there are, and queues that are in use.
    pub(super) fn state(&self) -> (u32, usize) {
        (self.limit, self.active)
    }

    /// A request of a flow comes in. `grant` is kept while it waits.
    pub(super) fn arrive(&mut self, flow: u64, seats: u32, now: Instant, grant: impl FnOnce() -> G) -> Answer {
        self.advance(now);
        let queue = self.pick(flow);
        let free = self.waiting == 0 && self.fits(seats);
        let Some(chosen) = self.queues.get_mut(queue) else { return Answer::Full };
        if !free && (self.queuing.queues == 0 || chosen.waiting.len() >= self.queuing.length) {
            return Answer::Full;
        }
        if !chosen.is_active() {
            chosen.start = self.virtual_time;
            self.active += 1;
        }
        let answer = if free {
            self.begin(queue, seats);
            Answer::Go(queue)
        } else {
            let number = self.next_number;
            self.next_number += 1;
            chosen.waiting.push_back(Waiting { number, seats, grant: grant() });
            chosen.waiting_seats += seats;
            self.waiting += 1;
            self.waiting_seats += seats;
            Answer::Wait(queue, number)
        };
        self.note_demand(now);
        answer
    }

    /// A request has ended.
    pub(super) fn finish(&mut self, queue: usize, seats: u32, took: Duration, now: Instant) {
        self.advance(now);
        self.executing_seats = self.executing_seats.saturating_sub(seats);
        let took = took.as_secs_f64();
        self.guess = (self.guess + LATEST * (took.min(LONG_SECONDS) - self.guess)).max(GUESS_SECONDS);
        if let Some(queue) = self.queues.get_mut(queue) {
            let guessed = queue.guessed * f64::from(seats) / f64::from(queue.executing_seats.max(seats));
            queue.guessed -= guessed;
            queue.executing = queue.executing.saturating_sub(1);
            queue.executing_seats = queue.executing_seats.saturating_sub(seats);
            queue.start += f64::from(seats) * took - guessed;
            if !queue.is_active() {
                self.active = self.active.saturating_sub(1);
            }
        }
        self.note_demand(now);
    }

    /// A request that waits has gone away.
    pub(super) fn abandon(&mut self, queue: usize, number: u64, now: Instant) -> bool {
        self.advance(now);
        let Some(queue) = self.queues.get_mut(queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|waiting| waiting.number == number) else { return false };
        let Some(gone) = queue.waiting.remove(at) else { return false };
        queue.waiting_seats = queue.waiting_seats.saturating_sub(gone.seats);
        self.waiting -= 1;
        self.waiting_seats = self.waiting_seats.saturating_sub(gone.seats);
        if !queue.is_active() {
            self.active = self.active.saturating_sub(1);
        }
        self.note_demand(now);
        true
    }

    /// Takes out the request that is next, if its seats are free.
    pub(super) fn next(&mut self, now: Instant) -> Option<Granted<G>> {
        if self.waiting == 0 {
            return None;
        }
        self.advance(now);
        let count = self.queues.len();
        let mut best: Option<(usize, f64, u32)> = None;
        for step in 1..=count {
            let at = (self.last + step) % count;
            let Some(queue) = self.queues.get(at) else { continue };
            let Some(head) = queue.waiting.front() else { continue };
            let done = queue.start + f64::from(head.seats) * self.guess;
            if best.is_none_or(|(_, earliest, _)| done < earliest) {
                best = Some((at, done, head.seats));
            }
        }
        let (at, _, seats) = best?;
        // Nobody overtakes a wide request for being narrow: it would never begin.
        if !self.fits(seats) {
            return None;
        }
        let queue = self.queues.get_mut(at)?;
        let Waiting { grant, .. } = queue.waiting.pop_front()?;
        queue.waiting_seats = queue.waiting_seats.saturating_sub(seats);
        self.waiting -= 1;
        self.waiting_seats = self.waiting_seats.saturating_sub(seats);
        self.last = at;
        self.begin(at, seats);
        Some(Granted { queue: at, seats, grant })
    }

    fn begin(&mut self, at: usize, seats: u32) {
        self.executing_seats += seats;
        if let Some(queue) = self.queues.get_mut(at) {
            queue.executing += 1;
            queue.executing_seats += seats;
            let guessed = f64::from(seats) * self.guess;
            queue.guessed += guessed;
            queue.start += guessed;
        }
    }

    /// Whether so many seats are free. A request that is wider than the limit gets all seats at once.
    fn fits(&self, seats: u32) -> bool {
        (self.executing_seats == 0 && self.limit > 0) || self.executing_seats + seats <= self.limit
    }

    /// The queue of a flow's hand in which there is the least to do: shuffle sharding.
    fn pick(&self, flow: u64) -> usize {
        let deck = self.queuing.queues.max(1).min(self.queues.len());
        let mut best = (0, u32::MAX);
        deal(flow, deck, self.queuing.hand_size.max(1), |at| {
            let load = self.queues.get(at).map_or(u32::MAX, |queue| queue.waiting_seats + queue.executing_seats);
            if load < best.1 {
                best = (at, load);
            }
        });
        best.0
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        if self.active > 0 {
            let seats = (self.executing_seats + self.waiting_seats).min(self.limit);
            self.virtual_time += passed * f64::from(seats) / self.active as f64;
        }
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(self.executing_seats + self.waiting_seats, now);
    }
}

/// Deals `hand` different cards of a deck, all as the hash says.
fn deal(mut hash: u64, deck: usize, hand: usize, mut card: impl FnMut(usize)) {
    let mut dealt: smallvec::SmallVec<[usize; 16]> = smallvec::SmallVec::new();
    for left in (0..deck).rev().take(hand.min(deck)) {
        let size = left as u64 + 1;
        // The place among the cards that are left …
        let mut at = usize::try_from(hash % size).unwrap_or_default();
        hash /= size;
        // … and in the whole deck. `dealt` is sorted.
        let mut place = 0;
        while let Some(taken) = dealt.get(place)
            && *taken <= at
        {
            at += 1;
            place += 1;
        }
        dealt.insert(place, at);
        card(at);
    }
}

#[cfg(test)]
mod tests;
