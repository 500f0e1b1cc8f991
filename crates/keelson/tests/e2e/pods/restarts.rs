//! Which containers start again, when, and what is said of those that wait.

use serde_json::json;

use super::render::{DONE, FAILED, UP, unready};
use super::table::{Row, container, fails_once_up, until_told, with};

pub(super) fn rows() -> Vec<Row> {
    let twice = |codes: [u8; 2], more: serde_json::Value| {
        let script = format!("[ -e /d/x ] && exit {}; touch /d/x; exit {}", codes[1], codes[0]);
        with(with(container("c", &script), json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]})), more)
    };
    let pod = |policy: &str, container: serde_json::Value| json!({"restartPolicy": policy, "volumes": [{"name": "d", "emptyDir": {}}], "containers": [container]});
    let rule = |operator: &str| json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]});
    let back_off = "waiting (CrashLoopBackOff: back-off 10s restarting failed container=c pod=POD)";
    vec![
        Row::new("crashes", json!({"containers": [container("c", "exit 1")]}))
            .reads(&["Running", &unready("c"), &format!("c: {back_off} restarts=1 last=Error 1")])
            .events(&["c: Pulled Created Started !BackOff(Back-off restarting failed container c in pod POD)"])
            .reads(&["Running", &unready("c"), "c: waiting (CrashLoopBackOff: back-off 20s restarting failed container=c pod=POD) restarts=2 last=Error 1"])
            .delete()
            // On a machine that is slow enough it has started once more before it is deleted.
            .reads(&["Failed", FAILED, "c: Error 1 restarts=* last=Error 1"])
            .gone(),
        Row::new("completes-again-and-again", json!({"containers": [container("c", "exit 0")]}))
            .reads(&["Running", &unready("c"), &format!("c: {back_off} restarts=1 last=Completed 0")])
            .delete()
            .reads(&["Succeeded", DONE, "c: Completed 0 restarts=1 last=Completed 0"]),
        Row::new("succeeds-in-the-end", pod("OnFailure", twice([4, 0], json!({}))))
            .reads(&["Succeeded", DONE, "c: Completed 0 restarts=1 last=Error 4"])
            .events(&["c: Pulled Created Started"]),
        Row::new("keeps-rules-of-its-own", pod("Never", twice([42, 7], rule("In"))))
            .reads(&["Failed", FAILED, "c: Error 7 restarts=1 last=Error 42"]),
        Row::new("keeps-rules-the-other-way", pod("Never", twice([7, 42], rule("NotIn"))))
            .reads(&["Failed", FAILED, "c: Error 42 restarts=1 last=Error 7"]),
        Row::new("has-a-policy-of-its-own", pod("Never", twice([1, 0], json!({"restartPolicy": "OnFailure"}))))
            .reads(&["Succeeded", DONE, "c: Completed 0 restarts=1 last=Error 1"]),
        Row::new("stays-dead-beside-the-living", json!({"containers": [
            with(container("a", "exit 6"), json!({"restartPolicy": "Never"})), container("b", &until_told("", 0))]}))
        .reads(&["Running", &unready("a"), "a: Error 6", "b: running ready started"])
        .up("b")
        .delete()
        .reads(&["Failed", FAILED, "a: Error 6", "b: Completed 0"]),
        Row::new("cannot-greet-again", json!({"terminationGracePeriodSeconds": 20, "containers": [with(
            container("c", &until_told("", 9)),
            json!({"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", format!("echo no; {}", fails_once_up(5))]}}}})
        )]}))
        .reads(&["Running", &unready("c"), &format!("c: {back_off} restarts=1 last=Error 9")])
        .events(&["c: Pulled Created Started !FailedPostStartHook(PostStartHook failed) Killing(FailedPostStartHook) !BackOff(Back-off restarting failed container c in pod POD)"]),
        Row::new("is-given-another-image", json!({"containers": [with(container("c", &until_told("", 0)), json!({"imagePullPolicy": "Never"}))]}))
            .reads(&["Running", UP, "c: running ready started"])
            .up("c")
            .patch("", json!({"spec": {"containers": [{"name": "c", "image": "registry.test/none:1"}]}}))
            .events(&["c: Pulled Created Started Killing(Container c definition changed, will be restarted) !ErrImageNeverPull(Container image \"registry.test/none:1\" is not present with pull policy of Never) !Failed(Error: ErrImageNeverPull)"])
            .reads(&["Running", &unready("c"), "c: waiting (ErrImageNeverPull: Container image \"registry.test/none:1\" is not present with pull policy of Never) last=Completed 0"]),
    ]
}
