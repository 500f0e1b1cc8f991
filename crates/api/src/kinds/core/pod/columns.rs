//! What `kubectl get pods` shows.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::Column;
use crate::kinds::print::{NONE, age, human_duration, items, or_none, size};

pub(super) fn all() -> Vec<Column> {
    vec![
        Column::string("Ready", "Containers that are ready, of all.", |pod, _| summary(pod).ready()),
        Column::string("Status", "The state of the pod and its containers in a word.", |pod, _| {
            summary(pod).reason.into()
        }),
        Column::string("Restarts", "How often containers were restarted, and when last.", |pod, now| {
            summary(pod).restarts(now).into()
        }),
        age(),
        Column::string("IP", "The pod's address.", |pod, _| or_none(&pod["status"]["podIPs"][0]["ip"])).wide(),
        Column::string("Node", "The node it runs on.", |pod, _| or_none(&pod["spec"]["nodeName"])).wide(),
        Column::string("Nominated Node", "The node on which pods make way for it.", |pod, _| {
            or_none(&pod["status"]["nominatedNodeName"])
        })
        .wide(),
        Column::string("Readiness Gates", "Readiness gates that have passed, of all.", |pod, _| gates(pod)).wide(),
    ]
}

fn gates(pod: &Value) -> Value {
    let gates = &pod["spec"]["readinessGates"];
    if size(gates) == 0 {
        return NONE.into();
    }
    let passed = items(gates).filter(|gate| condition(pod, gate["conditionType"].as_str().unwrap_or_default())).count();
    format!("{passed}/{}", size(gates)).into()
}

fn condition(pod: &Value, kind: &str) -> bool {
    items(&pod["status"]["conditions"]).any(|c| c["type"] == kind && c["status"] == "True")
}

/// Everything the columns need, gathered in one pass over the containers' states.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or(0);
        let finished = status["lastState"]["terminated"]["finishedAt"].as_str();
        self.last = self.last.max(finished.and_then(|time| time.parse().ok()));
    }
}

impl Summary {
    fn ready(&self) -> Value {
        format!("{}/{}", self.ready, self.total).into()
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.restarts.last {
            Some(last) if self.restarts.count != 0 => {
                format!("{} ({} ago)", self.restarts.count, human_duration(now.as_second() - last.as_second()))
            }
            _ => self.restarts.count.to_string(),
        }
    }
}

fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = status["phase"].as_str().unwrap_or_default();
    let mut reason = match status["reason"].as_str() {
        None | Some("") => phase.to_string(),
        Some(reason) => reason.to_string(),
    };
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if items(&status["conditions"]).any(gated) {
        reason = "SchedulingGated".into();
    }
    let is_sidecar =
        |name: &Value| items(&spec["initContainers"]).any(|c| &c["name"] == name && c["restartPolicy"] == "Always");
    let sidecars = items(&spec["initContainers"]).filter(|c| c["restartPolicy"] == "Always").count();
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (index, container) in items(&status["initContainerStatuses"]).enumerate() {
        restarts.add(container);
        let sidecar = is_sidecar(&container["name"]);
        if sidecar {
            sidecar_restarts.add(container);
        }
        let state = &container["state"];
        if state["terminated"].is_object() && state["terminated"]["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        reason = if state["terminated"].is_object() {
            format!("Init:{}", end(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", size(&spec["initContainers"]))
        };
        initializing = true;
        break;
    }
    if !initializing || condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for container in items(&status["containerStatuses"]).rev() {
            restarts.add(container);
            let state = &container["state"];
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if state["terminated"].is_object() {
                reason = end(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        // One container has ended and others go on.
        if reason == "Completed" && running {
            reason = if condition(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            reason = "Unknown".into();
        } else if phase != "Succeeded" && phase != "Failed" {
            reason = "Terminating".into();
        }
    }
    Summary { reason, ready, total: size(&spec["containers"]) + sidecars, restarts }
}

/// Why a container ended.
fn end(terminated: &Value) -> String {
    let signal = terminated["signal"].as_i64().unwrap_or(0);
    match terminated["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.into(),
        _ if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
    }
}
