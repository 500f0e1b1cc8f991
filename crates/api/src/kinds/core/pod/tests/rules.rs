//! Rules that later releases brought, and those of updates through each subresource.

use serde_json::{Value, json};

use super::{check, check_container, container, pod};
use crate::kinds::testing::{check_write, created, with};

/// A template with this pod spec breaks exactly these rules.
#[track_caller]
fn check_template(spec: Value, expected: &[&str]) {
    let spec = with(&pod()["spec"], spec);
    crate::kinds::testing::check("v1 PodTemplate", json!({"template": {"spec": spec}}), expected);
}

#[test]
fn host_network_ports() {
    let ports =
        |port: Value| json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [port]}]});
    check(ports(json!({"containerPort": 80})), &[]);
    check_template(ports(json!({"containerPort": 80})), &[]);
    let clash = ports(json!({"containerPort": 80, "hostPort": 81}));
    let error = "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true";
    check(clash.clone(), &[error]);
    check_template(clash, &[&format!("template.{error}")]);
}

#[test]
fn restart_rules() {
    let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
    check_container(json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}), &[]);
    check_container(
        json!({"restartPolicyRules": [rule]}),
        &["spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"],
    );
    check_container(
        json!({"restartPolicy": "X", "restartPolicyRules": [{"action": "Stop"}, {"action": "Restart", "exitCodes": {"operator": ""}}]}),
        &[
            "spec.containers[0].restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\"",
            "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
            "spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: \"\": supported values: \"In\", \"NotIn\"",
        ],
    );
}

