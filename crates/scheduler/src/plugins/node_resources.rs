//! Whether a node has room, and how well a pod would fill it.

use crate::cache::Cache;
use crate::framework::{Event, MAX_SCORE, Plugin, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// How `NodeResourcesFit` scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// Spread: the emptier node is better.
    #[default]
    LeastAllocated,
    /// Pack: the fuller node is better.
    MostAllocated,
}

/// `NodeResourcesFit`
#[derive(Debug)]
pub struct Fit(pub ScoringStrategy);

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn wakes(&self, event: Event, _: &PodInfo) -> bool {
        !matches!(event, Event::NodeChanged { allocatable: false, .. })
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let asked = &pod.requests.resources;
        let (used, have) = (&node.requested, &node.allocatable);
        let mut reasons = Vec::new();
        if node.pods + 1 > node.allowed_pods {
            reasons.push("Too many pods".to_string());
        }
        let mut check = |name: &str, asked: i64, used: i64, have: i64| {
            if asked > 0 && asked > have - used {
                reasons.push(format!("Insufficient {name}"));
            }
        };
        check("cpu", asked.milli_cpu, used.milli_cpu, have.milli_cpu);
        check("memory", asked.memory_bytes, used.memory_bytes, have.memory_bytes);
        let storage = (asked.ephemeral_storage_bytes, used.ephemeral_storage_bytes, have.ephemeral_storage_bytes);
        check("ephemeral-storage", storage.0, storage.1, storage.2);
        for (name, amount) in &asked.scalar {
            let of = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            check(name, *amount, of(&used.scalar), of(&have.scalar));
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons }) }
    }

    fn scores(&self, _: &PodInfo) -> bool {
        true
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Cache) -> i64 {
        let mut of = [0, 0];
        for (score, (wanted, have)) in of.iter_mut().zip(wanted_and_allocatable(pod, node)) {
            *score = match self.0 {
                _ if have == 0 || wanted > have => 0,
                ScoringStrategy::LeastAllocated => (have - wanted) * MAX_SCORE / have,
                ScoringStrategy::MostAllocated => wanted * MAX_SCORE / have,
            };
        }
        let counted = wanted_and_allocatable(pod, node).iter().filter(|(_, have)| *have > 0).count();
        of.iter().sum::<i64>() / i64::try_from(counted.max(1)).unwrap_or(1)
    }
}

/// CPU and memory: what the node's pods and this one count for, and what the node has.
fn wanted_and_allocatable(pod: &PodInfo, node: &NodeInfo) -> [(i64, i64); 2] {
    [
        (node.non_zero_milli_cpu + pod.requests.non_zero_milli_cpu, node.allocatable.milli_cpu),
        (node.non_zero_memory_bytes + pod.requests.non_zero_memory_bytes, node.allocatable.memory_bytes),
    ]
}

/// `NodeResourcesBalancedAllocation`: better the closer the shares of CPU and memory in use come to each other.
#[derive(Debug)]
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// Pods that ask for nothing unbalance nothing.
    fn scores(&self, pod: &PodInfo) -> bool {
        let asked = &pod.requests.resources;
        asked.milli_cpu > 0 || asked.memory_bytes > 0
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // Shares and scores: 100 steps in all.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Cache) -> i64 {
        let (asked, used) = (&pod.requests.resources, &node.requested);
        let share = |used: i64, have: i64| if have > 0 { (used as f64 / have as f64).min(1.0) } else { 0.0 };
        let cpu = share(used.milli_cpu + asked.milli_cpu, node.allocatable.milli_cpu);
        let memory = share(used.memory_bytes + asked.memory_bytes, node.allocatable.memory_bytes);
        // The standard deviation of two values is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }
}
