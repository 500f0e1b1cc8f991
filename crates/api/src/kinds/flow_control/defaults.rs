//! The flow schemas and priority levels that every cluster has: two of each must be as they are here, the rest is a
//! suggestion.

use serde_json::{Value, json};

/// Objects so annotated (`"true"`) follow this version's suggestion.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const EVERYBODY: [&str; 2] = ["group:system:unauthenticated", "group:system:authenticated"];
const MANAGER: &str = "user:system:kube-controller-manager";
const SCHEDULER: &str = "user:system:kube-scheduler";

/// What must be as it is.
pub fn mandatory() -> Vec<Value> {
    let mut all = vec![
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        level(
            "catch-all",
            json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
            }}),
        ),
    ];
    all.push(schema("exempt", "exempt", 1, None, everything(&["group:system:masters"])));
    all.push(schema("catch-all", "catch-all", 10_000, Some("ByUser"), everything(&EVERYBODY)));
    all
}

/// What upstream suggests.
pub fn suggested() -> Vec<Value> {
    // Name, shares, percent that others may borrow, queues, hand size.
    let levels = [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ];
    let mut all: Vec<Value> = levels
        .into_iter()
        .map(|(name, shares, lendable, queues, hand_size)| {
            let queuing = json!({"queues": queues, "handSize": hand_size, "queueLengthLimit": 50});
            level(
                name,
                json!({"type": "Limited", "limited": {
                    "nominalConcurrencyShares": shares, "lendablePercent": lendable,
                    "limitResponse": {"type": "Queue", "queuing": queuing},
                }}),
            )
        })
        .collect();
    let nodes = &["group:system:nodes"];
    let leases = rule(&["*"], "coordination.k8s.io", &["leases"], false);
    let node_high = rules(nodes, vec![rule(&["*"], "", &["nodes", "nodes/status"], true), leases], Vec::new());
    let probes = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]});
    let election = || rule(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);
    let accounts = "account:*";
    let endpoints = rule(&["get", "create", "update"], "", &["endpoints"], false);
    let endpoint_users = [MANAGER, "account:endpoint-controller", "account:endpointslicemirroring-controller"];
    let by = |kind| Some(kind);
    let (user, namespace) = (by("ByUser"), by("ByNamespace"));
    all.extend([
        schema("system-nodes", "system", 500, user, everything(nodes)),
        schema("system-node-high", "node-high", 400, user, node_high),
        schema("probes", "exempt", 2, None, rules(&EVERYBODY, Vec::new(), vec![probes])),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            user,
            rules(&[MANAGER, SCHEDULER, accounts], vec![election()], Vec::new()),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            user,
            rules(&[accounts], vec![election()], Vec::new()),
        ),
        schema("endpoint-controller", "workload-high", 150, user, rules(&endpoint_users, vec![endpoints], Vec::new())),
        schema("kube-controller-manager", "workload-high", 800, namespace, everything(&[MANAGER])),
        schema("kube-scheduler", "workload-high", 800, namespace, everything(&[SCHEDULER])),
        schema("kube-system-service-accounts", "workload-high", 900, namespace, everything(&[accounts])),
        schema("service-accounts", "workload-low", 9_000, user, everything(&["group:system:serviceaccounts"])),
        schema("global-default", "global-default", 9_900, user, everything(&EVERYBODY)),
    ]);
    all
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind, "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec,
    })
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

fn schema(name: &str, level: &str, precedence: i32, distinguish: Option<&str>, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules],
    });
    if let Some(method) = distinguish {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

/// `group:name`, `user:name`, and `account:name` in kube-system.
fn subject(text: &&str) -> Value {
    let (kind, name) = text.split_once(':').unwrap_or(("", text));
    match kind {
        "group" => json!({"kind": "Group", "group": {"name": name}}),
        "user" => json!({"kind": "User", "user": {"name": name}}),
        _ => json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
    }
}

fn rules(subjects: &[&str], resources: Vec<Value>, urls: Vec<Value>) -> Value {
    let subjects: Vec<Value> = subjects.iter().map(subject).collect();
    let mut rules = json!({"subjects": subjects});
    for (field, list) in [("resourceRules", resources), ("nonResourceRules", urls)] {
        if !list.is_empty() {
            rules[field] = list.into();
        }
    }
    rules
}

fn rule(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// All that the subjects do.
fn everything(subjects: &[&str]) -> Value {
    rules(subjects, vec![rule(&["*"], "*", &["*"], true)], vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})])
}
