//! Which CPUs a container gets: whole sockets, NUMA nodes and cores where it asks for as many, then the threads that leave
//! the least broken cores. Pure; results are upstream's.

use super::cpuset::CpuSet;
use super::topology::{Place, Topology};

/// What of a machine is free.
struct Free<'a> {
    topology: &'a Topology,
    free: CpuSet,
    taken: CpuSet,
    needed: usize,
}

/// A level of the machine above its CPUs.
#[derive(Clone, Copy)]
enum Level {
    Node,
    Socket,
    Cache,
    Core,
}

impl Level {
    fn of(self, place: &Place) -> usize {
        match self {
            Level::Node => place.node,
            Level::Socket => place.socket,
            Level::Cache => place.cache,
            Level::Core => place.core,
        }
    }
}

impl Free<'_> {
    fn take(&mut self, cpus: &CpuSet) {
        self.free = self.free.difference(cpus);
        self.taken = self.taken.union(cpus);
        self.needed -= cpus.len().min(self.needed);
    }

    /// The free CPUs among `cpus`, by the unit of `level` that they are in: those with the fewest free CPUs first.
    fn units(&self, cpus: &CpuSet, level: Level) -> Vec<CpuSet> {
        let mut units = std::collections::BTreeMap::<usize, Vec<usize>>::new();
        for cpu in cpus.iter() {
            if let Some(place) = self.topology.cpus.get(&cpu) {
                units.entry(level.of(place)).or_default().push(cpu);
            }
        }
        // Stable: by number where they are equal.
        let mut units: Vec<CpuSet> = units.into_values().map(CpuSet::from_iter).collect();
        units.sort_by_key(CpuSet::len);
        units
    }

    /// Free CPUs, by units of the last level, each above it in the order of its own level.
    fn nested(&self, levels: &[Level]) -> Vec<CpuSet> {
        levels.iter().fold(vec![self.free.clone()], |groups, level| {
            groups.iter().flat_map(|group| self.units(group, *level)).collect()
        })
    }

    /// Takes units that are free as a whole, and are not more than is needed.
    fn take_whole(&mut self, levels: &[Level]) {
        let Some(level) = levels.last().copied() else { return };
        for unit in self.nested(levels) {
            let Some(number) = unit.iter().next().and_then(|cpu| self.topology.cpus.get(&cpu)).map(|at| level.of(at))
            else {
                continue;
            };
            let whole = self.topology.cpus_where(|place| level.of(place) == number);
            if unit == whole && whole.len() <= self.needed {
                self.take(&whole);
            }
        }
    }

    /// Takes whole caches, then what is left from the first one that has all of it free: in whole cores, but for the last
    /// thread of an odd number. Where none has, nothing more.
    fn take_caches(&mut self, node: &[Level]) {
        let levels = [node, &[Level::Cache]].concat();
        let caches = self.nested(&levels);
        self.take_whole(&levels);
        for cache in caches {
            if self.needed == 0 {
                return;
            }
            let free = cache.intersection(&self.free);
            let mut cores: Vec<(usize, usize)> =
                free.iter().filter_map(|cpu| Some((self.topology.cpus.get(&cpu)?.core, cpu))).collect();
            cores.sort_unstable();
            let count = self.needed.div_ceil(self.topology.cpus_per_core());
            let cores = cores.chunk_by(|one, other| one.0 == other.0).take(count);
            let mut cpus: Vec<usize> = cores.flatten().map(|(_, cpu)| *cpu).collect();
            cpus.sort_unstable();
            if cpus.len() == self.needed + 1 {
                cpus.pop();
            }
            if cpus.len() == self.needed {
                return self.take(&cpus.into_iter().collect());
            }
        }
    }
}

/// Takes `count` of the `available` CPUs, packed as closely as can be; with `by_cache`, if possible such that share a cache.
/// The error is upstream's.
pub(crate) fn packed(topology: &Topology, available: &CpuSet, count: usize, by_cache: bool) -> Result<CpuSet, String> {
    let free = available.intersection(&topology.all_cpus());
    if count > free.len() {
        return Err(format!(
            "not enough cpus available to satisfy request: requested={count}, available={}",
            free.len()
        ));
    }
    let mut state = Free { topology, free, taken: CpuSet::default(), needed: count };
    // Sockets may be larger than nodes or the other way round; the larger go first.
    let outer = match topology.sockets().len() >= topology.cpu_nodes().len() {
        true => [Level::Node, Level::Socket, Level::Core],
        false => [Level::Socket, Level::Node, Level::Core],
    };
    for depth in 1..outer.len() {
        state.take_whole(&outer[..depth]);
    }
    if by_cache {
        state.take_caches(&outer[..2]);
    }
    state.take_whole(&outer);
    for core in state.nested(&outer) {
        let some = core.iter().take(state.needed).collect();
        state.take(&some);
    }
    Ok(state.taken)
}

