use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::topology::samples::machine;
use super::*;
use crate::config::file::MemoryReservation;

struct Place {
    dir: tempfile::TempDir,
    config: Config,
    topology: Topology,
}

/// Two sockets of four CPUs and 1 GiB each; 1 CPU and 200 MiB are the system's.
fn place(adjust: impl Fn(&mut Config)) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new("n", "127.0.0.1".parse().unwrap());
    config.root_dir = dir.path().into();
    config.cpu_manager_policy = "static".into();
    config.memory_manager_policy = "Static".into();
    config.eviction_hard = Default::default();
    let amount = |amount: &str| Quantity(amount.into());
    config.system_reserved = [("cpu".to_string(), amount("500m")), ("memory".to_string(), amount("200Mi"))].into();
    config.reserved_memory = [0, 1]
        .map(|numa_node| MemoryReservation { numa_node, limits: [("memory".to_string(), amount("100Mi"))].into() })
        .into();
    adjust(&mut config);
    Place { dir, config, topology: machine(2, 1, 4, 1) }
}

impl Place {
    fn managers(&self) -> Result<Managers, String> {
        let metrics = ManagerMetrics::new(&prometheus::Registry::new()).unwrap();
        let devices = Devices::new(self.dir.path());
        Managers::new(&self.config, self.topology.clone(), 2 << 30, devices, metrics).map_err(|error| error.to_string())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

fn pod(uid: &str, containers: &[(&str, &str)]) -> Pod {
    let one = |(index, (cpu, memory)): (usize, &(&str, &str))| {
        let limits = json!({"cpu": cpu, "memory": memory});
        json!({"name": format!("c{index}"), "resources": {"limits": limits, "requests": limits}})
    };
    let containers: Vec<_> = containers.iter().enumerate().map(one).collect();
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": containers}})).unwrap()
}

#[tokio::test]
async fn what_is_given_outlives_the_kubelet() {
    let place = place(|_| {});
    let managers = place.managers().unwrap();
    managers.admit(&pod("a", &[("2", "300Mi")])).await.unwrap();
    assert_eq!(managers.cpus_of("a", "c0").unwrap().to_string(), "1-2");
    assert_eq!((managers.memory_nodes("a", "c0").as_str(), managers.memory_nodes("b", "c0").as_str()), ("0", ""));
    assert_eq!(managers.cpus_of("b", "c0").unwrap().to_string(), "0,3-7");
    assert!(
        place
            .file("cpu_manager_state")
            .starts_with(r#"{"policyName":"static","defaultCpuSet":"0,3-7","entries":{"a":{"c0":"1-2"}},"checksum":"#)
    );
    drop(managers);
    let managers = place.managers().unwrap();
    assert_eq!(managers.pods(), ["a".to_string()].into());
    managers.admit(&pod("a", &[("2", "300Mi")])).await.unwrap();
    assert_eq!(managers.cpus_of("a", "c0").unwrap().to_string(), "1-2");
    managers.release("a").await;
    assert_eq!((managers.pods().len(), managers.shared().unwrap().to_string()), (0, "0-7".into()));
    assert_eq!(managers.allocatable().0.to_string(), "1-7");
    drop(managers);
    let mut other = place;
    other.config.cpu_manager_policy = "none".into();
    let refused = other.managers().err().unwrap();
    assert!(
        refused.starts_with(
            "start cpu manager error: could not restore state from checkpoint: configured policy \"none\" differs"
        ),
        "{refused}"
    );
    std::fs::remove_file(other.dir.path().join("cpu_manager_state")).unwrap();
    other.managers().unwrap();
    assert_eq!(other.file("cpu_manager_state"), r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#);
}

#[tokio::test]
async fn cpus_and_memory_lie_together_as_the_policy_says() {
    let with = |policy: &'static str, scope: &'static str| {
        place(move |config| {
            config.topology_manager_policy = policy.into();
            config.topology_manager_scope = scope.into();
        })
    };
    // Node 0 has three CPUs left, node 1 four; both have 924 MiB.
    for (policy, scope, containers, refused) in [
        ("none", "container", vec![("4", "1200Mi")], false),
        ("single-numa-node", "container", vec![("4", "900Mi")], false),
        ("single-numa-node", "container", vec![("5", "100Mi")], true),
        ("single-numa-node", "container", vec![("1", "1200Mi")], true),
        ("restricted", "container", vec![("5", "1200Mi")], false),
        ("restricted", "container", vec![("3", "900Mi"), ("4", "900Mi")], false),
        ("restricted", "container", vec![("3", "500Mi"), ("3", "500Mi"), ("1", "500Mi")], true),
        ("best-effort", "container", vec![("2", "500Mi"), ("2", "100Mi")], false),
        ("single-numa-node", "pod", vec![("2", "400Mi"), ("2", "400Mi")], false),
        ("single-numa-node", "pod", vec![("2", "400Mi"), ("3", "400Mi")], true),
    ] {
        let place = with(policy, scope);
        let managers = place.managers().unwrap();
        let result = managers.admit(&pod("p", &containers)).await;
        assert_eq!(result.is_err(), refused, "{policy} {scope} {containers:?} {result:?}");
        if let Err(ended) = result {
            assert_eq!(ended.reason, "TopologyAffinityError");
            assert_eq!(ended.message, "Resources cannot be allocated with Topology locality");
        } else if policy == "single-numa-node" {
            let nodes: BTreeSet<usize> = (0..containers.len())
                .flat_map(|index| managers.cpus_of("p", &format!("c{index}")).unwrap().iter().collect::<Vec<_>>())
                .map(|cpu| place.topology.cpus[&cpu].node)
                .collect();
            let memory = managers.memory_nodes("p", "c0");
            assert_eq!(nodes.iter().map(usize::to_string).collect::<Vec<_>>().join(","), memory, "{containers:?}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let check = |adjust: fn(&mut Config), complaint: &str| {
        let refused = place(adjust).managers().err().unwrap_or_else(|| panic!("{complaint:?} is accepted"));
        assert!(refused.contains(complaint), "{refused}");
    };
    check(
        |config| drop(config.system_reserved.remove("cpu")),
        "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero",
    );
    check(
        |config| drop(config.cpu_manager_policy_options.insert("align-by-socket".into(), "true".into())),
        "cpuManagerPolicyOptions: CPU Manager Policy Alpha-level Options not enabled",
    );
    check(|config| drop(config.reserved_memory.pop()), "reservedMemory: the total amount \"100Mi\" of type \"memory\"");
    check(
        |config| {
            config.cpu_manager_policy = "none".into();
            config.cpu_manager_policy_options.insert("full-pcpus-only".into(), "true".into());
        },
        "none policy: received unsupported options",
    );
    check(
        |config| drop(config.topology_manager_policy_options.insert("nonsense".into(), "true".into())),
        "unknown Topology Manager Policy option: \"nonsense\"",
    );
    let topology = machine(1, 1, 2, 1);
    assert_eq!(reserved_cpus("0-1", &topology).unwrap().len(), 2);
    let refused = reserved_cpus("1-2", &topology).unwrap_err().to_string();
    assert!(refused.contains("reserved-cpus: 1-2 is not a subset of online-cpus: 0-1"), "{refused}");
}
