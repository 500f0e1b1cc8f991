//! What NUMA nodes would suit a container, by each resource, and what suits all of them. Pure; upstream's policies.

use std::collections::BTreeSet;
use std::fmt;

use super::topology::Topology;

/// A set of NUMA nodes, numbered 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mask(u64);

impl Mask {
    pub(crate) fn has(self, node: usize) -> bool {
        node < 64 && self.0 & 1 << node != 0
    }

    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn and(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }

    pub(crate) fn contains(self, other: Mask) -> bool {
        self.0 & other.0 == other.0
    }

    /// In ascending order.
    pub(crate) fn nodes(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |node| self.has(*node))
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<I: IntoIterator<Item = usize>>(nodes: I) -> Mask {
        Mask(nodes.into_iter().filter(|node| *node < 64).fold(0, |bits, node| bits | 1 << node))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:b}", self.0)
    }
}

/// All sets of the `nodes` that are not empty, the small ones first.
pub(crate) fn masks(nodes: &BTreeSet<usize>) -> Vec<Mask> {
    let nodes: Vec<usize> = nodes.iter().copied().take(16).collect();
    let pick =
        |bits: u32| nodes.iter().enumerate().filter(|(i, _)| bits & 1 << i != 0).map(|(_, node)| *node).collect();
    let mut all: Vec<Mask> = (1..1u32 << nodes.len()).map(pick).collect();
    all.sort_by_key(|mask: &Mask| (mask.count(), *mask));
    all
}

/// NUMA nodes that would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hint {
    /// `None`: any.
    pub affinity: Option<Mask>,
    pub preferred: bool,
}

/// What a provider says of one resource: `None`, it does not care; no hints, nothing will do.
pub(crate) type Hints = Option<Vec<Hint>>;

/// Marks those of `found` as preferred that need no more nodes than `least`.
pub(crate) fn with_preference(found: Vec<Mask>, least: u32) -> Vec<Hint> {
    found.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == least }).collect()
}

/// `topologyManagerPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

impl Policy {
    pub(crate) fn named(name: &str) -> Option<Policy> {
        Some(match name {
            "none" => Policy::None,
            "best-effort" => Policy::BestEffort,
            "restricted" => Policy::Restricted,
            "single-numa-node" => Policy::SingleNumaNode,
            _ => return None,
        })
    }
}

/// How hints are merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merger {
    pub policy: Policy,
    pub nodes: Mask,
    /// Distances between nodes, when those that are close are preferred (`prefer-closest-numa-nodes`).
    pub distances: Option<Topology>,
}