/// Takes `count` CPUs, as evenly as can be from the fewest NUMA nodes that have them, in groups of `group` CPUs.
pub(crate) fn distributed(
    topology: &Topology,
    available: &CpuSet,
    count: usize,
    group: usize,
) -> Result<CpuSet, String> {
    let group = group.max(1);
    let free = available.intersection(&topology.all_cpus());
    if count == 0 || !count.is_multiple_of(group) || count > free.len() {
        return packed(topology, available, count, false);
    }
    let on = |node: usize| free.intersection(&topology.cpus_where(|place| place.node == node));
    let mut nodes: Vec<(usize, CpuSet)> =
        topology.cpu_nodes().into_iter().map(|node| (node, on(node))).filter(|(_, cpus)| !cpus.is_empty()).collect();
    nodes.sort_by_key(|(_, cpus)| cpus.len());
    let sizes: Vec<usize> = nodes.iter().map(|(_, cpus)| cpus.len()).collect();
    for width in 1..=nodes.len().min(count / group) {
        let Some(shares) = best_shares(&sizes, width, count, group) else { continue };
        let mut taken = CpuSet::default();
        for (share, (_, cpus)) in shares.iter().zip(&nodes) {
            // The even part first, then what is left over, group by group: so it is chosen as upstream does.
            let even = count / width / group * group;
            let mut rest = cpus.clone();
            let mut left = *share;
            while left > 0 {
                let some = packed(
                    topology,
                    &rest,
                    if left >= even && even > 0 && left == *share { even } else { group },
                    false,
                )?;
                left -= some.len().min(left);
                rest = rest.difference(&some);
                taken = taken.union(&some);
            }
        }
        return Ok(taken);
    }
    packed(topology, available, count, false)
}

/// How many CPUs to take from each node (`sizes` free ones) so that `width` nodes give `count` evenly, in groups, and what
/// is left is balanced best.
fn best_shares(sizes: &[usize], width: usize, count: usize, group: usize) -> Option<Vec<usize>> {
    let even = count / width / group * group;
    let mut best: Option<(f64, Vec<usize>)> = None;
    for combination in combinations(sizes.len(), width) {
        let groups: usize = combination.iter().map(|node| sizes[*node] / group).sum();
        if groups * group < count || combination.iter().any(|node| sizes[*node] < even) {
            continue;
        }
        let mut shares = vec![0; sizes.len()];
        combination.iter().for_each(|node| shares[*node] = even);
        let spare = |shares: &[usize], node: usize| sizes[node] - shares[node];
        let over = count - even * width;
        let mut found: Option<(f64, Vec<usize>)> = None;
        if over == 0 {
            found = Some((spread(sizes, &shares), shares.clone()));
        }
        let able: Vec<usize> = combination.iter().copied().filter(|node| spare(&shares, *node) >= group).collect();
        // From as many nodes as can be, down to one: the widest is kept among equals.
        for size in (1..=able.len()).rev().filter(|_| over > 0) {
            for subset in combinations(able.len(), size) {
                let subset: Vec<usize> = subset.into_iter().map(|index| able[index]).collect();
                let whole: usize = subset.iter().map(|node| spare(&shares, *node) / group * group).sum();
                if whole < over {
                    continue;
                }
                let (mut own, mut left) = (shares.clone(), over);
                while left > 0 {
                    for node in &subset {
                        if left > 0 && spare(&own, *node) >= group {
                            own[*node] += group;
                            left -= group;
                        }
                    }
                }
                let balance = spread(sizes, &own);
                if found.as_ref().is_none_or(|(known, _)| balance < *known) {
                    found = Some((balance, own));
                }
            }
        }
        if let Some(found) = found.filter(|found| best.as_ref().is_none_or(|(known, _)| found.0 < *known)) {
            best = Some(found);
        }
    }
    best.map(|(_, shares)| shares)
}

/// Standard deviation of what is left on the nodes, rounded as upstream does so that equals are equal.
fn spread(sizes: &[usize], shares: &[usize]) -> f64 {
    let left: Vec<f64> = sizes.iter().zip(shares).map(|(size, share)| (size - share) as f64).collect();
    let mean = left.iter().sum::<f64>() / left.len() as f64;
    let variance = left.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / left.len() as f64;
    (variance.sqrt() * 1000.0).round() / 1000.0
}

