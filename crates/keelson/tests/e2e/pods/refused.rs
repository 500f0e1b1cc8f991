//! Pods that a node does not take, though they are bound to it.

use serde_json::{Value, json};

use super::render::UP;
use super::table::{Row, container, until_told, with};

pub(super) fn rows(node: &str) -> Vec<Row> {
    let bound = |more: Value| {
        let spec =
            json!({"nodeName": node, "tolerations": [{"operator": "Exists"}], "containers": [container("c", "true")]});
        with(spec, more)
    };
    let requests = |resource: &str, amount: &str| json!({"containers": [with(container("c", "true"), json!({"resources": {"requests": {resource: amount}}}))]});
    let room = |resource: &str, amount: &str| {
        format!("Node didn't have enough resource: {resource}, requested: {amount}, used: *, capacity: *")
    };
    let affinity = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let ports = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    let refused = |name: &str, spec: Value, reason: &str, why: &str| {
        Row::new(name, bound(spec))
            .reads(&[&format!("Failed({reason}: Pod was rejected: {why})"), ""])
            .events(&[&format!("pod: !{reason}({why})")])
            .delete()
            .gone()
    };
    let port = json!({"ports": [{"containerPort": 80, "hostPort": 7999, "hostIP": "127.0.0.1"}]});
    vec![
        refused("asks-for-too-much-cpu", requests("cpu", "1000"), "OutOfcpu", &room("cpu", "1000000")),
        refused(
            "asks-for-too-much-memory",
            requests("memory", "1Pi"),
            "OutOfmemory",
            &room("memory", "1125899906842624"),
        ),
        refused("wants-another-node", json!({"nodeSelector": {"disk": "tape"}}), "NodeAffinity", affinity),
        Row::new(
            "has-a-port-of-the-node",
            bound(json!({"containers": [with(container("c", &until_told("", 0)), port.clone())]})),
        )
        .reads(&["Running", UP, "c: running ready started"])
        .shell(&format!(
            "kubectl run wants-the-same-port --image registry.test/busybox:1 --overrides '{}' && \
                 kubectl wait pod wants-the-same-port --for jsonpath='{{.status.phase}}'=Failed --timeout 60s && \
                 said=$(kubectl get pod wants-the-same-port -o jsonpath='{{.status.reason}}: {{.status.message}}') && \
                 [ \"$said\" = \"NodePorts: Pod was rejected: {}\" ] && \
                 kubectl delete pod wants-the-same-port",
            json!({"spec": bound(json!({"containers": [with(container("wants-the-same-port", "true"), port)]}))}),
            ports
        )),
    ]
}
