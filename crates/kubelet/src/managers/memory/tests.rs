use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::super::topology::samples::machine;
use super::*;

const MIB: u64 = 1 << 20;

/// A Guaranteed pod whose containers want so many MiB; `i:` an init container, `s:` a sidecar.
fn pod(uid: &str, containers: &[(&str, u64)]) -> Pod {
    let one = |name: &str, mib: u64| {
        let limits = json!({"cpu": "100m", "memory": format!("{mib}Mi")});
        let mut container = json!({"name": name, "resources": {"limits": limits, "requests": limits}});
        if name.starts_with("s:") {
            container["restartPolicy"] = "Always".into();
        }
        container
    };
    let (init, app): (Vec<_>, Vec<_>) = containers.iter().partition(|(name, _)| name.contains(':'));
    let list = |of: Vec<&(&str, u64)>| of.into_iter().map(|(name, mib)| one(name, *mib)).collect::<Vec<_>>();
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid},
        "spec": {"initContainers": list(init), "containers": list(app)}}))
    .unwrap()
}

fn reserved(mib: &[u64]) -> BTreeMap<usize, Amounts> {
    mib.iter().enumerate().map(|(node, mib)| (node, [("memory".to_string(), mib * MIB)].into())).collect()
}

/// Two nodes of 1024 MiB, 24 of which the system keeps on each.
fn memory() -> Memory {
    Memory::new(&machine(2, 1, 2, 1), &reserved(&[24, 24]), None).unwrap()
}

fn free(memory: &Memory) -> Vec<u64> {
    memory.nodes.values().map(|node| node.memory_map["memory"].free / MIB).collect()
}

fn allocate(memory: &mut Memory, pod: &Pod, nodes: Option<&[usize]>) -> Result<(), String> {
    let affinity = nodes.map(|nodes| nodes.iter().copied().collect());
    let hint = Hint { affinity, preferred: nodes.is_some() };
    view::all_containers(pod).try_for_each(|container| memory.allocate(pod, container, hint).map(drop))
}

#[test]
fn nodes_serve_alone_or_in_a_group() {
    let mut memory = memory();
    assert_eq!(free(&memory), [1000, 1000]);
    allocate(&mut memory, &pod("a", &[("x", 600)]), None).unwrap();
    assert_eq!(free(&memory), [400, 1000]);
    allocate(&mut memory, &pod("b", &[("x", 600)]), None).unwrap();
    assert_eq!(free(&memory), [400, 400]);
    // 800 MiB are free, but on two nodes that serve alone.
    let refused = allocate(&mut memory, &pod("c", &[("x", 700)]), None).unwrap_err();
    assert!(refused.contains("no NUMA nodes with enough memory is available"), "{refused}");
    assert!(memory.release("a") && memory.release("b") && !memory.release("b"));
    allocate(&mut memory, &pod("wide", &[("x", 1500)]), None).unwrap();
    assert_eq!((free(&memory), memory.nodes[&0].cells.clone()), (vec![0, 500], vec![0, 1]));
    // Both nodes are a group now: who would fit into one takes from both.
    let small = pod("small", &[("x", 100)]);
    let hints = memory.hints(&small, &view::containers(&small)[0]);
    let both = Hint { affinity: Some([0, 1].into_iter().collect()), preferred: false };
    assert_eq!(hints["memory"], Some(vec![both]));
    allocate(&mut memory, &small, Some(&[0, 1])).unwrap();
    assert_eq!(free(&memory), [0, 400]);
    memory.release("wide");
    memory.release("small");
    assert_eq!((free(&memory), memory.nodes[&0].cells.clone()), (vec![1000, 1000], vec![0]));
    let burstable = json!({"metadata": {"uid": "d"}, "spec": {"containers": [
        {"name": "x", "resources": {"requests": {"memory": "10Mi"}}}]}});
    allocate(&mut memory, &serde_json::from_value(burstable).unwrap(), None).unwrap();
    assert_eq!(free(&memory), [1000, 1000]);
}

#[test]
fn a_hint_is_followed_or_widened() {
    let mut memory = memory();
    allocate(&mut memory, &pod("a", &[("x", 100)]), Some(&[1])).unwrap();
    assert_eq!(free(&memory), [1000, 900]);
    // Node 1 has not enough, and may not be grouped with node 0.
    let refused = allocate(&mut memory, &pod("b", &[("x", 950)]), Some(&[1])).unwrap_err();
    assert_eq!(refused, "[memorymanager] failed to find NUMA nodes to extend the current topology hint");
    let refused = allocate(&mut memory, &pod("b", &[("x", 100)]), Some(&[0, 1])).unwrap_err();
    assert_eq!(refused, "[memorymanager] preferred hint violates NUMA node allocation");
    memory.release("a");
    allocate(&mut memory, &pod("b", &[("x", 1200)]), Some(&[1])).unwrap();
    assert_eq!(free(&memory), [0, 800]);
}

