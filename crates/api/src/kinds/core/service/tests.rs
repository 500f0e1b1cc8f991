use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, with};

fn service() -> Value {
    json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check("v1 Service", with(&service(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created("v1 Service", service());
    assert_eq!(
        made["spec"],
        json!({
            "selector": {"app": "web"}, "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    let made = created(
        "v1 Service",
        with(
            &service(),
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "clusterIP": "10.0.0.1"}}),
        ),
    );
    let spec = &made["spec"];
    assert_eq!(
        (
            &spec["externalTrafficPolicy"],
            &spec["allocateLoadBalancerNodePorts"],
            &spec["clusterIPs"],
            &spec["sessionAffinityConfig"]
        ),
        (&json!("Cluster"), &json!(true), &json!(["10.0.0.1"]), &json!({"clientIP": {"timeoutSeconds": 10800}}))
    );
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(json!({"ports": null}), &["spec.ports: Required value"]);
    check(json!({"ports": null, "clusterIP": "None"}), &[]);
    check(
        json!({"type": "X"}),
        &[
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        json!({"ports": [{"port": 80}, {"port": 81}]}),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        json!({"ports": [{"port": 0, "targetPort": 1}]}),
        &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
    );
    check(
        json!({"ports": [{"port": 80, "nodePort": 30000}]}),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
        &[
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ],
    );
    check(json!({"type": "ExternalName", "ports": null}), &["spec.externalName: Required value"]);
    check(json!({"type": "ExternalName", "externalName": "a.b."}), &[]);
    check(
        json!({"type": "NodePort", "clusterIP": "None"}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check(
        json!({"sessionAffinity": "x"}),
        &["spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\""],
    );
    check(
        json!({"clusterIP": "a"}),
        &["spec.clusterIPs[0]: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
    );
    check(
        json!({"externalIPs": ["127.0.0.1"]}),
        &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"],
    );
    check(
        json!({"externalTrafficPolicy": "Local"}),
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
    );
    check(
        json!({"selector": {"a b": "c"}}),
        &[
            "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
}

#[test]
fn balancers() {
    check(
        json!({"loadBalancerSourceRanges": ["10.0.0.0/33"]}),
        &[
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check(
        json!({"type": "LoadBalancer", "ports": [{"port": 10250}]}),
        &["spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"],
    );
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    check(local.clone(), &["spec.healthCheckNodePort: Required value"]);
    check(with(&local, json!({"healthCheckNodePort": 30000})), &[]);
}

#[test]
fn updates() {
    let old = created(
        "v1 Service",
        with(
            &service(),
            json!({"spec": {
                "type": "NodePort", "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "nodePort": 30000}],
            }}),
        ),
    );
    let update =
        |patch: Value, expected: &[&str]| check_write("v1 Service", "", &old, json!({"spec": patch}), expected);
    let same = update(json!({"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ports": [{"port": 80}]}), &[]);
    assert_eq!(same["spec"], old["spec"]);
    update(
        json!({"clusterIP": "10.0.0.2"}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    let plain = update(json!({"type": "ClusterIP"}), &[]);
    assert_eq!(
        (&plain["spec"]["ports"][0]["nodePort"], &plain["spec"]["externalTrafficPolicy"], &plain["spec"]["clusterIP"]),
        (&Value::Null, &Value::Null, &json!("10.0.0.1"))
    );
    let external = update(json!({"type": "ExternalName", "externalName": "a.b"}), &[]);
    assert_eq!((&external["spec"]["clusterIP"], &external["spec"]["clusterIPs"]), (&Value::Null, &Value::Null));
    let status = check_write(
        "v1 Service",
        "status",
        &old,
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}}),
        &[],
    );
    assert_eq!(status["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
    check_write(
        "v1 Service",
        "status",
        &old,
        json!({"status": {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}}),
        &["status.loadBalancer.ingress[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
    );
}

#[test]
fn rows() {
    #[track_caller]
    fn row(spec: Value, status: Value, expected: &str) {
        check_row("v1 Service", json!({"spec": spec, "status": status}), expected);
    }
    let port = json!([{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]);
    row(
        json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": port, "selector": {"a": "b"}}),
        json!({}),
        "ClusterIP 10.0.0.1 <none> 80:30001/TCP,53/UDP 60m | a=b",
    );
    row(
        json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
        json!({}),
        "LoadBalancer 10.0.0.1 <pending> <none> 60m | <none>",
    );
    row(
        json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
        json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}),
        "LoadBalancer 10.0.0.1 127.0.0.1 <none> 60m | <none>",
    );
    row(
        json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
        json!({"loadBalancer": {"ingress": [{"hostname": "a.very.long.name.example"}]}}),
        "LoadBalancer 10.0.0.1 a.very.long.n... <none> 60m | <none>",
    );
    row(
        json!({"type": "ExternalName", "externalName": "a.b"}),
        json!({}),
        "ExternalName <none> a.b <none> 60m | <none>",
    );
    row(
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
        json!({}),
        "ClusterIP None <none> <none> 60m | <none>",
    );
}

#[test]
fn endpoints() {
    let check = crate::kinds::testing::check;
    check(
        "v1 Endpoints",
        json!({"subsets": [{}]}),
        &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
    );
    check(
        "v1 Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}),
        &[
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    let object = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 81}]}]});
    check_row("v1 Endpoints", object, "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... 60m");
    check_row("v1 Endpoints", json!({}), "<none> 60m");
}
