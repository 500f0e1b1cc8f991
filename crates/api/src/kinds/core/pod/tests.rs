use serde_json::{Value, json};

use crate::kind::Write;
use crate::kinds::testing::{check_row, check_write, created, kind, with};

mod rules;

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

/// A pod with one container that has these fields.
fn container(fields: Value) -> Value {
    let mut pod = pod();
    json_patch::merge(&mut pod["spec"]["containers"][0], &fields);
    pod
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check("v1 Pod", with(&pod(), json!({"spec": patch})), expected);
}

#[track_caller]
fn check_container(fields: Value, expected: &[&str]) {
    crate::kinds::testing::check("v1 Pod", container(fields), expected);
}

#[test]
fn defaults() {
    let made = created("v1 Pod", pod());
    assert_eq!(
        made,
        json!({
            "metadata": {"name": "p", "namespace": "d", "generation": 1},
            "spec": {
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        })
    );
}

#[test]
fn container_defaults() {
    let made = created(
        "v1 Pod",
        with(
            &container(json!({
                "image": "nginx:1.2", "ports": [{"containerPort": 80}], "stdin": false, "args": [],
                "env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "readinessProbe": {"grpc": {"port": 1}},
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            })),
            json!({"spec": {"hostNetwork": true, "volumes": [
                {"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "hostPath": {"path": "/"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ]}}),
        ),
    );
    let spec = &made["spec"];
    assert_eq!(
        spec["containers"][0],
        json!({
            "name": "c", "image": "nginx:1.2", "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "readinessProbe": {"grpc": {"port": 1, "service": ""}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    );
    assert_eq!(
        spec["volumes"],
        json!([
            {"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "c", "hostPath": {"path": "/", "type": ""}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
        ])
    );
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
}

#[test]
fn pull_policies() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
    ] {
        let made = created("v1 Pod", container(json!({"image": image})));
        assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn rules_of_a_spec() {
    check(json!({}), &[]);
    check(
        json!({"hostUsers": false, "hostNetwork": true, "hostPID": true}),
        &[
            "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false",
            "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
        ],
    );
    check(json!({"containers": null}), &["spec.containers: Required value"]);
    check(
        json!({"restartPolicy": "Sometimes"}),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        json!({"dnsPolicy": "X"}),
        &[
            "spec.dnsPolicy: Unsupported value: \"X\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
        ],
    );
    check(
        json!({"dnsPolicy": "None"}),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check(
        json!({"activeDeadlineSeconds": 0}),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        json!({"shareProcessNamespace": true, "hostPID": true}),
        &["spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"],
    );
    check(
        json!({"securityContext": {"runAsUser": -1}}),
        &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
    );
    check(
        json!({"tolerations": [{"operator": "Equal"}]}),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ],
    );
    check(
        json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]}),
        &[
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    check(json!({"volumes": [{"name": "a"}, {"name": "a"}]}), &["spec.volumes[1].name: Duplicate value: \"a\""]);
    check(
        json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        json!({"volumes": [{"name": "a", "configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}}]}),
        &["spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"],
    );
    check(
        json!({"volumes": [{"name": "a", "configMap": {"name": "m", "defaultMode": 512}}]}),
        &[
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check(
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ],
    );
    check(
        json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {}}]}}}),
        &[
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        json!({"initContainers": [{"name": "c", "image": "i"}]}),
        &["spec.initContainers[0].name: Duplicate value: \"c\""],
    );
    check(
        json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}]}),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        json!({"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["a"]}}}]}),
        &[],
    );
    check(
        json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check(
        json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
    check(
        json!({"nodeName": "n", "schedulingGates": [{"name": "a.b/c"}]}),
        &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
    );
}

#[test]
fn rules_of_a_container() {
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/", "subPath": "/x"}]}),
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
        ],
    );
    check_container(json!({"name": null}), &["spec.containers[0].name: Required value"]);
    check_container(json!({"image": ""}), &["spec.containers[0].image: Required value"]);
    check_container(
        json!({"image": " a"}),
        &["spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace"],
    );
    check_container(
        json!({"name": "C"}),
        &[
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check_container(
        json!({"imagePullPolicy": "X"}),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check_container(json!({"ports": [{}]}), &["spec.containers[0].ports[0].containerPort: Required value"]);
    check_container(
        json!({"ports": [{"containerPort": 65536}]}),
        &["spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"],
    );
    check_container(
        json!({"ports": [{"containerPort": 1, "protocol": "tcp"}]}),
        &[
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check_container(
        json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}),
        &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
    );
    check_container(
        json!({"ports": [{"containerPort": 1, "hostPort": 1}, {"containerPort": 2, "hostPort": 1}]}),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//1\""],
    );
    check_container(
        json!({"env": [{"name": "a=b"}]}),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ],
    );
    check_container(
        json!({"env": [{"name": "a", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
    );
    check_container(
        json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
        ],
    );
    check_container(
        json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check_container(
        json!({"envFrom": [{}]}),
        &["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
    );
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/"}]}),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
    check_container(
        json!({"livenessProbe": {}}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check_container(
        json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    check_container(json!({"readinessProbe": {"tcpSocket": {"port": "http"}, "successThreshold": 2}}), &[]);
    check_container(
        json!({"livenessProbe": {"tcpSocket": {"port": 80}, "exec": {"command": ["a"]}}}),
        &["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    );
    check_container(
        json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
        &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    check_container(
        json!({"resources": {"limits": {"cpu": "-1"}}}),
        &[
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check_container(
        json!({"resources": {"limits": {"foo": "1"}, "requests": {}}}),
        &[
            "spec.containers[0].resources.limits[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[foo]: Invalid value: \"foo\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource for containers",
        ],
    );
    check_container(
        json!({"resources": {"requests": {"example.com/gpu": "1"}}}),
        &["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"],
    );
    check_container(
        json!({"securityContext": {"allowPrivilegeEscalation": false, "privileged": true}}),
        &[
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check_container(
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
        &[
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ],
    );
}

#[test]
fn updates() {
    const OTHERS: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let old = created("v1 Pod", with(&pod(), json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}})));
    let update = |patch: Value, expected: &[&str]| check_write("v1 Pod", "", &old, patch, expected);
    let same = update(json!({"spec": {"nodeSelector": {}, "volumes": []}, "status": {"phase": "Failed"}}), &[]);
    assert_eq!(same["metadata"]["generation"], 1);
    assert_eq!(same["status"]["phase"], "Pending");
    let image = json!({"spec": {"containers": [with(&old["spec"]["containers"][0], json!({"image": "b:1"}))]}});
    assert_eq!(update(image, &[])["metadata"]["generation"], 2);
    update(json!({"spec": {"nodeName": "n"}}), &[OTHERS]);
    let resources = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}});
    let resized =
        json!({"spec": {"containers": [with(&old["spec"]["containers"][0], json!({"resources": resources}))]}});
    update(resized, &[OTHERS]);
    update(json!({"spec": {"terminationGracePeriodSeconds": 1}}), &[OTHERS]);
    update(
        json!({"spec": {"containers": []}}),
        &[
            "spec.containers: Required value",
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ],
    );
    update(
        json!({"spec": {"tolerations": []}}),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    update(
        json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}}),
        &[],
    );
    update(
        json!({"spec": {"schedulingGates": [{"name": "a"}]}}),
        &["spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"],
    );
    let dated = with(&old, json!({"spec": {"activeDeadlineSeconds": 5}}));
    check_write(
        "v1 Pod",
        "",
        &dated,
        json!({"spec": {"activeDeadlineSeconds": 6}}),
        &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
    );
    check_write("v1 Pod", "", &dated, json!({"spec": {"activeDeadlineSeconds": 4}}), &[]);
}

#[test]
fn subresources() {
    let old = created("v1 Pod", container(json!({"resources": {"limits": {"cpu": "1"}}})));
    let status = check_write(
        "v1 Pod",
        "status",
        &old,
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "x"}, "status": {"phase": "Running"}}),
        &[],
    );
    assert_eq!(
        (status["spec"].clone(), &status["status"]["phase"], &status["metadata"]["labels"]["a"]),
        (old["spec"].clone(), &json!("Running"), &json!("b"))
    );

    let debug = json!({"spec": {"nodeName": "x", "ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let with_debug = check_write("v1 Pod", "ephemeralcontainers", &old, debug, &[]);
    assert_eq!((&with_debug["spec"]["nodeName"], &with_debug["metadata"]["generation"]), (&Value::Null, &json!(2)));
    assert_eq!(with_debug["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
    check_write(
        "v1 Pod",
        "ephemeralcontainers",
        &with_debug,
        json!({"spec": {"ephemeralContainers": null}}),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed"],
    );
    check_write(
        "v1 Pod",
        "ephemeralcontainers",
        &old,
        json!({"spec": {"ephemeralContainers": [{"name": "c", "image": "i"}]}}),
        &["spec.ephemeralContainers[0].name: Duplicate value: \"c\""],
    );
    check_write(
        "v1 Pod",
        "ephemeralcontainers",
        &old,
        json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "ports": [{"containerPort": 1}]}]}}),
        &["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"],
    );

    let resized = json!({"spec": {"containers": [{"name": "c", "image": "other", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]}});
    let resized = check_write("v1 Pod", "resize", &old, resized, &[]);
    assert_eq!(
        (&resized["spec"]["containers"][0]["image"], &resized["spec"]["containers"][0]["resources"]["limits"]["cpu"]),
        (&json!("nginx"), &json!("2"))
    );
    check_write(
        "v1 Pod",
        "resize",
        &old,
        json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2", "memory": "1Gi"}}}]}}),
        &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
}

#[test]
fn static_pods() {
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    let old = created("v1 Pod", with(&pod(), mirror));
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    check_write(
        "v1 Pod",
        "ephemeralcontainers",
        &old,
        debug,
        &["[]: Forbidden: static pods do not support ephemeral containers"],
    );
}

#[test]
fn warnings_and_addresses() {
    let strategy = kind("v1 Pod").strategy;
    let odd = with(
        &container(json!({"env": [{"name": "A"}, {"name": "A"}]})),
        json!({"metadata": {"name": "a.b"}, "spec": {"terminationGracePeriodSeconds": -1}}),
    );
    let warnings = strategy.warnings(&odd, Write::Create);
    assert_eq!(warnings.len(), 3);
    assert_eq!(
        warnings[0],
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
    );
    assert_eq!(
        warnings[1],
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
    );
    assert!(warnings[2].starts_with("metadata.name: this is used in the Pod's hostname"), "{}", warnings[2]);
    assert!(strategy.warnings(&pod(), Write::Create).is_empty());

    let old = created("v1 Pod", pod());
    let status = check_write(
        "v1 Pod",
        "status",
        &old,
        json!({"status": {"podIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}}),
        &[],
    );
    assert_eq!(
        (&status["status"]["podIPs"], &status["status"]["hostIP"]),
        (&json!([{"ip": "10.0.0.1"}]), &json!("10.0.0.2"))
    );
}

#[test]
fn binding() {
    let old = created("v1 Pod", pod());
    let bound =
        check_write("v1 Pod", "binding", &old, json!({"spec": {"nodeName": "n"}, "status": {"conditions": []}}), &[]);
    assert_eq!((&bound["metadata"]["generation"], &bound["spec"]["nodeName"]), (&json!(1), &json!("n")));
    let mut pod = old;
    let now = jiff::Timestamp::UNIX_EPOCH;
    super::binding::bind(
        &mut pod,
        &json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"name": "n"}}),
        now,
    )
    .unwrap();
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
    assert_eq!(
        pod["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}])
    );
    let again = super::binding::bind(&mut pod, &json!({"target": {"name": "m"}}), now).unwrap_err();
    assert_eq!(
        (again.code, again.message.as_str()),
        (409, "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"")
    );
}

#[test]
fn grace() {
    let strategy = kind("v1 Pod").strategy;
    let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
    assert_eq!(strategy.grace_period_seconds(&pod("n", "Running"), None), Some(30));
    assert_eq!(strategy.grace_period_seconds(&pod("n", "Running"), Some(5)), Some(5));
    assert_eq!(strategy.grace_period_seconds(&pod("n", "Running"), Some(-1)), Some(1));
    assert_eq!(strategy.grace_period_seconds(&pod("", "Pending"), None), Some(0));
    assert_eq!(strategy.grace_period_seconds(&pod("n", "Succeeded"), None), Some(0));
}

#[test]
fn rows() {
    #[track_caller]
    fn row(patch: Value, expected: &str) {
        check_row(
            "v1 Pod",
            with(&json!({"spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Pending"}}), patch),
            expected,
        );
    }
    row(json!({}), "0/1 Pending 0 60m | <none> <none> <none> <none>");
    row(
        json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{"ready": true, "state": {"running": {}}}]}}),
        "1/1 Running 0 60m | 10.0.0.1 n <none> <none>",
    );
    row(
        json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
        "0/1 ContainerCreating 0 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"status": {"phase": "Running", "containerStatuses": [{"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}}]}}),
        "0/1 CrashLoopBackOff 2 (5m ago) 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}}),
        "0/1 Completed 0 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
        "0/1 ExitCode:3 0 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        "0/1 Terminating 0 60m | <none> <none> <none> <none>",
    );
    row(json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "0/1 Evicted 0 60m | <none> <none> <none> <none>");
    row(
        json!({"spec": {"initContainers": [{"name": "i"}]}, "status": {"initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}}),
        "0/1 Init:0/1 0 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"spec": {"initContainers": [{"name": "i"}]}, "status": {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
        "0/1 Init:Error 0 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}]}, "status": {"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}], "containerStatuses": [{"ready": true, "state": {"running": {}}}]}}),
        "2/2 Running 1 60m | <none> <none> <none> <none>",
    );
    row(
        json!({"spec": {"readinessGates": [{"conditionType": "a"}]}, "status": {"conditions": [{"type": "a", "status": "True"}]}}),
        "0/1 Pending 0 60m | <none> <none> <none> 1/1",
    );
}

#[test]
fn classes() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"example.com/gpu": "1"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "1"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "500m", "memory": "1"}}), "Burstable"),
    ] {
        let spec = json!({"containers": [{"resources": resources}]});
        assert_eq!(crate::kinds::qos_class(&spec), class, "{spec}");
    }
}

#[test]
fn projections_that_are_off_are_dropped() {
    let sources = json!([{"clusterTrustBundle": {"name": "a", "path": "p"}},
        {"podCertificate": {"signerName": "a.test/b", "keyType": "ED25519", "credentialBundlePath": "c"}}, {"secret": {"name": "s"}}]);
    let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "nginx"}],
        "volumes": [{"name": "v", "projected": {"sources": sources}}]}});
    assert_eq!(
        created("v1 Pod", pod)["spec"]["volumes"][0]["projected"]["sources"],
        json!([{}, {}, {"secret": {"name": "s"}}])
    );
}
