use serde_json::json;

use super::super::topology::samples::machine;
use super::*;

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

/// A Guaranteed pod whose containers want so many CPUs; `i:` an init container, `s:` a sidecar.
fn pod(uid: &str, containers: &[(&str, &str)]) -> Pod {
    let one = |name: &str, cpu: &str| {
        let limits = json!({"cpu": cpu, "memory": "1Mi"});
        let mut container = json!({"name": name, "resources": {"limits": limits, "requests": limits}});
        if name.starts_with("s:") {
            container["restartPolicy"] = "Always".into();
        }
        container
    };
    let (init, app): (Vec<_>, Vec<_>) = containers.iter().partition(|(name, _)| name.contains(':'));
    let list = |of: Vec<&(&str, &str)>| of.into_iter().map(|(name, cpu)| one(name, cpu)).collect::<Vec<_>>();
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid},
        "spec": {"initContainers": list(init), "containers": list(app)}}))
    .unwrap()
}

fn cpus(topology: &Topology, options: Options, reserved: usize) -> Cpus {
    Cpus::new(topology, options, CpuSet::default(), reserved, None).unwrap()
}

fn allocate_all(cpus: &mut Cpus, pod: &Pod) -> Result<(), Ended> {
    view::all_containers(pod).try_for_each(|container| cpus.allocate(pod, container, None).map(drop))
}

fn own(cpus: &Cpus, pod: &str, container: &str) -> String {
    cpus.exclusive(pod, container).map(CpuSet::to_string).unwrap_or_default()
}

#[test]
fn whole_cpus_are_exclusive_and_come_back() {
    let mut cpus = cpus(&machine(1, 1, 4, 2), Options::default(), 2);
    assert_eq!((cpus.reserved.to_string(), cpus.shared.to_string()), ("0,4".into(), "0-7".into()));
    allocate_all(&mut cpus, &pod("a", &[("x", "2"), ("y", "1500m"), ("z", "1")])).unwrap();
    assert_eq!(
        (own(&cpus, "a", "x"), own(&cpus, "a", "y"), own(&cpus, "a", "z")),
        ("1,5".into(), "".into(), "2".into())
    );
    assert_eq!(cpus.shared.to_string(), "0,3-4,6-7");
    let refused = allocate_all(&mut cpus, &pod("b", &[("x", "4")])).unwrap_err();
    assert_eq!(refused.reason, "UnexpectedAdmissionError");
    assert_eq!(
        refused.message,
        "Allocate failed due to not enough cpus available to satisfy request: requested=4, available=3, which is unexpected"
    );
    assert_eq!(cpus.shared.to_string(), "0,3-4,6-7", "who is refused takes nothing");
    allocate_all(&mut cpus, &pod("a", &[("x", "2")])).unwrap();
    assert_eq!(own(&cpus, "a", "x"), "1,5", "who has keeps");
    assert!(cpus.release("a") && !cpus.release("a"));
    assert_eq!(cpus.shared.to_string(), "0-7");
    let burstable = serde_json::from_value(json!({"metadata": {"uid": "c"}, "spec": {"containers": [
        {"name": "x", "resources": {"requests": {"cpu": "2", "memory": "1Mi"}}}]}}));
    let burstable: Pod = burstable.unwrap();
    assert!(!cpus.allocate(&burstable, &view::containers(&burstable)[0], None).unwrap());
}

#[test]
fn init_containers_leave_theirs_but_sidecars_do_not() {
    let mut cpus = cpus(&machine(1, 1, 8, 1), Options::default(), 1);
    let pod = pod("p", &[("i:one", "3"), ("s:side", "1"), ("i:two", "2"), ("x", "2"), ("y", "2")]);
    assert_eq!(wanted_by_pod(&pod), 5);
    allocate_all(&mut cpus, &pod).unwrap();
    let side = set(&own(&cpus, "p", "s:side"));
    let (x, y) = (set(&own(&cpus, "p", "x")), set(&own(&cpus, "p", "y")));
    assert!(x.intersection(&y).is_empty() && side.intersection(&x.union(&y)).is_empty());
    let all = ["i:one", "s:side", "i:two", "x", "y"].map(|name| set(&own(&cpus, "p", name)));
    let all = all.iter().fold(CpuSet::default(), |all, own| all.union(own));
    assert_eq!(all.len(), 7 - cpus.available_count());
    assert!(all.len() < 3 + 1 + 2 + 2 + 2, "{all}");
    cpus.release("p");
    assert_eq!(cpus.shared.to_string(), "0-7");
}

