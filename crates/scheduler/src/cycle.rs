//! The scheduling cycle: from the cache and a pod to a node, or to why there is none. Pure.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::framework::{PreFilter, Profile};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Below this many feasible nodes the search goes on (upstream's `minFeasibleNodesToFind`).
const MIN_FEASIBLE: usize = 100;

/// Why no node can take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// All nodes there are.
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<String, usize>,
    /// PreFilter's word, when it rejected the pod for all nodes.
    pub pre_filter: Option<String>,
    /// The plugins that rejected: their events wake the pod.
    pub plugins: Vec<&'static str>,
}

impl std::fmt::Display for FitError {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(message) = &self.pre_filter {
            return write!(f, " {message}.");
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        write!(f, " {}.", reasons.join(", "))
    }
}

/// Where the search for nodes begins; moved on by every cycle, so that all nodes get their turn when not all are looked at.
#[derive(Debug, Default)]
pub struct Cursor(usize);

/// Finds the best node for `pod`. Among equals, `pick` chooses: given a count above zero, it returns an index below it.
pub fn schedule<'a>(
    profile: &Profile,
    cache: &'a Cache,
    pod: &PodInfo,
    cursor: &mut Cursor,
    pick: impl FnOnce(usize) -> usize,
) -> Result<&'a NodeInfo, FitError> {
    let mut error = FitError { nodes: cache.node_count(), ..FitError::default() };
    if error.nodes == 0 {
        return Err(error);
    }
    let feasible = filter(profile, cache, pod, cursor, &mut error);
    match feasible.as_slice() {
        [] => Err(error),
        [only] => Ok(only),
        several => {
            let totals = score(profile, cache, pod, several);
            let best = totals.iter().copied().max().unwrap_or(0);
            let equals: Vec<usize> = (0..several.len()).filter(|i| totals[*i] == best).collect();
            Ok(several[equals[pick(equals.len()).min(equals.len() - 1)]])
        }
    }
}

fn filter<'a>(
    profile: &Profile,
    cache: &'a Cache,
    pod: &PodInfo,
    cursor: &mut Cursor,
    error: &mut FitError,
) -> Vec<&'a NodeInfo> {
    let mut filters = Vec::with_capacity(profile.plugins.len());
    let mut only: Option<Vec<String>> = None;
    for weighted in &profile.plugins {
        match weighted.plugin.pre_filter(pod, cache) {
            Ok(PreFilter::Skip) => continue,
            Ok(PreFilter::All) => {}
            Ok(PreFilter::Only(names)) => match &mut only {
                Some(before) => before.retain(|name| names.contains(name)),
                None => only = Some(names),
            },
            Err(rejection) => {
                error.pre_filter = Some(rejection.reasons.join(", "));
                error.plugins.push(weighted.plugin.name());
                return Vec::new();
            }
        }
        filters.push(&weighted.plugin);
    }

    let all = cache.nodes();
    let wanted = nodes_to_find(error.nodes);
    let mut feasible = Vec::with_capacity(wanted.min(all.len()));
    let mut looked_at = 0;
    for offset in 0..all.len() {
        let node = &all[(cursor.0 + offset) % all.len()];
        looked_at = offset + 1;
        if !node.exists {
            continue;
        }
        if only.as_ref().is_some_and(|names| !names.contains(&node.name)) {
            *error.reasons.entry("node(s) didn't satisfy plugin(s) [NodeAffinity]".into()).or_default() += 1;
            push_once(&mut error.plugins, "NodeAffinity");
            continue;
        }
        let rejected = filters.iter().find_map(|plugin| Some((plugin.name(), plugin.filter(pod, node).err()?)));
        match rejected {
            None => feasible.push(node),
            Some((plugin, rejection)) => {
                push_once(&mut error.plugins, plugin);
                for reason in rejection.reasons {
                    *error.reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    cursor.0 = (cursor.0 + looked_at) % all.len();
    feasible
}

fn push_once(list: &mut Vec<&'static str>, name: &'static str) {
    if !list.contains(&name) {
        list.push(name);
    }
}

/// How many feasible nodes are enough: all in small clusters, down to 5 % in large ones (upstream's adaptive
/// `percentageOfNodesToScore`).
fn nodes_to_find(nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percentage = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

fn score(profile: &Profile, cache: &Cache, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    let mut scores = vec![0; nodes.len()];
    for weighted in profile.plugins.iter().filter(|w| w.weight > 0 && w.plugin.scores(pod)) {
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = weighted.plugin.score(pod, node, cache);
        }
        weighted.plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weighted.weight;
        }
    }
    totals
}

#[cfg(test)]
mod tests;
