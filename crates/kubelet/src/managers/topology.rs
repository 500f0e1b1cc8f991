//! Where a machine's CPUs and memory are: cores, sockets and NUMA nodes. A value that tests make; production reads `/sys`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::cpuset::CpuSet;
use crate::error::Error;

/// A logical CPU's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The lowest CPU of its physical core.
    pub core: usize,
    pub socket: usize,
    pub node: usize,
    /// Of the last cache above the core's own; the socket's number where the kernel does not tell.
    pub cache: usize,
}

/// A NUMA node's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeMemory {
    pub bytes: u64,
    /// How many huge pages there are, by their size in bytes.
    pub huge_pages: BTreeMap<u64, u64>,
    /// To each node, in ascending order of their numbers.
    pub distances: Vec<u64>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    pub cpus: BTreeMap<usize, Place>,
    pub nodes: BTreeMap<usize, NodeMemory>,
}

impl Topology {
    /// Reads the machine below `sys` (`/sys`). Without NUMA in the kernel everything is on node 0, with `memory_bytes`.
    pub(crate) fn read(sys: &Path, memory_bytes: u64) -> Result<Topology, Error> {
        let cpu_dir = sys.join("devices/system/cpu");
        let online = read_set(&cpu_dir.join("online"))?;
        let mut nodes = BTreeMap::new();
        let mut node_of = BTreeMap::new();
        for entry in fs::read_dir(sys.join("devices/system/node")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")).and_then(|n| n.parse::<usize>().ok());
            let Some(number) = number else { continue };
            for cpu in read_set(&entry.path().join("cpulist"))?.iter() {
                node_of.insert(cpu, number);
            }
            nodes.insert(number, read_memory(&entry.path()));
        }
        if nodes.is_empty() {
            nodes.insert(0, NodeMemory { bytes: memory_bytes, distances: vec![10], ..NodeMemory::default() });
        }
        let mut cpus = BTreeMap::new();
        for cpu in online.iter() {
            let dir = cpu_dir.join(format!("cpu{cpu}/topology"));
            let siblings = read_set(&dir.join("thread_siblings_list"))?;
            let socket = fs::read_to_string(dir.join("physical_package_id")).unwrap_or_default();
            // Some virtual machines say -1.
            let socket = socket.trim().parse().unwrap_or(0);
            let place = Place {
                core: siblings.iter().next().unwrap_or(cpu),
                socket,
                node: node_of.get(&cpu).copied().unwrap_or(0),
                cache: last_cache(&cpu_dir.join(format!("cpu{cpu}/cache"))).unwrap_or(socket),
            };
            cpus.insert(cpu, place);
        }
        Ok(Topology { cpus, nodes })
    }

    pub(crate) fn all_cpus(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// CPUs at places that `wanted` takes.
    pub(crate) fn cpus_where(&self, wanted: impl Fn(&Place) -> bool) -> CpuSet {
        self.cpus.iter().filter(|(_, place)| wanted(place)).map(|(cpu, _)| *cpu).collect()
    }

    /// Numbers of the NUMA nodes that have CPUs.
    pub(crate) fn cpu_nodes(&self) -> BTreeSet<usize> {
        self.cpus.values().map(|place| place.node).collect()
    }

    pub(crate) fn sockets(&self) -> BTreeSet<usize> {
        self.cpus.values().map(|place| place.socket).collect()
    }

    /// Threads of a core; upstream's quotient of all CPUs and cores.
    pub(crate) fn cpus_per_core(&self) -> usize {
        let cores: BTreeSet<usize> = self.cpus.values().map(|place| place.core).collect();
        self.cpus.len().checked_div(cores.len()).unwrap_or(1).max(1)
    }
}

/// The number of a CPU's cache of level 3.
fn last_cache(dir: &Path) -> Option<usize> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let caches = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    caches.filter(|cache| number(&cache.join("level")) == Some(3)).find_map(|cache| number(&cache.join("id")))
}