impl Merger {
    /// The best hint for all, and whether the policy lets the pod run with it.
    pub(crate) fn merge(&self, all: &[Hints]) -> (Hint, bool) {
        let any = Hint { affinity: None, preferred: true };
        let nothing = Hint { affinity: None, preferred: false };
        let single = |hint: &Hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1);
        let lists: Vec<Vec<Hint>> = all
            .iter()
            .map(|hints| match hints {
                None => vec![any],
                Some(hints) if hints.is_empty() => vec![nothing],
                Some(hints) => hints.clone(),
            })
            .map(|hints| match self.policy {
                Policy::SingleNumaNode => hints.into_iter().filter(single).collect(),
                _ => hints,
            })
            .collect();
        // Where nothing is preferred, hints as wide as the widest of the resources' narrowest are best.
        let narrowest = |hints: &Vec<Hint>| hints.iter().filter_map(|hint| hint.affinity).map(Mask::count).min();
        let target = lists.iter().filter_map(narrowest).max().unwrap_or(0);
        // One resource after the other: the same as all permutations, but that equal ones are looked at once.
        let mut merged: BTreeSet<Hint> = [Hint { affinity: Some(self.nodes), preferred: true }].into();
        for list in &lists {
            merged = merged
                .iter()
                .flat_map(|known| list.iter().map(move |hint| (known, hint)))
                .map(|(known, hint)| Hint {
                    affinity: known.affinity.map(|mask| mask.and(hint.affinity.unwrap_or(self.nodes))),
                    preferred: known.preferred && hint.preferred,
                })
                .filter(|hint| hint.affinity.is_some_and(|mask| mask.count() > 0))
                .collect();
        }
        let rank = |hint: &Hint| {
            let mask = hint.affinity.unwrap_or_default();
            let count = mask.count();
            let width = match (hint.preferred, count <= target) {
                (true, _) => (0, count),
                (false, true) => (1, target - count),
                (false, false) => (2, count),
            };
            (width, self.distance(mask), mask)
        };
        let best = merged.into_iter().min_by_key(rank);
        let mut best = best.unwrap_or(Hint { affinity: Some(self.nodes), preferred: false });
        if self.policy == Policy::SingleNumaNode && best.affinity == Some(self.nodes) {
            best.affinity = None;
        }
        let admitted = match self.policy {
            Policy::None | Policy::BestEffort => true,
            Policy::Restricted | Policy::SingleNumaNode => best.preferred,
        };
        (best, admitted)
    }

    /// Mean distance within the nodes, in thousandths; 0 when nobody cares.
    fn distance(&self, mask: Mask) -> u64 {
        let Some(topology) = &self.distances else { return 0 };
        let index = |node: usize| topology.nodes.keys().position(|known| *known == node).unwrap_or(0);
        let pairs = mask.nodes().flat_map(|from| mask.nodes().map(move |to| (from, to)));
        let of = |(from, to): (usize, usize)| topology.nodes.get(&from).and_then(|node| node.distances.get(index(to)));
        let (sum, count) =
            pairs.filter_map(of).fold((0u64, 0u64), |(sum, count), one| (sum.saturating_add(*one), count + 1));
        sum.saturating_mul(1000).checked_div(count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::samples::machine;
    use super::*;

    fn hint(nodes: &[usize], preferred: bool) -> Hint {
        Hint { affinity: Some(nodes.iter().copied().collect()), preferred }
    }

    fn merger(policy: Policy, nodes: usize) -> Merger {
        Merger { policy, nodes: (0..nodes).collect(), distances: None }
    }

    #[test]
    fn merging() {
        use Policy::{BestEffort, Restricted, SingleNumaNode};
        let narrow = vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)];
        let second = vec![hint(&[1], true), hint(&[0, 1], false)];
        let wide = vec![hint(&[0, 1], true)];
        for (hints, best, admitted) in [
            // Nobody cares.
            (vec![None, None], hint(&[0, 1], true), [true, true, true]),
            (vec![Some(narrow.clone()), None], hint(&[0], true), [true, true, true]),
            (vec![Some(narrow.clone()), Some(second.clone())], hint(&[1], true), [true, true, true]),
            // Two nodes are the best there is for one of them: all but the strictest policy take it.
            (vec![Some(wide.clone())], hint(&[0, 1], true), [true, true, false]),
            (
                vec![Some(vec![hint(&[0], true)]), Some(vec![hint(&[1], true)])],
                hint(&[0, 1], false),
                [true, false, false],
            ),
            (vec![Some(vec![]), Some(narrow.clone())], hint(&[0], false), [true, false, false]),
            (vec![Some(vec![hint(&[0, 1], false)])], hint(&[0, 1], false), [true, false, false]),
        ] {
            for (policy, admitted) in [BestEffort, Restricted, SingleNumaNode].into_iter().zip(admitted) {
                let (found, ok) = merger(policy, 2).merge(&hints);
                assert_eq!(ok, admitted, "{policy:?} {hints:?} {found:?}");
                if policy != SingleNumaNode {
                    assert_eq!(found, best, "{policy:?} {hints:?}");
                }
            }
        }
        let (found, ok) = merger(SingleNumaNode, 2).merge(&[None]);
        assert_eq!((found, ok), (Hint { affinity: None, preferred: true }, true), "all nodes are none in particular");
    }

    #[test]
    fn as_wide_as_the_widest_needs() {
        // CPUs need two nodes at least, devices one: of what is not preferred, two nodes go before one.
        let cpus = Some(vec![hint(&[0, 1], false), hint(&[2, 3], false), hint(&[0, 1, 2, 3], false)]);
        let devices = Some(vec![hint(&[3], false), hint(&[2, 3], false)]);
        let (best, _) = merger(Policy::BestEffort, 4).merge(&[cpus, devices]);
        assert_eq!(best, hint(&[2, 3], false));
    }

    #[test]
    fn close_nodes_first() {
        let far_first = Some(vec![hint(&[0, 2], true), hint(&[2, 3], true)]);
        let mut merger = merger(Policy::BestEffort, 4);
        assert_eq!(merger.merge(std::slice::from_ref(&far_first)).0, hint(&[0, 2], true));
        // Nodes 2 and 3 share a socket.
        merger.distances = Some(machine(2, 2, 1, 1));
        assert_eq!(merger.merge(&[far_first]).0, hint(&[2, 3], true));
    }

    #[test]
    fn sets_of_nodes() {
        let shown: Vec<String> = masks(&[0, 1, 3].into()).iter().map(Mask::to_string).collect();
        assert_eq!(shown, ["1", "10", "1000", "11", "1001", "1010", "1011"]);
    }
}