#[test]
fn sidecars() {
    let init = |fields: Value| json!({"initContainers": [with(&json!({"name": "i", "image": "i"}), fields)]});
    let probe = json!({"tcpSocket": {"port": 80}});
    check(
        init(
            json!({"restartPolicy": "Always", "livenessProbe": probe, "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}),
        ),
        &[],
    );
    check(
        init(json!({"livenessProbe": probe, "lifecycle": {}})),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
}

#[test]
fn mounts_and_devices() {
    let volumes = json!([
        {"name": "d", "emptyDir": {}}, {"name": "p", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let check_mounts = |fields: Value, expected: &[&str]| {
        let pod = with(&container(fields), json!({"spec": {"volumes": volumes}}));
        crate::kinds::testing::check("v1 Pod", pod, expected);
    };
    check_mounts(json!({"volumeDevices": [{"name": "p", "devicePath": "/dev/x"}]}), &[]);
    check_mounts(
        json!({"volumeDevices": [{"name": "d", "devicePath": "/dev/x"}, {"name": "z", "devicePath": "/dev/../x"}]}),
        &[
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"d\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            "spec.containers[0].volumeDevices[1].name: Not found: \"z\"",
            "spec.containers[0].volumeDevices[1].devicePath: Invalid value: \"/dev/../x\": can not contain backsteps ('..')",
        ],
    );
    check_mounts(
        json!({"volumeMounts": [{"name": "p", "mountPath": "/p"}], "volumeDevices": [{"name": "p", "devicePath": "/p"}]}),
        &[
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"p\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts[0].mountPath: Invalid value: \"/p\": must not already exist as a path in volumeDevices",
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"p\": must not already exist in volumeMounts",
            "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/p\": must not already exist as a path in volumeMounts",
        ],
    );
    let many = |entry: fn(usize) -> Value| (0..40_000).map(entry).collect::<Vec<Value>>();
    let pod = with(
        &container(json!({
            "volumeMounts": many(|n| json!({"name": "d", "mountPath": format!("/m{n}")})),
            "volumeDevices": many(|n| json!({"name": format!("p{n}"), "devicePath": format!("/dev/{n}")})),
        })),
        json!({"spec": {"volumes": many(|n| match n {
            0 => json!({"name": "d", "emptyDir": {}}),
            _ => json!({"name": format!("p{n}"), "persistentVolumeClaim": {"claimName": "c"}}),
        })}}),
    );
    let missing = "spec.containers[0].volumeDevices[0].name: Not found: \"p0\"";
    crate::kinds::testing::check("v1 Pod", pod, &[missing]);
    check_mounts(
        json!({"volumeMounts": [
            {"name": "d", "mountPath": "/a", "mountPropagation": "Bidirectional"},
            {"name": "d", "mountPath": "/b", "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"},
            {"name": "d", "mountPath": "/c", "recursiveReadOnly": "X", "subPath": "/x"},
        ]}),
        &[
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
            "spec.containers[0].volumeMounts.recursiveReadOnly: Unsupported value: \"X\": supported values: \"Disabled\", \"Enabled\", \"IfPossible\"",
        ],
    );
}

#[test]
fn volumes() {
    let volume =
        |source: Value, expected: &[&str]| check(json!({"volumes": [with(&json!({"name": "v"}), source)]}), expected);
    volume(json!({"image": {"reference": "a/b:1"}}), &[]);
    volume(json!({"image": {}}), &["spec.volumes[0].image.reference: Required value"]);
    check_template(json!({"volumes": [{"name": "v", "image": {}}]}), &[]);
    volume(
        json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}),
        &[
            "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
            "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
        ],
    );
    volume(json!({"ephemeral": {}}), &["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"]);
    volume(
        json!({"fc": {"targetWWNs": ["a"]}}),
        &["spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified"],
    );
    // Pods lose it before they are looked at: the feature is off.
    let bundle = json!({"sources": [{"clusterTrustBundle": {"name": "a", "signerName": "b", "path": "p"}}]});
    volume(json!({"projected": bundle.clone()}), &[]);
    let error = "template.spec.volumes[0].projected.sources[0].clusterTrustBundle.signerName: Invalid value: \"b\": only one of name and signerName may be used";
    check_template(json!({"volumes": [{"name": "v", "projected": bundle}]}), &[error]);
    volume(
        json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ],
    );
}

#[test]
fn pod_level_resources() {
    let amounts = |limit: &str, request: &str| json!({"limits": {"cpu": limit}, "requests": {"cpu": request}});
    let made = created(
        "v1 Pod",
        with(
            &container(json!({"resources": amounts("1", "500m")})),
            json!({"spec": {"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}}),
        ),
    );
    assert_eq!(made["spec"]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    let check_whole = |own: Value, whole: Value, expected: &[&str]| {
        let pod = with(&container(json!({"resources": own})), json!({"spec": {"resources": whole}}));
        crate::kinds::testing::check("v1 Pod", pod, expected);
    };
    check_whole(amounts("1", "1"), amounts("1", "1"), &[]);
    check_whole(
        amounts("3", "2"),
        amounts("2", "1"),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
            "spec.resources.containers[0][cpu].limits: Invalid value: \"3\": must be less than or equal to pod limits of 2",
        ],
    );
    check_whole(
        json!({}),
        json!({"limits": {"ephemeral-storage": "1Gi"}, "claims": [{"name": "x"}]}),
        &[
            "spec.resources.claims: Forbidden: claims cannot be set for Resources at pod-level",
            "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
        ],
    );
}

#[test]
fn claims() {
    check_container(
        json!({"resources": {"claims": [{"name": "gpu"}]}}),
        &[
            "spec.containers[0].resources.claims[0].name: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty",
        ],
    );
    check(
        json!({"resourceClaims": [{"name": "a", "resourceClaimName": "x"}, {"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}, {"name": "b"}]}),
        &[
            "spec.resourceClaims[1].name: Duplicate value: \"a\"",
            "spec.resourceClaims[1]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":\"x\",\"ResourceClaimTemplateName\":\"y\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            "spec.resourceClaims[2]: Invalid value: {\"Name\":\"b\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ],
    );
    check_container(
        json!({"resources": {"limits": {"hugepages-2Mi": "3Mi", "cpu": 1}, "requests": {"hugepages-2Mi": "3Mi", "cpu": 1}}}),
        &[
            "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
        ],
    );
}

#[test]
fn users_and_systems() {
    check_container(
        json!({"securityContext": {"procMount": "Unmasked"}}),
        &[
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ],
    );
    let unmasked = container(json!({"securityContext": {"procMount": "Unmasked"}}));
    crate::kinds::testing::check("v1 Pod", with(&unmasked, json!({"spec": {"hostUsers": false}})), &[]);
    check(
        json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}}),
        &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
    );
    check(
        json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"runAsUser": 1}}),
        &[
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
        ],
    );
    check_container(
        json!({"lifecycle": {"stopSignal": "SIGTERM"}}),
        &[
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        ],
    );
    check(
        json!({"hostNetwork": true, "hostnameOverride": "a", "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
        &[
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
        ],
    );
}

#[test]
fn label_keys() {
    let term = json!({"topologyKey": "zone", "matchLabelKeys": ["app"], "mismatchLabelKeys": ["tier", "none"], "labelSelector": {}});
    let spread = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["app"], "labelSelector": {"matchLabels": {"x": "y"}}});
    let made = created(
        "v1 Pod",
        with(
            &pod(),
            json!({
                "metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
                    "topologySpreadConstraints": [spread],
                },
            }),
        ),
    );
    let affinity = &made["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    let app = json!({"key": "app", "operator": "In", "values": ["web"]});
    assert_eq!(
        affinity["labelSelector"]["matchExpressions"],
        json!([app, {"key": "tier", "operator": "NotIn", "values": ["front"]}])
    );
    let spread = &made["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"], json!({"matchLabels": {"x": "y"}, "matchExpressions": [app]}));
    check(
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]}]}}}),
        &[
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ],
    );
}