#[test]
fn full_cores_only() {
    let options = Options { full_cores_only: true, ..Options::default() };
    let topology = machine(1, 1, 4, 2);
    let mut cpus = cpus(&topology, options, 1);
    let refused = allocate_all(&mut cpus, &pod("a", &[("x", "3")])).unwrap_err();
    assert_eq!(refused.reason, "SMTAlignmentError");
    assert_eq!(refused.message, "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2");
    allocate_all(&mut cpus, &pod("a", &[("x", "4")])).unwrap();
    // CPU 4 is free, but shares a core with the reserved CPU 0.
    let refused = allocate_all(&mut cpus, &pod("b", &[("x", "4")])).unwrap_err();
    assert_eq!(
        refused.message,
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 2, requested CPUs = 4, CPUs per core = 2"
    );
    allocate_all(&mut cpus, &pod("b", &[("x", "2")])).unwrap();
    assert_eq!(own(&cpus, "b", "x"), "3,7");
}

#[test]
fn strict_reservation_keeps_others_off_too() {
    let options = Options { strict_reservation: true, ..Options::default() };
    let topology = machine(1, 1, 4, 1);
    let strict = cpus(&topology, options, 1);
    assert_eq!(strict.shared.to_string(), "1-3");
    let loose = cpus(&topology, Options::default(), 1);
    let error = Cpus::new(&topology, options, CpuSet::default(), 1, Some(&loose.file())).unwrap_err();
    assert_eq!(error, "some of strictly reserved cpus: \"0\" are present in defaultCpuSet: \"0-3\"");
    let error = Cpus::new(&topology, Options::default(), CpuSet::default(), 1, Some(&strict.file())).unwrap_err();
    assert_eq!(error, "not all reserved cpus: \"0\" are present in defaultCpuSet: \"1-3\"");
}

#[test]
fn files_are_taken_up_or_refused() {
    let topology = machine(1, 1, 4, 1);
    let mut before = cpus(&topology, Options::default(), 1);
    allocate_all(&mut before, &pod("a", &[("x", "2")])).unwrap();
    let file = before.file();
    let after = Cpus::new(&topology, Options::default(), CpuSet::default(), 1, Some(&file)).unwrap();
    assert_eq!((after.given, after.shared), (before.given.clone(), before.shared.clone()));
    let with = |shared: &str, own: &str| {
        let mut file = file.clone();
        file.default_cpu_set = shared.into();
        file.entries.get_mut("a").unwrap().insert("x".into(), own.into());
        Cpus::new(&topology, Options::default(), CpuSet::default(), 1, Some(&file)).err().unwrap_or_default()
    };
    assert_eq!(with("", "1-2"), "default cpuset cannot be empty");
    assert_eq!(with("0,2-3", "1-2"), "pod: a, container: x cpuset: \"1-2\" overlaps with default cpuset \"0,2-3\"");
    assert_eq!(with("0,3", "1"), "current set of available CPUs \"0-3\" doesn't match with CPUs in state \"0-1,3\"");
    assert_eq!(with("0,3", "1-2"), "");
    let error = Cpus::new(&topology, Options::default(), set("0-1"), 3, None).unwrap_err();
    assert!(error.contains("unable to reserve the required amount of CPUs (size of 0-1 did not equal 3)"), "{error}");
}

