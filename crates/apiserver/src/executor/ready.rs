//! What is to be polled, and in which order.

use std::collections::{BTreeMap, VecDeque};

use async_task::Runnable;

use super::Flow;
use super::express::Lane;
use super::used::Used;

/// Tasks that are to be polled.
pub(super) struct Ready {
    /// By flow. None is empty.
    tasks: BTreeMap<u64, Line>,
    /// The flows, each once in one of both, in the order in which they have their turns; first those that take little.
    light: VecDeque<u64>,
    heavy: VecDeque<u64>,
    pub(super) used: Used,
    /// How many workers poll, or are about to.
    pub(super) polling: usize,
    pub(super) lane: Lane,
}

/// Tasks of one flow. What has begun comes first: a request that is under way holds a seat and memory, and were all to go
/// on in step, the first would be done when the last is.
#[derive(Default)]
struct Line {
    begun: VecDeque<Runnable<Flow>>,
    rest: VecDeque<Runnable<Flow>>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.rest.is_empty()
    }

    fn len(&self) -> usize {
        self.begun.len() + self.rest.len()
    }
}

impl Ready {
    pub(super) fn new(lane: Lane) -> Self {
        let (tasks, light, heavy) = Default::default();
        Self { tasks, light, heavy, used: Used::new(), polling: 0, lane }
    }

    /// Says whether its flow takes little.
    pub(super) fn push(&mut self, task: Runnable<Flow>) -> bool {
        let (flow, begun) = (task.metadata().key(), task.metadata().has_begun());
        let light = self.used.is_light(flow);
        let line = self.tasks.entry(flow).or_default();
        if line.is_empty() {
            let turns = if light { &mut self.light } else { &mut self.heavy };
            turns.push_back(flow);
        }
        let tasks = if begun { &mut line.begun } else { &mut line.rest };
        tasks.push_back(task);
        light
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether there is one task, and no other.
    pub(super) fn has_one(&self) -> bool {
        self.light.len() + self.heavy.len() == 1 && self.tasks.values().next().is_some_and(|line| line.len() == 1)
    }

    /// Whether one task of the flows that take little is ready, and no other of theirs.
    pub(super) fn has_one_light(&self) -> bool {
        let lines = self.light.front().and_then(|flow| self.tasks.get(flow));
        self.light.len() == 1 && lines.is_some_and(|line| line.len() == 1)
    }

    /// Whether the express thread rests, and may do something.
    pub(super) fn may_express(&self) -> bool {
        matches!(self.lane, Lane::Unused | Lane::Free) && self.used.express_has_left()
    }

    /// A task and its flow.
    pub(super) fn next(&mut self) -> Option<(u64, Runnable<Flow>)> {
        self.next_light().or_else(|| {
            let flow = self.heavy.pop_front()?;
            self.take(flow)
        })
    }

    /// A task of a flow that takes little.
    pub(super) fn next_light(&mut self) -> Option<(u64, Runnable<Flow>)> {
        let flow = self.light.pop_front()?;
        self.take(flow)
    }

    /// The next task of a flow whose turn it is; its turn comes again when it has more.
    fn take(&mut self, flow: u64) -> Option<(u64, Runnable<Flow>)> {
        let line = self.tasks.get_mut(&flow)?;
        let task = line.begun.pop_front().or_else(|| line.rest.pop_front())?;
        if line.is_empty() {
            self.tasks.remove(&flow);
        } else {
            let turns = if self.used.is_light(flow) { &mut self.light } else { &mut self.heavy };
            turns.push_back(flow);
        }
        Some((flow, task))
    }
}
