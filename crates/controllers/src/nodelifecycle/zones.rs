//! How fast nodes may be evicted, by how much of their zone is down: when most nodes go silent at once, the fault is
//! likelier in between than in the nodes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;
use tokio::time::{Duration, Instant};

use super::plan::readiness;
use crate::Config;
use crate::common::objects::label;

/// How a zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Normal,
    /// Most nodes are down.
    Partial,
    /// All are.
    Full,
}

/// A node's region and zone.
pub(super) fn zone(node: &Node) -> String {
    let part = |key| label(&node.metadata, key).unwrap_or_default();
    format!("{}/{}", part("topology.kubernetes.io/region"), part("topology.kubernetes.io/zone"))
}

pub(super) fn state(ready: usize, not_ready: usize, threshold: f64) -> State {
    let fraction = not_ready as f64 / (ready + not_ready).max(1) as f64;
    match (ready, not_ready) {
        (0, 1..) => State::Full,
        (_, 3..) if fraction >= threshold => State::Partial,
        _ => State::Normal,
    }
}

/// All zones at one moment.
pub(super) struct Zones {
    states: HashMap<String, (State, usize)>,
}

impl Zones {
    pub(super) fn of<'a>(nodes: impl Iterator<Item = &'a Node>, threshold: f64) -> Self {
        let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
        for node in nodes {
            let (ready, not_ready) = counts.entry(zone(node)).or_default();
            *if readiness(node) == "True" { ready } else { not_ready } += 1;
        }
        let judge = |(zone, (ready, not_ready))| (zone, (state(ready, not_ready, threshold), ready + not_ready));
        Self { states: counts.into_iter().map(judge).collect() }
    }

    /// Whether no zone has a single ready node.
    pub(super) fn all_down(&self) -> bool {
        !self.states.is_empty() && self.states.values().all(|(state, _)| *state == State::Full)
    }

    /// Evictions per second in a zone.
    pub(super) fn rate(&self, zone: &str, config: &Config) -> f64 {
        match self.states.get(zone) {
            _ if self.all_down() => 0.0,
            Some((State::Partial, size)) if *size > config.large_cluster_size_threshold => {
                config.secondary_node_eviction_rate
            }
            Some((State::Partial, _)) => 0.0,
            _ => config.node_eviction_rate,
        }
    }
}

/// One eviction at a time per zone, at the zone's rate.
#[derive(Default)]
pub(super) struct Limiter {
    next: HashMap<String, Instant>,
}

impl Limiter {
    /// Takes a turn, or says how long to wait for it. With rate 0 there is no turn; the zone's state has to change.
    pub(super) fn take(&mut self, zone: &str, rate: f64, now: Instant) -> Result<(), Option<Duration>> {
        if rate <= 0.0 {
            return Err(None);
        }
        match self.next.get(zone) {
            Some(at) if *at > now => Err(Some(*at - now)),
            _ => {
                self.next.insert(zone.to_owned(), now + Duration::from_secs_f64(1.0 / rate));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_states_are_upstreams() {
        let check = |ready, not_ready, expected| assert_eq!(state(ready, not_ready, 0.55), expected);
        check(3, 0, State::Normal);
        check(0, 1, State::Full);
        check(1, 2, State::Normal);
        check(2, 3, State::Partial);
        check(3, 3, State::Normal);
        check(0, 0, State::Normal);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.take("a", 0.1, now), Ok(()));
        assert_eq!(limiter.take("a", 0.1, now), Err(Some(Duration::from_secs(10))));
        assert_eq!(limiter.take("b", 0.1, now), Ok(()));
        assert_eq!(limiter.take("a", 0.1, now + Duration::from_secs(10)), Ok(()));
        assert_eq!(limiter.take("c", 0.0, now), Err(None));
    }
}
