//! Pods against standards: for each check one that passes and one that does not, with upstream's words, and where versions
//! differ, before and after.

use serde_json::{Value, json};

use super::checks::{Pod, details, evaluate};
use super::policy::{Level, Policy, Standard, Version};

/// What a standard (`baseline`, `restricted:v1.22`) has against a pod's spec.
#[track_caller]
fn check(standard: &str, spec: Value, expected: &str) {
    check_pod(standard, json!({"spec": spec}), expected);
}

#[track_caller]
fn check_pod(standard: &str, pod: Value, expected: &str) {
    let (level, version) = standard.split_once(':').unwrap_or((standard, "latest"));
    let standard = Standard { level: Level::parse(level).unwrap(), version: Version::parse(version).unwrap() };
    let found = evaluate(standard, Pod { metadata: &pod["metadata"], spec: &pod["spec"] });
    assert_eq!(details(&found), expected, "{standard}");
}

/// A pod that the strictest standard lets pass, with more in its only container and beside it.
fn good(container: Value, spec: Value) -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut pod = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": security}],
    });
    merge(&mut pod["containers"][0], container);
    merge(&mut pod, spec);
    pod
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = json!({"containers": [{"name": "a"}]});
    check("privileged", plain.clone(), "");
    check("baseline", plain.clone(), "");
    check(
        "restricted",
        plain.clone(),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")",
    );
    check(
        "restricted:v1.7",
        plain,
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
    );
    check("restricted", good(json!({}), json!({})), "");
}

#[test]
fn all_kinds_of_containers_count() {
    let bad = json!({"securityContext": {"privileged": true}});
    let with = |name: &str| {
        let mut container = bad.clone();
        container["name"] = name.into();
        json!([container])
    };
    check(
        "baseline",
        json!({"containers": with("a"), "initContainers": with("i"), "ephemeralContainers": with("e")}),
        "privileged (containers \"i\", \"a\", \"e\" must not set securityContext.privileged=true)",
    );
}

#[test]
fn host_access() {
    let of = |container: Value, spec: Value| {
        let mut pod = json!({"containers": [{"name": "a"}]});
        merge(&mut pod["containers"][0], container);
        merge(&mut pod, spec);
        pod
    };
    check(
        "baseline",
        of(json!({}), json!({"hostNetwork": true, "hostPID": true, "hostIPC": true})),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    );
    check(
        "baseline",
        of(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}, {"containerPort": 1}]}), json!({})),
        "hostPort (container \"a\" uses hostPorts 443, 80)",
    );
    let volumes = json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}]});
    check("baseline", of(json!({}), volumes.clone()), "hostPath volumes (volume \"v\")");
    check(
        "restricted",
        good(json!({}), volumes),
        "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
    );
    let fine = json!({"volumes": [{"name": "e", "emptyDir": {}}, {"name": "i", "image": {"reference": "r"}}]});
    check("restricted:v1.20", good(json!({}), fine), "");
    let probe = json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "x"}}}});
    check(
        "baseline",
        of(probe.clone(), json!({})),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"10.0.0.1\", \"x\")",
    );
    check("baseline:v1.33", of(probe, json!({})), "");
    let host_process = json!({"securityContext": {"windowsOptions": {"hostProcess": true}}});
    check(
        "baseline",
        of(host_process.clone(), host_process),
        "hostProcess (pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
    );
    let sysctl = |name: &str| of(json!({}), json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}));
    check("baseline", sysctl("kernel.msgmax"), "forbidden sysctls (kernel.msgmax)");
    check("baseline", sysctl("net.ipv4.tcp_rmem"), "");
    check("baseline:v1.31", sysctl("net.ipv4.tcp_rmem"), "forbidden sysctls (net.ipv4.tcp_rmem)");
    check(
        "baseline:v1.26",
        sysctl("net.ipv4.ip_local_reserved_ports"),
        "forbidden sysctls (net.ipv4.ip_local_reserved_ports)",
    );
}

