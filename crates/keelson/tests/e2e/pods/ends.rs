//! How pods end: by themselves, on request, by deadline; hooks, grace, last words.

use serde_json::json;

use super::render::{DONE, FAILED, UP, unready};
use super::table::{Row, container, deaf, fails_once_up, until_sent, until_told, with};

pub(super) fn rows(runtime: &str) -> Vec<Row> {
    let never = |script: &str| json!({"restartPolicy": "Never", "containers": [container("c", script)]});
    let always = |script: &str| json!({"containers": [container("c", script)]});
    let hooked = |script: &str, lifecycle: serde_json::Value| {
        json!({"terminationGracePeriodSeconds": 20, "volumes": [{"name": "d", "emptyDir": {}}], "containers": [with(
            container("c", script),
            json!({"lifecycle": lifecycle, "volumeMounts": [{"name": "d", "mountPath": "/d"}]})
        )]})
    };
    let running = ["Running", UP, "c: running ready started"];
    let plain = "c: Pulled Created Started";
    let stopped = "c: Pulled Created Started Killing";
    let signalled = Row::new(
        "has-a-signal-of-its-own",
        json!({"os": {"name": "linux"}, "terminationGracePeriodSeconds": 30, "containers": [with(
            container("c", &until_sent("USR1", "/up", "", 0)),
            json!({"lifecycle": {"stopSignal": "SIGUSR1"}})
        )]}),
    );
    let signalled = if runtime == "keelson" {
        signalled.reads(&running).up("c").delete().within(20).reads(&["Succeeded", DONE, "c: Completed 0"]).gone()
    } else {
        let why = "lifecycle.stopSignal of container \"c\" is not supported by the container runtime containerd";
        signalled.reads(&["Pending", &unready("c"), &format!("c: waiting (CreateContainerConfigError: {why})")])
    };
    vec![
        signalled,
        Row::new("succeeds", never("exit 0")).reads(&["Succeeded", DONE, "c: Completed 0"]).events(&[plain]),
        Row::new("fails", never("exit 3")).reads(&["Failed", FAILED, "c: Error 3"]).events(&[plain]),
        Row::new("is-killed-by-a-signal", never("kill -9 $$; sleep 9 & kill -KILL $!; exit 137"))
            .reads(&["Failed", FAILED, "c: Error 137"]),
        Row::new("obeys", json!({"terminationGracePeriodSeconds": 30, "containers": [container("c", &until_told("", 0))]}))
            .reads(&running)
            .up("c")
            .delete()
            .within(20)
            .reads(&["Succeeded", DONE, "c: Completed 0"])
            .gone()
            .events(&[stopped]),
        Row::new("obeys-with-an-error", always(&until_told("", 7)))
            .reads(&running)
            .up("c")
            .delete()
            .reads(&["Failed", FAILED, "c: Error 7"])
            .gone()
            .events(&[stopped]),
        Row::new("does-not-listen", json!({"containers": [container("c", deaf())]}))
            .reads(&running)
            .up("c")
            .delete()
            .reads(&["Failed", FAILED, "c: Error 137"])
            .gone()
            .events(&[stopped]),
        Row::new("is-given-a-shorter-grace", json!({"terminationGracePeriodSeconds": 3600,
            "containers": [container("c", deaf())]}))
        .reads(&running)
        .up("c")
        .delete()
        .delete_within(1)
        .within(30)
        .reads(&["Failed", FAILED, "c: Error 137"])
        .gone()
        .events(&[stopped]),
        Row::new("has-a-deadline", always(&until_told("", 0)))
            .reads(&running)
            .up("c")
            .patch("", json!({"spec": {"activeDeadlineSeconds": 1}}))
            .reads(&[
                "Failed(DeadlineExceeded: Pod was active on the node longer than the specified deadline)",
                FAILED,
                "c: Completed 0",
            ])
            .events(&[stopped, "pod: DeadlineExceeded(Pod was active on the node longer than the specified deadline)"]),
        Row::new("leaves-a-message", never("echo -n farewell > /dev/termination-log; exit 1"))
            .reads(&["Failed", FAILED, "c: Error 1 \"farewell\""]),
        Row::new("leaves-a-message-elsewhere", json!({"restartPolicy": "Never", "containers": [
            with(container("c", "echo -n farewell > /tmp/last"), json!({"terminationMessagePath": "/tmp/last"}))]}))
        .reads(&["Succeeded", DONE, "c: Completed 0 \"farewell\""]),
        Row::new("leaves-its-log", json!({"restartPolicy": "Never", "containers": [with(
            container("c", "echo one; echo two; exit 1"),
            json!({"terminationMessagePolicy": "FallbackToLogsOnError"})
        )]}))
        .reads(&["Failed", FAILED, "c: Error 1 \"one\\ntwo\\n\""]),
        Row::new("keeps-its-log-for-itself", json!({"restartPolicy": "Never", "containers": [with(
            container("c", "echo one; exit 0"),
            json!({"terminationMessagePolicy": "FallbackToLogsOnError"})
        )]}))
        .reads(&["Succeeded", DONE, "c: Completed 0"]),
        // Not at once: containerd's shim listens for the kernel's word only after the start, and tells of no kill before.
        Row::new("runs-out-of-memory", json!({"restartPolicy": "Never", "containers": [with(
            container("c", "until [ -e /go ]; do sleep 0.1; done; sleep 1; exec tail /dev/zero"),
            json!({"resources": {"limits": {"memory": "64Mi"}}})
        )]}))
        .reads(&running)
        .shell("kubectl exec NAME -- touch /go")
        .reads(&["Failed", FAILED, "c: OOMKilled 137"])
        .events(&[plain]),
        Row::new("greets-and-takes-leave", hooked(
            &until_told("cat /d/* > /dev/termination-log;", 0),
            json!({"postStart": {"exec": {"command": ["sh", "-c", "echo -n hello > /d/1"]}},
                "preStop": {"exec": {"command": ["sh", "-c", "echo -n ', goodbye' > /d/2"]}}}),
        ))
        .reads(&running)
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "c: Completed 0 \"hello, goodbye\""])
        .events(&[stopped]),
        Row::new("is-asked-to-leave-by-http", hooked(
            "(until grep -q ':1F90 ' /proc/net/tcp*; do sleep 0.1; done; echo up) & nc -l -p 8080 -e sh -c 'read a; echo -n $a > /dev/termination-log; printf \"HTTP/1.1 500 No\\r\\n\\r\\n\"'; exec sleep 1",
            json!({"preStop": {"httpGet": {"port": 8080, "path": "/bye?now"}}}),
        ))
        .reads(&running)
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "c: Completed 0 \"GET /bye?now HTTP/1.1\\r\""])
        .events(&[stopped]),
        Row::new("sleeps-before-it-leaves", hooked(
            "date +%s > /d/0; trap 'echo $(($(date +%s) - $(cat /d/0))) > /d/1; [ $(cat /d/1) -ge 2 ]; exit $?' TERM; sleep 3600 & echo up; wait",
            json!({"postStart": {"sleep": {"seconds": 1}}, "preStop": {"sleep": {"seconds": 2}}}),
        ))
        .reads(&running)
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "c: Completed 0"])
        .events(&[stopped]),
        Row::new("cannot-take-leave", hooked(
            &until_told("", 0),
            json!({"preStop": {"exec": {"command": ["sh", "-c", "exit 4"]}}}),
        ))
        .reads(&running)
        .up("c")
        .delete()
        .reads(&["Succeeded", DONE, "c: Completed 0"])
        .events(&["c: Pulled Created Started Killing !FailedPreStopHook(PreStopHook failed)"]),
        Row::new("takes-too-long-a-leave", json!({"terminationGracePeriodSeconds": 2, "containers": [with(
            container("c", deaf()),
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}})
        )]}))
        .reads(&running)
        .up("c")
        .delete()
        .within(40)
        .reads(&["Failed", FAILED, "c: Error 137"])
        .gone(),
        Row::new("cannot-greet", json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 20,
            "containers": [with(
                container("c", &until_told("", 9)),
                json!({"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", fails_once_up(5)]}}}})
            )]}))
        .reads(&["Failed", FAILED, "c: Error 9"])
        .events(&[
            "c: Pulled Created Started !FailedPostStartHook(PostStartHook failed) Killing(FailedPostStartHook)",
        ]),
        Row::new("has-one-of-two-left", json!({"restartPolicy": "Never",
            "containers": [container("a", "exit 2"), container("b", &until_told("", 0))]}))
        .reads(&["Running", &unready("a"), "a: Error 2", "b: running ready started"])
        .up("b")
        .delete()
        .reads(&["Failed", FAILED, "a: Error 2", "b: Completed 0"])
        .events(&["a: Pulled Created Started", "b: Pulled Created Started Killing"]),
    ]
}