#[test]
fn annotations() {
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let annotated = |key: &str, value: &str| with(&pod(), json!({"metadata": {"annotations": {key: value}}}));
    crate::kinds::testing::check("v1 Pod", annotated(COST, "-5"), &[]);
    for bad in ["x", "+5", "05", "3000000000"] {
        crate::kinds::testing::check(
            "v1 Pod",
            annotated(COST, bad),
            &[&format!("metadata.annotations[{COST}]: Invalid value: \"{bad}\": must be a 32bit integer")],
        );
    }
    const MIRROR: &str = "kubernetes.io/config.mirror";
    crate::kinds::testing::check(
        "v1 Pod",
        annotated(MIRROR, "x"),
        &[
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
        ],
    );
    let mirror = with(&created("v1 Pod", annotated(MIRROR, "x")), json!({"spec": {"nodeName": "n"}}));
    check_write(
        "v1 Pod",
        "",
        &mirror,
        json!({"metadata": {"annotations": {MIRROR: "y", "container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}}),
        &[
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations",
        ],
    );
}

#[test]
fn gated_pods() {
    let terms = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let has = |key: &str| json!({"key": key, "operator": "Exists"});
    let gated = |affinity: Value| {
        created("v1 Pod", with(&pod(), json!({"spec": {"schedulingGates": [{"name": "a.b/c"}], "affinity": affinity}})))
    };
    let update = |old: &Value, affinity: Value, expected: &[&str]| {
        check_write("v1 Pod", "", old, json!({"spec": {"affinity": affinity}}), expected);
    };
    let one = terms(json!([{"matchExpressions": [has("a")]}]));
    update(&gated(Value::Null), one.clone(), &[]);
    let old = gated(one);
    update(&old, terms(json!([{"matchExpressions": [has("a"), has("b")]}])), &[]);
    const PATH: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    update(
        &old,
        terms(json!([{"matchExpressions": [has("b")]}])),
        &[&format!(
            "{PATH}[0]: Invalid value: {}: only additions are allowed (no mutations or deletions)",
            json!({"matchExpressions": [has("b")]})
        )],
    );
    let more = json!([{"matchExpressions": [has("a")]}, {"matchExpressions": [has("b")]}]);
    update(
        &old,
        terms(more.clone()),
        &[&format!(
            "{PATH}: Invalid value: {more}: no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        )],
    );
}

#[test]
fn statuses() {
    let old = created("v1 Pod", with(&pod(), json!({"spec": {"restartPolicy": "Never"}})));
    let status = |old: &Value, status: Value, expected: &[&str]| {
        check_write("v1 Pod", "status", old, json!({"status": status}), expected)
    };
    let ended = status(
        &old,
        json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}, "ready": false, "restartCount": 0, "image": "", "imageID": ""}]}),
        &[],
    );
    let running = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}, "ready": true, "restartCount": 1, "image": "", "imageID": ""}]});
    status(
        &ended,
        running.clone(),
        &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
    );
    let mut again = ended.clone();
    again["spec"]["restartPolicy"] = "OnFailure".into();
    status(&again, running.clone(), &[]);
    let mut rules = ended.clone();
    rules["spec"]["containers"][0]["restartPolicyRules"] =
        json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]);
    status(&rules, running, &[]);
    status(
        &old,
        json!({"qosClass": "Guaranteed", "observedGeneration": -1, "conditions": [{"type": "a/b/c", "status": "True", "observedGeneration": -1}]}),
        &[
            "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
            "status.conditions[0].Type: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
        ],
    );
    status(
        &old,
        json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
        &[
            "status.podIPs: Invalid value: [{\"IP\":\"10.0.0.1\"},{\"IP\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
        ],
    );
}

