//! What a plugin is. The names are upstream's extension points; a plugin overrides those that it takes part in. What
//! upstream keeps between PreFilter and Filter in a CycleState is here in [`PodInfo`], read once per pod.

use crate::cache::Cache;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Highest score of a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node (or all of them) cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// In upstream's words, such as `Insufficient cpu`; one for each cause.
    pub reasons: Vec<String>,
}

impl Rejection {
    /// One reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()] }
    }
}

/// What PreFilter says of the nodes that need be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreFilter {
    /// All of them.
    All,
    /// This plugin's Filter lets all pass for this pod.
    Skip,
    /// Only these can do.
    Only(Vec<String>),
}

/// Something happened that may let a waiting pod be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    NodeAdded,
    NodeChanged {
        allocatable: bool,
        labels: bool,
        taints: bool,
    },
    /// A pod left its node.
    PodDeleted,
    /// A pod on a node asks for other amounts than before.
    PodScaledDown,
}

/// A scheduling plugin. None does IO, reads a clock or draws random numbers.
pub trait Plugin: Send + Sync + std::fmt::Debug {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// PreEnqueue: whether the pod may enter the active queue at all.
    fn pre_enqueue(&self, _pod: &PodInfo) -> bool {
        true
    }

    /// QueueingHint: whether `event` may make a pod schedulable that this plugin rejected.
    fn wakes(&self, _event: Event, _pod: &PodInfo) -> bool {
        true
    }

    /// PreFilter: which nodes to look at.
    fn pre_filter(&self, _pod: &PodInfo, _cache: &Cache) -> Result<PreFilter, Rejection> {
        Ok(PreFilter::All)
    }

    /// Filter: whether the node can take the pod.
    fn filter(&self, _pod: &PodInfo, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// PreScore: whether Score has anything to say for this pod.
    fn scores(&self, _pod: &PodInfo) -> bool {
        false
    }

    /// Score: the higher the better, up to [`MAX_SCORE`] unless [`normalize`](Self::normalize) puts it right.
    fn score(&self, _pod: &PodInfo, _node: &NodeInfo, _cache: &Cache) -> i64 {
        0
    }

    /// NormalizeScore: brings raw scores into 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Stretches scores so that the highest becomes [`MAX_SCORE`]; with `reverse`, low raw scores become high ones.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { MAX_SCORE * *score / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// A plugin and how much its score counts.
#[derive(Debug)]
pub struct Weighted {
    pub plugin: Box<dyn Plugin>,
    pub weight: i64,
}

/// The plugins of one `schedulerName`, in order.
#[derive(Debug)]
pub struct Profile {
    pub scheduler_name: String,
    pub plugins: Vec<Weighted>,
}
