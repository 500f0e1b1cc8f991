use super::*;
use crate::plugins::{ScoringStrategy, default_profile};
use crate::testing::{node, pod, pod_with};
use serde_json::{Value, json};

fn cache(nodes: &[(&str, Value)]) -> Cache {
    let mut cache = Cache::default();
    for (name, extra) in nodes {
        cache.set_node(&node(name, extra.clone()));
    }
    cache
}

fn run(cache: &Cache, pod: &PodInfo) -> Result<String, String> {
    run_with(cache, pod, ScoringStrategy::LeastAllocated)
}

fn run_with(cache: &Cache, pod: &PodInfo, strategy: ScoringStrategy) -> Result<String, String> {
    let profile = default_profile("default-scheduler", strategy);
    schedule(&profile, cache, pod, &mut Cursor::default(), |_| 0).map(|n| n.name.clone()).map_err(|e| e.to_string())
}

#[test]
fn reasons_are_in_upstreams_words() {
    let nodes = [
        ("small", json!({"status": {"allocatable": {"cpu": "500m", "memory": "1Gi", "pods": "110"}}})),
        ("cordoned", json!({"spec": {"unschedulable": true}})),
        ("tainted", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
        ("full", json!({"status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "0"}}})),
    ];
    let error = run(&cache(&nodes), &pod("p", json!({"cpu": "1", "memory": "2Gi", "example.com/x": "1"}))).unwrap_err();
    assert_eq!(
        error,
        "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
         1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient example.com/x."
    );
    assert_eq!(run(&cache(&[]), &pod("p", json!({}))).unwrap_err(), "no nodes available to schedule pods");
}

#[test]
fn selectors_affinity_and_names() {
    let nodes = [
        ("a", json!({"metadata": {"labels": {"disk": "ssd", "n": "3"}}})),
        ("b", json!({"metadata": {"labels": {"disk": "hdd", "n": "9"}}})),
    ];
    let cache = cache(&nodes);
    let affinity = |term: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
    };
    let expression = |key: &str, operator: &str, value: &str| {
        affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]}))
    };
    let none = Err("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.".to_string());
    for (spec, expected) in [
        (json!({"nodeSelector": {"disk": "hdd"}}), Ok("b".to_string())),
        (json!({"nodeSelector": {"disk": "tape"}}), none.clone()),
        (expression("disk", "In", "ssd"), Ok("a".into())),
        (expression("disk", "NotIn", "ssd"), Ok("b".into())),
        (expression("n", "Gt", "5"), Ok("b".into())),
        (affinity(json!({})), none.clone()),
        (
            affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
            Ok("b".into()),
        ),
        (
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
                {"weight": 10, "preference": {"matchExpressions": [{"key": "n", "operator": "Lt", "values": ["5"]}]}},
            ]}}}),
            Ok("a".into()),
        ),
    ] {
        assert_eq!(run(&cache, &pod_with("p", spec.clone())), expected, "{spec}");
    }
}

#[test]
fn taints_and_tolerations() {
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let nodes = [("a", taint("NoSchedule"))];
    let tolerating = |t: Value| pod_with("p", json!({"tolerations": [t]}));
    for (toleration, ok) in [
        (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
        (json!({"key": "k", "value": "v"}), true),
        (json!({"key": "k", "operator": "Exists"}), true),
        (json!({"operator": "Exists"}), true),
        (json!({"key": "k", "value": "w"}), false),
        (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
        (json!({"key": "j", "operator": "Exists"}), false),
    ] {
        assert_eq!(run(&cache(&nodes), &tolerating(toleration.clone())).is_ok(), ok, "{toleration}");
    }
    // PreferNoSchedule only makes a node the second choice.
    let soft = [("a", taint("PreferNoSchedule")), ("b", json!({}))];
    assert_eq!(run(&cache(&soft), &pod("p", json!({}))), Ok("b".into()));
    assert_eq!(run(&cache(&soft[..1]), &pod("p", json!({}))), Ok("a".into()));
}

#[test]
fn host_ports_are_had_once() {
    let mut cache = cache(&[("a", json!({}))]);
    let web =
        |name| pod_with(name, json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}));
    cache.assume(web("p"), "a");
    let none = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(run(&cache, &web("q")).unwrap_err(), none);
    cache.remove_pod("p");
    assert_eq!(run(&cache, &web("q")), Ok("a".into()));
}

#[test]
fn least_allocated_spreads_and_most_allocated_packs() {
    let mut cache = cache(&[("a", json!({})), ("b", json!({}))]);
    cache.assume(pod("p", json!({"cpu": "1", "memory": "1Gi"})), "a");
    let next = pod("q", json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(run_with(&cache, &next, ScoringStrategy::LeastAllocated), Ok("b".into()));
    assert_eq!(run_with(&cache, &next, ScoringStrategy::MostAllocated), Ok("a".into()));
}

#[test]
fn balance_and_images_decide_among_equals() {
    let mut cache = cache(&[("a", json!({})), ("b", json!({}))]);
    cache.assume(pod("p", json!({"cpu": "2"})), "a");
    cache.assume(pod("q", json!({"memory": "2Gi"})), "b");
    assert_eq!(run(&cache, &pod("r", json!({"memory": "2Gi"}))), Ok("a".into()), "CPU is used there, memory is free");

    let images = json!({"status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
        "images": [{"names": ["big:latest"], "sizeBytes": 900 << 20}]}});
    let cache = self::cache(&[("a", json!({})), ("b", images)]);
    let spec = json!({"containers": [{"name": "c", "image": "big"}]});
    assert_eq!(run(&cache, &pod_with("p", spec)), Ok("b".into()));
}

#[test]
fn large_clusters_are_sampled_and_every_node_has_its_turn() {
    let names: Vec<String> = (0..1000).map(|i| format!("n{i}")).collect();
    let nodes: Vec<(&str, Value)> = names.iter().map(|n| (n.as_str(), json!({}))).collect();
    let cache = cache(&nodes);
    let profile = default_profile("default-scheduler", ScoringStrategy::LeastAllocated);
    let (mut cursor, mut starts) = (Cursor::default(), Vec::new());
    for _ in 0..4 {
        starts.push(cursor.0);
        schedule(&profile, &cache, &pod("p", json!({})), &mut cursor, |_| 0).unwrap();
    }
    // 50 % - 1000/125 % = 42 % of 1,000 nodes each time.
    assert_eq!(starts, [0, 420, 840, 260]);
}
