//! Pods that wait for a node: **active** ones in the order of priority and age, ones in **back-off** after a failed try,
//! and **unschedulable** ones that wait for an event which one of the plugins that rejected them says can help.
//!
//! Time comes from outside, so the queue is a plain value.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::framework::{Event, Profile};
use crate::pod::PodInfo;

/// First back-off; doubles with each try.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Longest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A pod is tried again after this long even if no event helps, in case a hint is wrong.
pub const MAX_IN_UNSCHEDULABLE: Duration = Duration::from_secs(300);

/// Waiting pods.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BinaryHeap<Active>,
    /// Back-off and unschedulable pods by the time at which they become active by themselves.
    timers: BTreeSet<(Instant, String)>,
}

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub pod: PodInfo,
    /// Scheduling tries so far.
    pub attempts: u32,
    since: Instant,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Active,
    BackOff {
        until: Instant,
    },
    Unschedulable {
        plugins: Vec<&'static str>,
        backoff_until: Instant,
        until: Instant,
    },
    /// Not to be tried before the pod itself changes.
    Gated,
}

/// An entry of the heap; entries of pods that left the active state are skipped when they come up.
#[derive(Debug, PartialEq, Eq)]
struct Active {
    priority: i32,
    since: Instant,
    uid: String,
}

impl Ord for Active {
    /// Upstream's QueueSort plugin PrioritySort: higher priority first, then the older one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.cmp(&other.priority).then(other.since.cmp(&self.since)).then(other.uid.cmp(&self.uid))
    }
}

impl PartialOrd for Active {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Queue {
    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// A pod came or changed. One that waits goes on waiting, unless what it asks for changed.
    pub fn set(&mut self, pod: PodInfo, profile: &Profile, now: Instant) {
        let known = self.pods.get_mut(&pod.uid);
        if let Some(waiting) = known
            && waiting.pod.same_demand(&pod)
        {
            waiting.pod = pod;
            return;
        }
        let open = |pod: &PodInfo| profile.plugins.iter().all(|w| w.plugin.pre_enqueue(pod));
        let (attempts, since) = self.take(&pod.uid).map_or((0, now), |before| (before.attempts, before.since));
        let state = if open(&pod) { State::Active } else { State::Gated };
        self.put(Waiting { pod, attempts, since, state });
    }

    /// The pod waits no longer: it is gone, or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// The pods that wait.
    pub fn uids(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.expire(now);
        while let Some(entry) = self.active.pop() {
            let valid = self.pods.get(&entry.uid).is_some_and(|w| {
                matches!(w.state, State::Active) && w.since == entry.since && w.pod.priority == entry.priority
            });
            if valid && let Some(mut waiting) = self.take(&entry.uid) {
                waiting.attempts += 1;
                return Some(waiting);
            }
        }
        None
    }

    /// Puts a pod back that no node can take: until an event that one of `plugins` waits for.
    pub fn unschedulable(&mut self, waiting: Waiting, plugins: Vec<&'static str>, now: Instant) {
        let backoff_until = now + backoff(waiting.attempts);
        let state = State::Unschedulable { plugins, backoff_until, until: now + MAX_IN_UNSCHEDULABLE };
        self.put(Waiting { state, ..waiting });
    }

    /// Puts a pod back that failed for another reason (its binding was refused): it is tried again after its back-off.
    pub fn failed(&mut self, waiting: Waiting, now: Instant) {
        let state = State::BackOff { until: now + backoff(waiting.attempts) };
        self.put(Waiting { state, ..waiting });
    }

    /// Wakes the pods that `event` may help.
    pub fn wake(
        &mut self,
        event: Event,
        profile_of: impl Fn(&PodInfo) -> Option<usize>,
        profiles: &[Profile],
        now: Instant,
    ) {
        let helped: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, waiting)| {
                let State::Unschedulable { plugins, .. } = &waiting.state else { return false };
                let profile = profile_of(&waiting.pod).and_then(|i| profiles.get(i));
                profile.is_some_and(|profile| {
                    let rejecting = profile.plugins.iter().filter(|w| plugins.contains(&w.plugin.name()));
                    rejecting.into_iter().any(|w| w.plugin.wakes(event, &waiting.pod))
                })
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in helped {
            let Some(waiting) = self.take(&uid) else { continue };
            let state = match waiting.state {
                State::Unschedulable { backoff_until, .. } if backoff_until > now => {
                    State::BackOff { until: backoff_until }
                }
                _ => State::Active,
            };
            self.put(Waiting { state, ..waiting });
        }
    }