#[test]
fn resizes() {
    let amounts =
        |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Gi"}, "requests": {"cpu": cpu, "memory": "1Gi"}});
    let base = with(
        &container(json!({"resources": amounts("1")})),
        json!({"spec": {"initContainers": [
            {"name": "i", "image": "i", "resources": amounts("1")}, {"name": "s", "image": "s", "restartPolicy": "Always", "resources": amounts("1")},
        ]}}),
    );
    let old = created("v1 Pod", base);
    let resize = |old: &Value, spec: Value, expected: &[&str]| {
        check_write("v1 Pod", "resize", old, json!({"spec": spec}), expected)
    };
    let c = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
    let resized = resize(&old, c(amounts("2")), &[]);
    assert_eq!(
        (&resized["metadata"]["generation"], &resized["spec"]["containers"][0]["image"]),
        (&json!(2), &json!("nginx"))
    );
    resize(
        &old,
        json!({"initContainers": [{"name": "i", "resources": amounts("1")}, {"name": "s", "resources": amounts("3")}]}),
        &[],
    );
    resize(
        &old,
        json!({"initContainers": [{"name": "i", "resources": amounts("3")}, {"name": "s", "resources": amounts("1")}]}),
        &["spec: Forbidden: resources for non-sidecar init containers are immutable"],
    );
    resize(
        &old,
        json!({"initContainers": [{"name": "s", "resources": amounts("1")}, {"name": "i", "resources": amounts("1")}]}),
        &[
            "spec.initContainers[0].name: Forbidden: initContainers may not be renamed or reordered on resize",
            "spec.initContainers[1].name: Forbidden: initContainers may not be renamed or reordered on resize",
        ],
    );
    let with_storage = json!({"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    resize(&old, c(with_storage), &["spec: Forbidden: only cpu and memory resources are mutable"]);
    let loose = created("v1 Pod", container(json!({"resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}})));
    resize(
        &loose,
        c(json!({"requests": {"cpu": "1"}})),
        &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
    );
    let running = with(&old, json!({"status": {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}}));
    resize(&running, c(amounts("2")), &["spec: Forbidden: Pod running on node without support for resize"]);
    let whole = created("v1 Pod", with(&pod(), json!({"spec": {"resources": amounts("1")}})));
    resize(&whole, c(amounts("1")), &["[]: Forbidden: pods with pod-level resources cannot be resized"]);
}

#[test]
fn warnings() {
    use crate::kind::Write;
    use crate::kinds::testing::kind;

    let strategy = kind("v1 Pod").strategy;
    let warned = |pod: Value, expected: &[&str]| assert_eq!(strategy.warnings(&pod, Write::Create), expected, "{pod}");
    let spec = |patch: Value| with(&pod(), json!({"spec": patch}));
    warned(
        spec(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]}),
        ),
        &[
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ],
    );
    warned(
        spec(
            json!({"volumes": [{"name": "a", "gitRepo": {}}], "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}], "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}),
        ),
        &[
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
        ],
    );
    warned(
        container(json!({
            "resources": {"requests": {"memory": "100m"}},
            "env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y $(A)"}, {"name": "A", "value": "$(A)"}],
            "ports": [
                {"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 8, "name": "web"},
                {"containerPort": 80, "protocol": "TCP", "hostPort": 8, "hostIP": "1.1.1.1"}, {"containerPort": 81, "protocol": "UDP", "hostIP": "1.1.1.1"},
            ],
        })),
        &[
            "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: dangerously ambiguous port definition with spec.containers[0].ports[1]",
            "spec.containers[0].ports[3]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:81 Protocol:UDP HostIP:1.1.1.1}",
            "spec.containers[0].ports[1]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
        ],
    );
    warned(
        with(
            &pod(),
            json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}}),
        ),
        &[
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
        ],
    );
    // However many ports clash, there are no more warnings than an answer can carry.
    let ports = |port: fn(usize) -> Value| {
        let ports: Vec<Value> = (0..50_000).map(port).collect();
        let warnings = strategy.warnings(&container(json!({"ports": ports})), Write::Create);
        warnings.iter().map(String::len).sum::<usize>()
    };
    let same = ports(|_| json!({"containerPort": 80, "protocol": "TCP"}));
    assert!((4096..8192).contains(&same), "{same}");
    let places = ports(|n| match n {
        n if n < 25_000 => json!({"containerPort": 80, "protocol": "TCP", "hostPort": 8, "hostIP": format!("{n}")}),
        _ => json!({"containerPort": 80, "protocol": "TCP", "hostPort": 8}),
    });
    assert!((4096..8192).contains(&places), "{places}");
    let apart = ports(|n| json!({"containerPort": 80, "protocol": "TCP", "hostPort": 8, "hostIP": format!("{n}")}));
    assert_eq!(apart, 0);
    // An update of a deployment warns only when the deployment changed.
    let strategy = kind("apps/v1 Deployment").strategy;
    let template = json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}});
    let old = json!({"metadata": {"generation": 1}, "spec": {"template": template}});
    let new = with(&old, json!({"metadata": {"generation": 2}}));
    assert!(strategy.warnings(&old, Write::Update(&old)).is_empty());
    assert_eq!(
        strategy.warnings(&new, Write::Update(&old)),
        [
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"
        ]
    );
}

#[test]
fn updates_of_pointers_and_of_many_tolerations() {
    let base =
        json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let old = created("v1 Pod", base.clone());
    let frozen = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
        `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    // A Go client sends what it always has, which is no change; a pointer is one.
    check_write("v1 Pod", "", &old, json!({"spec": {"nodeSelector": {}, "hostAliases": []}}), &[]);
    check_write("v1 Pod", "", &old, json!({"spec": {"affinity": {}}}), &[frozen]);
    let tolerations = |n: i32| -> Vec<Value> {
        (0..n).map(|i| json!({"key": format!("k{i}"), "operator": "Exists", "effect": "NoExecute"})).collect()
    };
    let old = created("v1 Pod", with(&base, json!({"spec": {"tolerations": tolerations(20_000)}})));
    let mut more = tolerations(20_001);
    more.reverse();
    more[7]["tolerationSeconds"] = json!(5);
    check_write("v1 Pod", "", &old, json!({"spec": {"tolerations": more}}), &[]);
    check_write(
        "v1 Pod",
        "",
        &old,
        json!({"spec": {"tolerations": tolerations(19_999)}}),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
}
