use serde_json::json;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn node(ready: &str, pressure: &str, unschedulable: bool) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "n", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"unschedulable": unschedulable, "taints": [{"key": "mine", "effect": "NoExecute"}]},
        "status": {"conditions": [
            {"type": "Ready", "status": ready}, {"type": "MemoryPressure", "status": pressure}
        ]}
    }))
    .unwrap()
}

/// Taints as `key:effect`, ours without their prefix.
fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().unwrap().taints.iter().flatten();
    let short = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
    taints.map(|taint| format!("{}:{}", short(&taint.key), taint.effect)).collect()
}

#[test]
fn taints_follow_conditions() {
    let check = |node: Node, evict, expected: &[&str]| {
        let after = tainted(&node, evict, now());
        assert_eq!(taints(&after), [&["mine:NoExecute"], expected].concat());
        assert_eq!(tainted(&after, evict, now()), after, "idempotent");
        after
    };
    check(node("True", "False", false), Some(true), &[]);
    check(node("True", "True", true), Some(true), &["memory-pressure:NoSchedule", "unschedulable:NoSchedule"]);
    check(node("False", "False", false), Some(false), &["not-ready:NoSchedule"]);
    let evicted = check(node("False", "False", false), Some(true), &["not-ready:NoSchedule", "not-ready:NoExecute"]);
    // Evicted stays evicted, since when it was, for another reason too.
    let mut unknown = evicted.clone();
    unknown.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".into();
    let later = now() + std::time::Duration::from_secs(100);
    let after = tainted(&unknown, Some(false), later);
    assert_eq!(taints(&after)[1..], ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(after.spec.as_ref().unwrap().taints.as_ref().unwrap()[2].time_added, Some(Time(now())));
    assert!(is_evicted(&after));
    // When the whole cluster is down it is rather us who cannot see.
    assert_eq!(taints(&tainted(&after, None, later))[1..], ["unreachable:NoSchedule"]);
    let mut well = after;
    well.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "True".into();
    assert_eq!(taints(&tainted(&well, Some(true), later)), ["mine:NoExecute"]);
}

#[test]
fn silence_makes_conditions_unknown() {
    let after = silenced(&node("True", "False", false), now());
    let shown: Vec<_> = after
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|c| format!("{} {} {}", c.type_, c.status, c.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            "Ready Unknown NodeStatusUnknown",
            "MemoryPressure Unknown NodeStatusUnknown",
            "DiskPressure Unknown NodeStatusNeverUpdated",
            "PIDPressure Unknown NodeStatusNeverUpdated",
        ]
    );
    let later = now() + std::time::Duration::from_secs(100);
    assert_eq!(silenced(&after, later), after, "idempotent");
}