#[test]
fn init_containers_leave_theirs() {
    let mut memory = memory();
    let pod = pod("p", &[("i:one", 300), ("s:side", 50), ("i:two", 200), ("x", 100), ("y", 100)]);
    assert_eq!(memory.pod_hints(&pod)["memory"].as_ref().unwrap().len(), 3);
    allocate(&mut memory, &pod, Some(&[0])).unwrap();
    let size = |memory: &Memory, name: &str| memory.blocks("p", name).unwrap()[0].size / MIB;
    let sizes = ["i:one", "s:side", "i:two", "x", "y"].map(|name| size(&memory, name));
    assert_eq!((sizes[1], sizes[3], sizes[4]), (50, 100, 100));
    assert_eq!(sizes.iter().sum::<u64>(), 1000 - free(&memory)[0], "the sum of all is what is taken");
    assert!(sizes.iter().sum::<u64>() < 300 + 50 + 200 + 100 + 100);
    memory.release("p");
    assert_eq!(free(&memory), [1000, 1000]);
}

#[test]
fn huge_pages_are_counted_beside() {
    let mut topology = machine(1, 1, 2, 1);
    topology.nodes.get_mut(&0).unwrap().huge_pages = [(2 * MIB, 10)].into();
    let mut memory = Memory::new(&topology, &reserved(&[24]), None).unwrap();
    assert_eq!(free(&memory), [980]);
    let mut pod = pod("p", &[("x", 100)]);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    let limits = container.resources.as_mut().unwrap().limits.as_mut().unwrap();
    limits.insert("hugepages-2Mi".into(), Quantity("8Mi".into()));
    allocate(&mut memory, &pod, None).unwrap();
    let table = memory.nodes[&0].memory_map["hugepages-2Mi"];
    assert_eq!((table.total, table.reserved, table.free), (20 * MIB, 8 * MIB, 12 * MIB));
    assert_eq!(memory.allocatable().len(), 2);
    assert_eq!(
        memory.blocks("p", "x").unwrap().iter().map(|block| block.kind.as_str()).collect::<Vec<_>>(),
        ["hugepages-2Mi", "memory"]
    );
}

#[test]
fn files_are_taken_up_or_refused() {
    let topology = machine(2, 1, 2, 1);
    let mut before = memory();
    allocate(&mut before, &pod("a", &[("x", 600)]), None).unwrap();
    allocate(&mut before, &pod("b", &[("x", 100)]), Some(&[1])).unwrap();
    let file = before.file();
    let after = Memory::new(&topology, &reserved(&[24, 24]), Some(&file)).unwrap();
    assert_eq!((&after.given, &after.nodes), (&before.given, &before.nodes));
    let error = Memory::new(&topology, &reserved(&[24, 48]), Some(&file)).unwrap_err();
    assert_eq!(error, "[memorymanager] the expected machine state is different from the real one");
    let error = Memory::new(&machine(1, 1, 2, 1), &reserved(&[24]), Some(&file)).unwrap_err();
    assert!(
        error.ends_with("(pod: b, container: x) the memory assignment uses the NUMA that does not exist"),
        "{error}"
    );
    let mut damaged = file.clone();
    damaged.entries.clear();
    assert!(Memory::new(&topology, &reserved(&[24, 24]), Some(&damaged)).is_err());
    assert!(
        Memory::new(&topology, &reserved(&[0, 0]), None)
            .unwrap_err()
            .contains("you should specify the system reserved")
    );
}

#[test]
fn reservations_are_what_the_node_keeps() {
    let topology = machine(2, 1, 2, 1);
    let reservation = |numa_node: i32, memory: &str| MemoryReservation {
        numa_node,
        limits: [("memory".to_string(), Quantity(memory.into()))].into(),
    };
    let whole: ResourceList =
        [("memory".to_string(), Quantity("1100Mi".into())), ("cpu".to_string(), Quantity("1".into()))].into();
    let found = reservations(&topology, &[reservation(0, "1Gi"), reservation(1, "76Mi")], &whole).unwrap();
    assert_eq!(found, reserved(&[1024, 76]));
    assert_eq!(
        reservations(&topology, &[reservation(0, "1Gi")], &whole).unwrap_err(),
        "the total amount \"1Gi\" of type \"memory\" is not equal to the value \"1100Mi\" determined by Node Allocatable feature"
    );
    assert!(
        reservations(&topology, &[reservation(2, "1Gi")], &whole)
            .unwrap_err()
            .contains("references a NUMA node 2 that")
    );
}