/// All choices of `size` out of `0..of`, in lexical order. NUMA nodes are few: at most eight take part.
fn combinations(of: usize, size: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    let mut stack = vec![Vec::new()];
    while let Some(chosen) = stack.pop() {
        if chosen.len() == size {
            all.push(chosen);
            continue;
        }
        let next = chosen.last().map_or(0, |last: &usize| *last + 1);
        for index in (next..of).rev() {
            let mut longer = chosen.clone();
            longer.push(index);
            stack.push(longer);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::topology::samples::machine;
    use super::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap()
    }

    /// The cases of upstream's own tables, on machines of the same shape.
    #[test]
    fn packing() {
        // One socket, 4 cores of 2 threads: cores are 0/4, 1/5, 2/6, 3/7.
        let single = machine(1, 1, 4, 2);
        // Two sockets, 6 CPUs each in 3 cores: 0-2/6-8 on socket 0, 3-5/9-11 on socket 1.
        let dual = machine(2, 1, 3, 2);
        for (topology, available, count, expected) in [
            (&single, "0-7", 1, "0"),
            (&single, "0-7", 2, "0,4"),
            (&single, "0-7", 8, "0-7"),
            (&single, "1-7", 1, "4"),
            (&single, "1,3,5-7", 2, "1,5"),
            (&single, "0,2,4-7", 3, "0,4-5"),
            (&single, "2-7", 5, "2-4,6-7"),
            (&dual, "0-11", 1, "0"),
            (&dual, "0-11", 6, "0-2,6-8"),
            (&dual, "0-11", 8, "0-3,6-9"),
            (&dual, "1-11", 6, "3-5,9-11"),
            (&dual, "1-2,7-11", 1, "9"),
            (&dual, "1-11", 3, "1,6-7"),
            (&dual, "0-11", 0, ""),
        ] {
            let taken = packed(topology, &set(available), count, false).unwrap();
            assert_eq!(taken.to_string(), expected, "{count} of {available}");
        }
        assert_eq!(
            packed(&single, &set("0-2"), 4, false).unwrap_err(),
            "not enough cpus available to satisfy request: requested=4, available=3"
        );
    }

    #[test]
    fn nodes_within_sockets_and_sockets_within_nodes() {
        // Two sockets of two nodes, four CPUs a node.
        let small_nodes = machine(2, 2, 4, 1);
        assert_eq!(packed(&small_nodes, &set("0-15"), 8, false).unwrap().to_string(), "0-7");
        assert_eq!(
            packed(&small_nodes, &set("1-15"), 4, false).unwrap().to_string(),
            "4-7",
            "a whole node where one is"
        );
        assert_eq!(packed(&small_nodes, &set("1-15"), 12, false).unwrap().to_string(), "4-15");
        let mut small_sockets = machine(4, 1, 2, 1);
        small_sockets.cpus.values_mut().for_each(|place| place.node = place.socket / 2);
        assert_eq!(packed(&small_sockets, &set("0-7"), 4, false).unwrap().to_string(), "0-3");
        assert_eq!(
            packed(&small_sockets, &set("1-7"), 2, false).unwrap().to_string(),
            "2-3",
            "a whole socket where one is"
        );
    }

    #[test]
    fn by_cache() {
        // One socket of 8 cores with 2 threads (0/8, 1/9, ..), four cores to a cache: 0-3,8-11 and 4-7,12-15.
        let mut smt = machine(1, 1, 8, 2);
        smt.cpus.values_mut().for_each(|place| place.cache = place.core / 4);
        // The same without threads: 0-3 and 4-7 and 8-11.
        let mut plain = machine(1, 1, 12, 1);
        plain.cpus.values_mut().for_each(|place| place.cache = place.core / 4);
        for (topology, available, count, together, apart) in [
            (&smt, "0-15", 8, "0-3,8-11", "0-3,8-11"),
            // The cache that is broken already is filled up; one whose first cores are broken, too, is none that has four.
            (&smt, "1-7,9-15", 4, "1-2,9-10", "1-2,9-10"),
            (&smt, "1-15", 4, "4-5,12-13", "1-2,9-10"),
            (&smt, "2-3,10-11,4-7,12-15", 6, "4-6,12-14", "2-4,10-12"),
            (&smt, "2-3,10-11,4-7,12-15", 8, "4-7,12-15", "2-5,10-13"),
            // Odd: the last thread of the last core stays.
            (&smt, "0-15", 3, "0-1,8", "0-1,8"),
            (&plain, "2-11", 4, "4-7", "2-5"),
            (&plain, "2-11", 3, "4-6", "2-4"),
            (&plain, "2-11", 6, "2-7", "2-7"),
            // No cache has as many: packed as ever.
            (&plain, "2-3,6-7,10-11", 3, "2-3,6", "2-3,6"),
        ] {
            for (by_cache, expected) in [(true, together), (false, apart)] {
                let taken = packed(topology, &set(available), count, by_cache).unwrap();
                assert_eq!(taken.to_string(), expected, "{count} of {available}, {by_cache}");
            }
        }
    }

    #[test]
    fn distributing() {
        let four = machine(4, 1, 4, 2);
        let two = machine(2, 1, 4, 2);
        for (topology, available, count, group, expected) in [
            (&two, "0-15", 4, 1, "0-1,8-9"),
            // More than one node has: half from each.
            (&two, "0-15", 10, 1, "0-2,4-6,8-9,12-13"),
            (&two, "0-15", 12, 2, "0-2,4-6,8-10,12-14"),
            // What is not a multiple of a group is packed.
            (&two, "0-15", 5, 2, "0-2,8-9"),
            (&four, "0-31", 16, 2, "0-7,16-23"),
            // Three nodes; the one that is emptier is left alone, so that what is left is balanced.
            (&four, "2-31", 18, 2, "4-6,8-10,12-14,20-22,24-26,28-30"),
        ] {
            let taken = distributed(topology, &set(available), count, group).unwrap();
            assert_eq!(taken.to_string(), expected, "{count} of {available} by {group}");
        }
        assert!(distributed(&two, &set("0-3"), 5, 1).is_err());
    }
}