    /// When the next pod becomes active by itself.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            if let Some(waiting) = self.take(&uid) {
                self.put(Waiting { state: State::Active, ..waiting });
            }
        }
    }

    fn put(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid.clone();
        match &waiting.state {
            State::Active => {
                self.active.push(Active { priority: waiting.pod.priority, since: waiting.since, uid: uid.clone() });
            }
            State::BackOff { until } | State::Unschedulable { until, .. } => {
                self.timers.insert((*until, uid.clone()));
            }
            State::Gated => {}
        }
        self.pods.insert(uid, waiting);
    }

    fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(uid)?;
        if let State::BackOff { until } | State::Unschedulable { until, .. } = &waiting.state {
            self.timers.remove(&(*until, uid.to_owned()));
        }
        Some(waiting)
    }
}

fn backoff(attempts: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::{ScoringStrategy, default_profile};
    use crate::testing::{pod, pod_with};
    use serde_json::json;

    fn profile() -> Profile {
        default_profile("default-scheduler", ScoringStrategy::default())
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|w| w.pod.uid)
    }

    #[test]
    fn priority_then_age() {
        let (mut queue, profile, start) = (Queue::default(), profile(), Instant::now());
        for (i, (name, priority)) in [("old", 0), ("new", 0), ("high", 5)].into_iter().enumerate() {
            let at = start + Duration::from_secs(i as u64);
            queue.set(pod_with(name, json!({"priority": priority})), &profile, at);
        }
        for expected in [Some("high"), Some("old"), Some("new"), None] {
            assert_eq!(popped(&mut queue, start).as_deref(), expected);
        }
    }

    #[test]
    fn back_off_grows_to_its_limit() {
        let seconds: Vec<u64> = (1..7).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn only_events_that_can_help_wake_a_pod() {
        let (mut queue, profiles, mut now) = (Queue::default(), [profile()], Instant::now());
        let wake = |queue: &mut Queue, event, now| queue.wake(event, |_| Some(0), &profiles, now);
        queue.set(pod("p", json!({"cpu": "1"})), &profiles[0], now);
        let waiting = queue.pop(now).unwrap();
        queue.unschedulable(waiting, vec!["NodeResourcesFit"], now);

        wake(&mut queue, Event::NodeChanged { allocatable: false, labels: true, taints: true }, now);
        now += Duration::from_secs(20);
        assert_eq!(popped(&mut queue, now), None, "labels bring no CPU");
        wake(&mut queue, Event::PodDeleted, now);
        let waiting = queue.pop(now).unwrap();
        assert_eq!(waiting.attempts, 2);

        queue.unschedulable(waiting, vec!["NodeResourcesFit"], now);
        wake(&mut queue, Event::NodeAdded, now);
        assert_eq!(popped(&mut queue, now), None, "woken, but in back-off");
        assert_eq!(queue.next_timer(), Some(now + Duration::from_secs(2)));
        assert_eq!(popped(&mut queue, now + Duration::from_secs(2)).as_deref(), Some("p"));
    }

    #[test]
    fn a_pod_is_tried_again_in_the_end_and_when_it_changes() {
        let (mut queue, profile, now) = (Queue::default(), profile(), Instant::now());
        queue.set(pod("p", json!({"cpu": "1"})), &profile, now);
        let waiting = queue.pop(now).unwrap();
        queue.unschedulable(waiting.clone(), vec!["NodeResourcesFit"], now);
        assert_eq!(popped(&mut queue, now + MAX_IN_UNSCHEDULABLE).as_deref(), Some("p"));

        queue.unschedulable(waiting, vec!["NodeResourcesFit"], now);
        queue.set(pod("p", json!({"cpu": "1"})), &profile, now);
        assert_eq!(popped(&mut queue, now), None, "the same pod again");
        queue.set(pod("p", json!({"cpu": "500m"})), &profile, now);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
        assert!(queue.is_empty());
    }

    #[test]
    fn gates_keep_a_pod_out() {
        let (mut queue, profile, now) = (Queue::default(), profile(), Instant::now());
        queue.set(pod_with("p", json!({"schedulingGates": [{"name": "g"}]})), &profile, now);
        assert_eq!(popped(&mut queue, now + MAX_IN_UNSCHEDULABLE * 2), None);
        queue.set(pod_with("p", json!({})), &profile, now);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
    }

    #[test]
    fn a_removed_pod_does_not_come_up() {
        let (mut queue, profile, now) = (Queue::default(), profile(), Instant::now());
        queue.set(pod("p", json!({})), &profile, now);
        queue.remove("p");
        assert_eq!(popped(&mut queue, now), None);
        assert_eq!(queue.next_timer(), None);
    }
}