fn read_set(path: &Path) -> Result<CpuSet, Error> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    CpuSet::parse(&text).map_err(|why| Error::message(format!("{}: {why}", path.display())))
}

fn read_memory(node: &Path) -> NodeMemory {
    let number = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let meminfo = fs::read_to_string(node.join("meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.split_once("MemTotal:")).map(|(_, rest)| rest.trim());
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    let mut huge_pages = BTreeMap::new();
    for entry in fs::read_dir(node.join("hugepages")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size =
            name.to_str().and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
        if let (Some(size), Some(count)) = (size, number(&entry.path().join("nr_hugepages"))) {
            huge_pages.insert(size << 10, count);
        }
    }
    let distances = fs::read_to_string(node.join("distance")).unwrap_or_default();
    NodeMemory {
        bytes: kib << 10,
        huge_pages,
        distances: distances.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
    }
}

/// Machines for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// `sockets` × `nodes` per socket × `cores` per node × `threads`. CPUs are numbered as Linux does: the first thread of
    /// each core first. Each node has 1024 MiB.
    pub(crate) fn machine(sockets: usize, nodes: usize, cores: usize, threads: usize) -> Topology {
        let all = sockets * nodes * cores;
        let place = |cpu: usize| {
            let core = cpu % all;
            let socket = core / (nodes * cores);
            Place { core, socket, node: core / cores, cache: socket }
        };
        let distances = |from: usize| {
            let far = |to: usize| if to / nodes == from / nodes { 12 } else { 20 };
            (0..sockets * nodes).map(|to| if to == from { 10 } else { far(to) }).collect()
        };
        Topology {
            cpus: (0..all * threads).map(|cpu| (cpu, place(cpu))).collect(),
            nodes: (0..sockets * nodes)
                .map(|node| (node, NodeMemory { bytes: 1 << 30, distances: distances(node), ..NodeMemory::default() }))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let topology = Topology::read(Path::new("/sys"), 0).unwrap();
        assert!(topology.cpus.len() >= std::thread::available_parallelism().unwrap().get());
        assert!(topology.nodes.values().any(|node| node.bytes > 0));
        assert!(topology.cpus.values().all(|place| topology.nodes.contains_key(&place.node)));
    }

    #[test]
    fn a_tree_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-3\n");
        for (cpu, socket) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{},{}\n", cpu % 2, cpu % 2 + 2));
            write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), &format!("{socket}\n"));
        }
        for (index, level, id) in [(0, 1, 3), (3, 3, 7)] {
            write(&format!("cpu/cpu3/cache/index{index}/level"), &format!("{level}\n"));
            write(&format!("cpu/cpu3/cache/index{index}/id"), &format!("{id}\n"));
        }
        assert_eq!(Topology::read(dir.path(), 7).unwrap().nodes[&0].bytes, 7, "a kernel without NUMA");
        for node in 0..2 {
            write(&format!("node/node{node}/cpulist"), &format!("{node},{}\n", node + 2));
            write(
                &format!("node/node{node}/meminfo"),
                &format!("Node {node} MemTotal:  2048 kB\nNode {node} MemFree: 1 kB\n"),
            );
            write(&format!("node/node{node}/distance"), "10 21\n");
            write(&format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "3\n");
        }
        let topology = Topology::read(dir.path(), 0).unwrap();
        assert_eq!(topology.cpus[&3], Place { core: 1, socket: 1, node: 1, cache: 7 });
        assert_eq!(topology.cpus[&2].cache, 0, "no cache is told");
        let memory = NodeMemory { bytes: 2 << 20, huge_pages: [(2 << 20, 3)].into(), distances: vec![10, 21] };
        assert_eq!(topology.nodes[&1], memory);
        assert_eq!((topology.cpus_per_core(), topology.sockets().len(), topology.cpu_nodes().len()), (2, 2, 2));
    }
}