#[test]
fn hints_name_the_nodes_that_have_enough() {
    let topology = machine(2, 1, 4, 1);
    let mut cpus = cpus(&topology, Options::default(), 1);
    let hint = |nodes: &[usize], preferred| Hint { affinity: Some(nodes.iter().copied().collect()), preferred };
    let of = |cpus: &Cpus, count: &str| {
        let pod = pod("p", &[("x", count)]);
        (cpus.hints(&pod, &view::containers(&pod)[0]), cpus.pod_hints(&pod))
    };
    for (count, expected) in [
        ("500m", None),
        ("3", Some(vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)])),
        // One CPU of node 0 is reserved; four would fit there but for that, so two nodes are not what is preferred.
        ("4", Some(vec![hint(&[1], true), hint(&[0, 1], false)])),
        ("5", Some(vec![hint(&[0, 1], true)])),
        ("8", Some(vec![])),
    ] {
        assert_eq!(of(&cpus, count), (expected.clone(), expected), "{count}");
    }
    let taken = pod("p", &[("x", "2")]);
    cpus.allocate(&taken, &view::containers(&taken)[0], Some([1].into_iter().collect())).unwrap();
    assert_eq!(own(&cpus, "p", "x"), "4-5");
    assert_eq!(cpus.exclusive_by_node(), [(0, 0), (1, 2)].into());
    // Who has them is told where they are; who now asks for more is told that nothing will do.
    assert_eq!(of(&cpus, "2").0, Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    assert_eq!(of(&cpus, "3").0, Some(vec![]));
}

#[test]
fn sockets_can_count_in_place_of_nodes() {
    let options = Options { align_by_socket: true, ..Options::default() };
    // Two sockets of two nodes of two CPUs.
    let topology = machine(2, 2, 2, 1);
    let mut cpus = cpus(&topology, options, 1);
    let pod = pod("p", &[("x", "2")]);
    let container = &view::containers(&pod)[0];
    let hints = cpus.hints(&pod, container).unwrap();
    let preferred: Vec<String> =
        hints.iter().filter(|hint| hint.preferred).map(|hint| hint.affinity.unwrap().to_string()).collect();
    assert_eq!(preferred, ["10", "100", "1000", "11", "1100"], "both nodes of a socket are as good as one");
    let three = super::tests::pod("q", &[("x", "3")]);
    cpus.allocate(&three, &view::containers(&three)[0], Some([2].into_iter().collect())).unwrap();
    assert_eq!(own(&cpus, "q", "x"), "4-6", "from the socket of the node");
    let tiny = {
        let mut tiny = topology.clone();
        tiny.cpus.values_mut().for_each(|place| place.node = 0);
        tiny
    };
    assert!(Cpus::new(&tiny, options, CpuSet::default(), 1, None).unwrap_err().starts_with("Align by socket is not"));
}

#[test]
fn options_by_maturity() {
    let default = |gate: &str| gate == "CPUManagerPolicyBetaOptions";
    let parse = |name: &str, value: &str, gates: &dyn Fn(&str) -> bool| {
        Options::parse(&[(name.to_string(), value.to_string())].into(), gates)
    };
    for name in ["full-pcpus-only", "strict-cpu-reservation", "distribute-cpus-across-numa"] {
        assert_ne!(parse(name, "true", &default).unwrap(), Options::default(), "{name}");
        assert_eq!(parse(name, "false", &default).unwrap(), Options::default(), "{name}");
    }
    for (name, value, complaint) in [
        (
            "align-by-socket",
            "true",
            "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided",
        ),
        ("nonsense", "true", "unknown CPU Manager Policy option: \"nonsense\""),
        ("full-pcpus-only", "yes", "bad value for option \"full-pcpus-only\""),
        ("distribute-cpus-across-cores", "true", "does not support"),
    ] {
        let refused = parse(name, value, &default).unwrap_err();
        assert!(refused.contains(complaint), "{refused}");
    }
    assert!(parse("align-by-socket", "1", &|_| true).unwrap().align_by_socket);
    assert!(parse("prefer-align-cpus-by-uncorecache", "true", &|_| false).unwrap().by_cache);
    let both =
        ["prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa"].map(|name| (name.into(), "true".into()));
    let why = Options::parse(&both.into(), |_| true).unwrap_err();
    assert!(why.ends_with("can not be used at the same time"), "{why}");
    assert!(parse("distribute-cpus-across-numa", "true", &|_| false).is_err());
}
