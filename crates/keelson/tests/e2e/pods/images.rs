//! What keeps containers from starting: images, configuration, the runtime.

use serde_json::json;

use super::EMPTY;
use super::render::{DONE, FAILED, unready};
use super::table::{Row, container, with};
use crate::e2e::BUSYBOX;

const LOST: &str = "c: ContainerStatusUnknown 137 \"The container could not be located when the pod was terminated\"";

pub(super) fn rows(runtime: &str) -> Vec<Row> {
    let image =
        |image: &str, policy: &str| json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]});
    let with_env =
        |env: serde_json::Value| json!({"containers": [with(container("c", "true"), json!({"env": [env]}))]});
    let pending = |waiting: &str| ["Pending".to_string(), unready("c"), format!("c: waiting ({waiting})")];
    let waits = |row: Row, waiting: &str| {
        let lines = pending(waiting);
        row.reads(&lines.each_ref().map(String::as_str))
    };
    let never = "Container image \"registry.test/none:1\" is not present with pull policy of Never";
    let invalid = "Failed to apply default image tag \"Nope\": couldn't parse image name \"Nope\": invalid reference format: repository name (library/Nope) must be lowercase";
    let far = "127.0.0.1:1/none:1";
    let created = "c: Pulled Created";
    let mut rows = vec![
        waits(Row::new("has-no-image", image("registry.test/none:1", "Never")), &format!("ErrImageNeverPull: {never}"))
            .events(&[&format!("c: !ErrImageNeverPull({never}) !Failed(Error: ErrImageNeverPull)")])
            .delete()
            .reads(&["Failed", FAILED, LOST])
            .gone(),
        waits(Row::new("has-no-image-name", image("Nope", "IfNotPresent")), &format!("InvalidImageName: {invalid}"))
            .events(&[&format!("c: !InspectFailed({invalid}) !Failed(Error: InvalidImageName)")]),
        waits(
            waits(Row::new("cannot-pull", image(far, "IfNotPresent")), "ErrImagePull: *"),
            &format!("ImagePullBackOff: Back-off pulling image \"{far}\": ErrImagePull: *"),
        )
        .events(&[&format!(
            "c: Pulling(Pulling image \"{far}\") !Failed(Failed to pull image \"{far}\": *) !Failed(Error: ErrImagePull) \
             BackOff(Back-off pulling image \"{far}\") !Failed(Error: ImagePullBackOff)"
        )])
        .delete()
        .reads(&["Failed", FAILED, LOST]),
        waits(
            Row::new("lacks-a-secret", with_env(json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}))),
            "CreateContainerConfigError: secret \"none\" not found",
        )
        .events(&["c: Pulled !Failed(Error: secret \"none\" not found)"]),
        waits(
            Row::new("lacks-a-key", with_env(json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "k"}}}))),
            "CreateContainerConfigError: couldn't find key k in ConfigMap default/kube-root-ca.crt",
        ),
        waits(
            Row::new("would-be-root", json!({"securityContext": {"runAsNonRoot": true}, "containers": [container("c", "true")]})),
            "CreateContainerConfigError: container has runAsNonRoot and image will run as root (pod: \"POD\", container: c)",
        ),
        waits(Row::new("has-no-command", json!({"containers": [{"name": "c", "image": EMPTY}]})), "CreateContainerError: *no command specified*"),
        Row::new("has-no-program", json!({"restartPolicy": "Never", "containers": [with(container("c", ""), json!({"command": ["/nope"]}))]}))
            .reads(&["Failed", FAILED, "c: StartError 128 \"*/nope*\""])
            .events(&[&format!("{created} !Failed(Error: *)")]),
        Row::new("has-no-program-ever", json!({"containers": [with(container("c", ""), json!({"command": ["/nope"]}))]}))
            .reads(&["Running", &unready("c"), "c: waiting (CrashLoopBackOff: back-off 10s restarting failed container=c pod=POD) restarts=1 last=StartError 128 \"*/nope*\""])
            .events(&[&format!("{created} !Failed(Error: *) !BackOff(Back-off restarting failed container c in pod POD)")]),
        Row::new("lacks-a-volume", json!({"volumes": [{"name": "v", "configMap": {"name": "none"}}], "containers": [
            with(container("c", "true"), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}))
        .reads(&["Pending", &format!("!{}", unready("c")), "c: waiting (ContainerCreating)"])
        .events(&["pod: !FailedMount(MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found)"])
        .delete()
        .reads(&["Failed", FAILED, LOST])
        .gone(),
    ];
    let volume = |reference: &str| json!([{"name": "v", "image": {"reference": reference, "pullPolicy": "Never"}}]);
    if runtime == "keelson" {
        let script = "{ cmp /v/bin/busybox /bin/busybox && cmp /part/busybox /bin/busybox && echo same; \
                      touch /v/x || /part/busybox true; echo $?; } > /dev/termination-log 2> /dev/null";
        let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/part", "subPath": "bin"}]);
        rows.push(
            Row::new(
                "mounts-an-image",
                json!({"restartPolicy": "Never", "volumes": volume(BUSYBOX), "containers": [
                with(container("c", script), json!({"volumeMounts": mounts}))]}),
            )
            .reads(&["Succeeded", DONE, "c: Completed 0 \"same\\n126\\n\""]),
        );
        rows.push(waits(
            Row::new(
                "mounts-no-image",
                json!({"volumes": volume("registry.test/none:1"), "containers": [
                with(container("c", "true"), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}),
            ),
            &format!("ErrImageNeverPull: {never}"),
        ));
    } else {
        // Debian's containerd is older than image volumes, and says so in its way.
        rows.push(waits(
            Row::new(
                "mounts-an-image-in-vain",
                json!({"volumes": volume(BUSYBOX), "containers": [
                with(container("c", "true"), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}),
            ),
            "CreateContainerError: *",
        ));
    }
    rows
}