#[test]
fn capabilities() {
    let adding = |names: &[&str]| json!({"securityContext": {"capabilities": {"add": names}}});
    let plain = |names: &[&str]| {
        let mut container = adding(names);
        container["name"] = "a".into();
        json!({"containers": [container]})
    };
    check("baseline", plain(&["CHOWN"]), "");
    check(
        "baseline",
        plain(&["NET_RAW", "CHOWN", "BPF"]),
        "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)",
    );
    check("restricted", good(adding(&["NET_BIND_SERVICE"]), json!({})), "");
    check(
        "restricted",
        good(adding(&["CHOWN"]), json!({})),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    check("restricted:v1.21", good(adding(&["CHOWN"]), json!({})), "");
    check(
        "restricted:v1.21",
        good(adding(&["BPF"]), json!({})),
        "non-default capabilities (container \"a\" must not include \"BPF\" in securityContext.capabilities.add)",
    );
}

#[test]
fn identities() {
    let root = json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false}});
    let both = good(root.clone(), root);
    check(
        "restricted",
        both.clone(),
        "runAsNonRoot != true (pod and container \"a\" must not set securityContext.runAsNonRoot=false), runAsUser=0 \
         (pod and container \"a\" must not set runAsUser=0)",
    );
    let mut own = both;
    own["hostUsers"] = false.into();
    check("restricted", own.clone(), "");
    check(
        "restricted:v1.22",
        own,
        "runAsNonRoot != true (pod and container \"a\" must not set securityContext.runAsNonRoot=false)",
    );
}

#[test]
fn profiles() {
    let security = |security: Value| json!({"securityContext": security});
    let bad = security(json!({"seccompProfile": {"type": "Unconfined"}}));
    let said = "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")";
    check("baseline", good(bad.clone(), json!({})), said);
    check("restricted", good(bad.clone(), json!({})), said);
    check("baseline:v1.18", good(bad, json!({})), "");
    let annotated = json!({
        "metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}},
        "spec": good(json!({}), json!({})),
    });
    check_pod(
        "baseline:v1.18",
        annotated.clone(),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
    );
    check_pod("baseline", annotated, "");
    check(
        "baseline",
        good(security(json!({"appArmorProfile": {"type": "Unconfined"}})), json!({})),
        "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
    );
    let selinux = |options: Value| good(security(json!({"seLinuxOptions": options})), json!({}));
    check("baseline", selinux(json!({"type": "container_engine_t", "level": "s0"})), "");
    check(
        "baseline:v1.30",
        selinux(json!({"type": "container_engine_t"})),
        "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
    );
    check(
        "baseline",
        selinux(json!({"user": "u", "role": "r"})),
        "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: user may not be set; role may not \
         be set)",
    );
    let unmasked = |spec: Value| good(security(json!({"procMount": "Unmasked"})), spec);
    let said = "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")";
    check("baseline", unmasked(json!({})), said);
    check("baseline", unmasked(json!({"hostUsers": false})), "");
    check("baseline:v1.34", unmasked(json!({"hostUsers": false})), said);
    check("restricted", unmasked(json!({"hostUsers": false})), said);
    check("restricted:v1.34", unmasked(json!({})), said);
}

#[test]
fn windows_has_no_linux_profiles() {
    let pod = json!({
        "os": {"name": "windows"},
        "securityContext": {"runAsNonRoot": true},
        "containers": [{"name": "a"}],
    });
    check("restricted", pod.clone(), "");
    check(
        "restricted:v1.24",
        pod,
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), seccompProfile \
         (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
}

#[test]
fn policies_come_from_labels() {
    let policy = |labels: Value| {
        let labels: serde_json::Map<String, Value> = labels
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
            .collect();
        let (policy, errors) = Policy::of(&labels, &Policy::default());
        (
            format!("enforce={}, audit={}, warn={}", policy.enforce, policy.audit, policy.warn),
            errors.into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; "),
        )
    };
    let privileged = "privileged:latest";
    let fine = |labels: Value, expected: String| assert_eq!(policy(labels), (expected, String::new()));
    fine(json!({}), format!("enforce={privileged}, audit={privileged}, warn={privileged}"));
    fine(
        json!({"enforce": "baseline", "enforce-version": "v1.30"}),
        format!("enforce=baseline:v1.30, audit={privileged}, warn=baseline:v1.30"),
    );
    fine(
        json!({"enforce": "baseline", "warn": "restricted", "audit": "baseline", "audit-version": "v1.0"}),
        "enforce=baseline:latest, audit=baseline:v1.0, warn=restricted:latest".into(),
    );
    let (shown, errors) = policy(json!({"enforce": "strict", "audit": "x", "warn-version": "1.2"}));
    assert_eq!(shown, "enforce=restricted:latest, audit=privileged:latest, warn=restricted:latest");
    let at = "metadata.labels[pod-security.kubernetes.io/";
    assert_eq!(
        errors,
        format!(
            "{at}enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted; {at}audit]: Invalid \
             value: \"x\": must be one of privileged, baseline, restricted; {at}warn-version]: Invalid value: \"1.2\": must \
             be \"latest\" or \"v1.x\""
        )
    );
}
