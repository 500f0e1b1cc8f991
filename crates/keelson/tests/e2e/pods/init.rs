//! Init containers, sidecars (init containers that go on) and ephemeral containers.

use serde_json::json;

use super::render::{DONE, FAILED, UP, uninitialized, unready};
use super::table::{Row, container, deaf, until_sent, until_told, with};
use crate::e2e::BUSYBOX;

pub(super) fn rows() -> Vec<Row> {
    let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let on_disk = |name: &str, script: &str| with(container(name, script), mounts.clone());
    let sidecar = |name: &str, script: &str| with(on_disk(name, script), json!({"restartPolicy": "Always"}));
    let pod = |policy: &str, init: serde_json::Value, containers: serde_json::Value| {
        json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20, "volumes": [{"name": "d", "emptyDir": {}}],
            "initContainers": init, "containers": containers})
    };
    let company = "until [ -e /d/up ]; do sleep 0.1; done";
    let plain = "Pulled Created Started";
    vec![
        Row::new("begins-in-order", pod(
            "Never",
            json!([on_disk("z", "sleep 1; echo -n z >> /d/f"), on_disk("i", "echo -n i >> /d/f")]),
            json!([on_disk("c", "cat /d/f > /dev/termination-log")]),
        ))
        .reads(&["Succeeded", DONE, "z: Completed 0 ready", "i: Completed 0 ready", "c: Completed 0 \"zi\""])
        .events(&[&format!("c: {plain}"), &format!("i: {plain}"), &format!("z: {plain}")]),
        Row::new("waits-for-its-beginning", pod("Always", json!([on_disk("i", &until_told("", 3))]), json!([container("c", "true")])))
            .reads(&["Pending", &uninitialized("i", "c"), "i: running started", "c: waiting (PodInitializing)"])
            .up("i")
            .delete()
            .reads(&["Failed", &uninitialized("i", "c").replace("PodReady", "!PodReady").replace("ContainersNotReady: containers with unready status: [c]", "PodFailed"),
                "i: Error 3", "c: waiting (PodInitializing)"])
            .events(&[&format!("i: {plain} Killing")]),
        Row::new("fails-to-begin", pod("Never", json!([on_disk("i", "exit 1"), on_disk("j", "true")]), json!([container("c", "true")])))
            .reads(&["Failed", &uninitialized("i j", "c").replace("PodReady", "!PodReady").replace("ContainersNotReady: containers with unready status: [c]", "PodFailed"),
                "i: Error 1", "j: waiting (PodInitializing)", "c: waiting (PodInitializing)"])
            .events(&[&format!("i: {plain}")]),
        Row::new("fails-to-begin-again", pod("Always", json!([on_disk("i", "exit 1")]), json!([container("c", "true")])))
            .reads(&["Pending", &uninitialized("i", "c"),
                "i: waiting (CrashLoopBackOff: back-off 10s restarting failed container=i pod=POD) restarts=1 last=Error 1", "c: waiting (PodInitializing)"])
            .events(&[&format!("i: {plain} !BackOff(Back-off restarting failed container i in pod POD)")]),
        Row::new("begins-at-the-second-try", pod("OnFailure",
            json!([on_disk("i", "[ -e /d/x ] && exit 0; touch /d/x; exit 2")]), json!([container("c", "exit 0")])))
        .reads(&["Succeeded", DONE, "i: Completed 0 ready restarts=1 last=Error 2", "c: Completed 0"]),
        Row::new("begins-by-a-rule", pod("Never",
            json!([with(on_disk("i", "[ -e /d/x ] && exit 0; touch /d/x; exit 2"), json!({"restartPolicy": "Never",
                "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [2]}}]}))]),
            json!([container("c", "exit 0")])))
        .reads(&["Succeeded", DONE, "i: Completed 0 ready restarts=1 last=Error 2", "c: Completed 0"]),
        Row::new("has-company", pod("Never",
            json!([sidecar("s", &until_sent("TERM", "/d/up", "[ -e /d/done ] && echo -n after > /dev/termination-log;", 0)), on_disk("i", "true")]),
            json!([on_disk("c", &format!("{company}; touch /d/done"))])))
        .reads(&["Succeeded", DONE, "s: Completed 0 \"after\"", "i: Completed 0 ready", "c: Completed 0"])
        .events(&[&format!("c: {plain}"), &format!("i: {plain}"), &format!("s: {plain} Killing")]),
        Row::new("ends-its-company-last", pod("Always",
            json!([
                sidecar("s", &until_told("echo -n s >> /d/f; cat /d/f > /dev/termination-log;", 0)),
                sidecar("t", &until_told("echo -n t >> /d/f;", 0)),
            ]),
            json!([on_disk("c", &until_told("echo -n c >> /d/f;", 0))])))
        .reads(&["Running", UP, "s: running ready started", "t: running ready started", "c: running ready started"])
        .up("s")
        .up("t")
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "s: Completed 0 \"cts\"", "t: Completed 0", "c: Completed 0"])
        .gone(),
        Row::new("waits-for-its-company", pod("Always",
            json!([with(sidecar("s", "sleep 2; touch /d/up; exec sleep 3600"), json!({"startupProbe": {"exec": {"command": ["test", "-e", "/d/up"]}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 99}}))]),
            json!([on_disk("c", &until_told("", 0))])))
        .reads(&["Pending", &uninitialized("s", "s c"), "s: running", "c: waiting (PodInitializing)"])
        .reads(&["Running", UP, "s: running ready started", "c: running ready started"]),
        Row::new("loses-its-company", pod("Never", json!([sidecar("s", "[ -e /d/x ] && echo up && exec sleep 3600; touch /d/x; exit 0")]), json!([container("c", &until_told("", 0))])))
            .reads(&["Running", UP, "s: running ready started restarts=1 last=Completed 0", "c: running ready started"])
            .up("s")
            .up("c")
            .delete()
            .reads(&["Succeeded", DONE, "s: Error 137 restarts=1 last=Completed 0", "c: Completed 0"]),
        Row::new("is-visited", json!({"containers": [container("c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done")]}))
            .reads(&["Running", UP, "c: running ready started"])
            .up("c")
            .patch("ephemeralcontainers", json!({"spec": {"ephemeralContainers": [
                {"name": "e", "image": BUSYBOX, "command": ["sh", "-c", "grep -c '[w]hile' /proc/1/cmdline > /dev/termination-log; exit 3"], "targetContainerName": "c"}]}}))
            .reads(&["Running", UP, "c: running ready started", "e: Error 3 \"1\\n\""])
            .events(&[&format!("c: {plain}"), &format!("e: {plain}")])
            .delete()
            .reads(&["Succeeded", DONE, "c: Completed 0", "e: Error 3 \"1\\n\""]),
        Row::new("is-visited-before-it-begins", pod("Always", json!([on_disk("i", "exec sleep 3600")]), json!([container("c", "true")])))
            .reads(&["Pending", &uninitialized("i", "c"), "i: running started", "c: waiting (PodInitializing)"])
            .patch("ephemeralcontainers", json!({"spec": {"ephemeralContainers": [{"name": "e", "image": BUSYBOX, "command": ["true"]}]}}))
            .reads(&["Pending", &uninitialized("i", "c"), "i: running started", "c: waiting (PodInitializing)", "e: Completed 0"]),
        Row::new("has-an-unready-companion", pod("Always",
            json!([with(sidecar("s", deaf()), json!({"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "timeoutSeconds": 60}}))]),
            json!([container("c", &until_told("", 0))])))
        .reads(&["Running", &unready("s"), "s: running started", "c: running ready started"])
        .up("s")
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "s: Error 137", "c: Completed 0"]),
        Row::new("fails-with-company", pod("Never", json!([sidecar("s", &until_sent("TERM", "/d/up", "", 0))]), json!([on_disk("c", &format!("{company}; exit 8"))])))
            .reads(&["Failed", FAILED, "s: Completed 0", "c: Error 8"]),
    ]
}
