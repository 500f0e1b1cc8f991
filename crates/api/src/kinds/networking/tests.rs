use serde_json::{Value, json};

use crate::kind::{NameRule, Write};
use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const INGRESS: &str = "networking.k8s.io/v1 Ingress";
const CLASS: &str = "networking.k8s.io/v1 IngressClass";
const POLICY: &str = "networking.k8s.io/v1 NetworkPolicy";
const ADDRESS: &str = "networking.k8s.io/v1 IPAddress";
const CIDR: &str = "networking.k8s.io/v1 ServiceCIDR";

fn service(name: &str) -> Value {
    json!({"service": {"name": name, "port": {"number": 80}}})
}

fn ingress() -> Value {
    json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": service("web")},
    ]}}]}})
}

#[test]
fn ingresses() {
    let made = created(INGRESS, ingress());
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    assert_eq!(made["metadata"]["generation"], 1);
    check(INGRESS, ingress(), &[]);
    check(INGRESS, json!({"spec": {"defaultBackend": service("web")}}), &[]);
    check(
        INGRESS,
        json!({"spec": {}}),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    let rule = |rule: Value| json!({"spec": {"rules": [rule]}});
    check(
        INGRESS,
        rule(json!({"host": "10.0.0.1", "http": {}})),
        &[
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            "spec.rules[0].http.paths: Required value",
        ],
    );
    check(
        INGRESS,
        rule(json!({"host": "*.*.example.com"})),
        &[
            "spec.rules[0].host: Invalid value: \"*.*.example.com\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    let path = |path: Value| rule(json!({"http": {"paths": [path]}}));
    check(
        INGRESS,
        path(json!({"backend": service("web")})),
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );
    check(
        INGRESS,
        path(json!({"pathType": "Glob", "backend": service("web")})),
        &[
            "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Glob\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
        ],
    );
    check(
        INGRESS,
        path(json!({"pathType": "Exact", "path": "a//b/..", "backend": service("web")})),
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must be an absolute path",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must not contain '//'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": cannot end with '/..'",
        ],
    );
    check(INGRESS, path(json!({"pathType": "ImplementationSpecific", "backend": service("web")})), &[]);
    let backend = |backend: Value| json!({"spec": {"defaultBackend": backend}});
    let reference = json!({"apiGroup": "A", "kind": "", "name": "a/b"});
    check(
        INGRESS,
        backend(json!({"service": {"name": "1a", "port": {}}})),
        &[
            "spec.defaultBackend.service.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            "spec.defaultBackend: Required value: port name or number is required",
        ],
    );
    check(
        INGRESS,
        backend(json!({"service": {"name": "a", "port": {"name": "http", "number": 80}}})),
        &["spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"],
    );
    check(
        INGRESS,
        backend(json!({"service": {"name": "a", "port": {"number": 70000}}})),
        &["spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
    check(
        INGRESS,
        backend(json!({})),
        &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
    );
    check(
        INGRESS,
        backend(json!({"resource": reference, "service": {"name": "a", "port": {"number": 1}}})),
        &["spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"],
    );
    check(
        INGRESS,
        backend(json!({"resource": {"kind": "", "name": "a/b"}})),
        &[
            "spec.defaultBackend.resource.kind: Required value",
            "spec.defaultBackend.resource.name: Invalid value: \"a/b\": may not contain '/'",
        ],
    );
}

#[test]
fn ingress_classes_by_annotation_and_status() {
    let annotated = with(
        &ingress(),
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b"}}),
    );
    check(
        INGRESS,
        annotated.clone(),
        &[
            "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified",
        ],
    );
    // An update may leave them in disagreement.
    check_write(INGRESS, "", &created(INGRESS, annotated.clone()), json!({}), &[]);
    let strategy = kind(INGRESS).strategy;
    let old_way = with(&annotated, json!({"spec": {"ingressClassName": null}}));
    assert_eq!(
        strategy.warnings(&old_way, Write::Create),
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    );
    assert!(strategy.warnings(&annotated, Write::Create).is_empty());
    let made = created(INGRESS, ingress());
    let changed = check_write(
        INGRESS,
        "status",
        &made,
        json!({"spec": {"ingressClassName": "x"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "b"}]}}}),
        &[],
    );
    assert_eq!((&changed["spec"], &changed["metadata"]["generation"]), (&made["spec"], &json!(1)));
    check_write(
        INGRESS,
        "status",
        &made,
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "1.2.3.4"}]}}}),
        &[
            "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "status.loadBalancer.ingress[1].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
        ],
    );
    let updated = check_write(INGRESS, "", &changed, json!({"spec": {"ingressClassName": "x"}, "status": null}), &[]);
    assert_eq!((&updated["status"], &updated["metadata"]["generation"]), (&changed["status"], &json!(2)));
    check_row(INGRESS, updated, "x a.example.com 1.2.3.4,b 80 60m");
    let rules: Vec<Value> = (0..5).map(|i| json!({"host": format!("h{i}")})).collect();
    check_row(INGRESS, json!({"spec": {"rules": rules, "tls": [{}]}}), "<none> h0,h1,h2 + 2 more...  80, 443 60m");
    check_row(INGRESS, json!({"spec": {"rules": [{}]}}), "<none> *  80 60m");
}

#[test]
fn ingress_class_kind() {
    let class = json!({"spec": {"controller": "example.com/a", "parameters": {"apiGroup": "k8s.example.com", "kind": "P", "name": "p"}}});
    let made = created(CLASS, class.clone());
    assert_eq!(made["spec"]["parameters"]["scope"], "Cluster");
    check_row(CLASS, made.clone(), "example.com/a P.k8s.example.com/p 60m");
    check_row(CLASS, json!({"spec": {"controller": "a.b/c"}}), "a.b/c <none> 60m");
    check(CLASS, class, &[]);
    check(CLASS, json!({"spec": {}}), &["spec.controller: Required value"]);
    check(
        CLASS,
        json!({"spec": {"controller": "example.com"}}),
        &["spec.controller: Invalid value: \"example.com\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check(
        CLASS,
        json!({"spec": {"controller": "example.com/a b"}}),
        &[
            "spec.controller: Invalid value: \"a b\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        ],
    );
    check(
        CLASS,
        json!({"spec": {"controller": format!("a.b/{}", "c".repeat(250))}}),
        &["spec.controller: Too long: may not be more than 250 bytes"],
    );
    let parameters = |parameters: Value| json!({"spec": {"controller": "a.b/c", "parameters": parameters}});
    check(
        CLASS,
        parameters(json!({"scope": "Namespace"})),
        &[
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Required value",
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ],
    );
    check(
        CLASS,
        parameters(json!({"kind": "a", "name": "b", "namespace": "n"})),
        &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
    );
    check(
        CLASS,
        parameters(json!({"kind": "a", "name": "b", "scope": "x"})),
        &["spec.parameters.scope: Unsupported value: \"x\": supported values: \"Cluster\", \"Namespace\""],
    );
    check_write(
        CLASS,
        "",
        &made,
        json!({"spec": {"controller": "a.b/other"}}),
        &["spec.controller: Invalid value: \"a.b/other\": field is immutable"],
    );
    let changed = check_write(CLASS, "", &made, json!({"spec": {"parameters": null}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[test]
fn network_policies() {
    let made = created(POLICY, json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}}));
    assert_eq!(
        made["spec"],
        json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}],
        })
    );
    assert_eq!(created(POLICY, json!({}))["spec"]["policyTypes"], json!(["Ingress"]));
    check_row(POLICY, made.clone(), "<none> 60m");
    check_row(POLICY, json!({"spec": {"podSelector": {"matchLabels": {"app": "db"}}}}), "app=db 60m");
    let ingress = |rule: Value| json!({"spec": {"ingress": [rule]}});
    check(
        POLICY,
        ingress(json!({"ports": [
            {"port": 80, "endPort": 70}, {"port": "http", "endPort": 1}, {"endPort": 1}, {"port": 0}, {"protocol": "ICMP"}, {"port": "HTTP"},
        ]})),
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
            "spec.ingress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
            "spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is not specified",
            "spec.ingress[0].ports[3].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ingress[0].ports[4].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            "spec.ingress[0].ports[5].port: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.ingress[0].ports[5].port: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
        ],
    );
    check(
        POLICY,
        ingress(json!({"from": [
            {}, {"podSelector": {}, "namespaceSelector": {}}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}},
            {"ipBlock": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/16", "x"]}},
        ]})),
        &[
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[2]: Forbidden: may not specify both ipBlock and another peer",
            "spec.ingress[0].from[3].ipBlock.cidr: Required value",
            "spec.ingress[0].from[4].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            "spec.ingress[0].from[4].ipBlock.except[2]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.ingress[0].from[4].ipBlock.except[3]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check(
        POLICY,
        json!({"spec": {"policyTypes": ["Ingress", "x"]}}),
        &["spec.policyTypes[1]: Unsupported value: \"x\": supported values: \"Ingress\", \"Egress\""],
    );
    check(
        POLICY,
        json!({"spec": {"policyTypes": ["Ingress", "Egress", "x"]}}),
        &["spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"x\"]: may not specify more than two policyTypes"],
    );
    let changed = check_write(POLICY, "", &made, json!({"spec": {"policyTypes": ["Egress"]}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
    let odd = ingress(json!({"from": [{"ipBlock": {"cidr": "10.1.2.3/8", "except": ["2001:0db8::/64"]}}]}));
    assert_eq!(
        kind(POLICY).strategy.warnings(&odd, Write::Create),
        [
            "spec.ingress[0].from[0].ipBlock.cidr: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.2.3/32\"?)",
            "spec.ingress[0].from[0].ipBlock.except[0]: IPv6 CIDR value \"2001:0db8::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")",
        ]
    );
}

#[test]
fn ip_addresses() {
    let parent = |parent: Value| json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}});
    let made = created(ADDRESS, parent(json!({"resource": "services", "namespace": "default", "name": "a"})));
    check(ADDRESS, made.clone(), &[]);
    check_row(ADDRESS, made.clone(), "services/default/a");
    check_row(ADDRESS, parent(json!({"group": "Example.com", "resource": "Vips", "name": "v"})), "vips.example.com/v");
    check(ADDRESS, json!({"spec": {}}), &["spec.parentRef: Required value"]);
    check(
        ADDRESS,
        parent(json!({"namespace": "a/b"})),
        &[
            "spec.parentRef.resource: Required value",
            "spec.parentRef.name: Required value",
            "spec.parentRef.namespace: Invalid value: \"a/b\": may not contain '/'",
        ],
    );
    check_write(
        ADDRESS,
        "",
        &made,
        json!({"spec": {"parentRef": {"name": "b"}}}),
        &[
            "spec.parentRef: Invalid value: {\"name\":\"b\",\"namespace\":\"default\",\"resource\":\"services\"}: field is immutable",
        ],
    );
    let rule = kind(ADDRESS).strategy.name_rule();
    assert_eq!(rule, NameRule::Ip);
    for (name, complaint) in [
        ("10.0.0.1", None),
        ("2001:db8::1", None),
        ("a", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
        ("10.0.0.01", Some("must not have leading 0s")),
        ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
        ("2001:DB8::1", Some("must be in canonical form (\"2001:db8::1\")")),
    ] {
        assert_eq!(rule.check()(name), Vec::from_iter(complaint), "{name}");
    }
}

#[test]
fn service_cidrs() {
    let cidrs = |cidrs: Value| json!({"spec": {"cidrs": cidrs}});
    let made = created(CIDR, cidrs(json!(["10.96.0.0/12"])));
    check_row(CIDR, made.clone(), "10.96.0.0/12 60m");
    check(CIDR, cidrs(json!(["10.96.0.0/12", "2001:db8::/64"])), &[]);
    check(CIDR, json!({}), &["spec.cidrs: Required value: at least one CIDR required"]);
    check(
        CIDR,
        cidrs(json!(["a", "b", "c"])),
        &["spec.cidrs: Invalid value: {\"CIDRs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values"],
    );
    check(
        CIDR,
        cidrs(json!(["10.0.0.0/8", "11.0.0.0/8"])),
        &[
            "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ],
    );
    for (cidr, complaint) in [
        ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
        ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
        ("::ffff:1.2.3.0/120", "must not have an IPv4-mapped IPv6 address"),
        ("2001:DB8::/64", "must be in canonical form (\"2001:db8::/64\")"),
    ] {
        check(CIDR, cidrs(json!([cidr])), &[&format!("spec.cidrs[0]: Invalid value: {cidr:?}: {complaint}")]);
    }
    check_write(CIDR, "", &made, cidrs(json!(["10.96.0.0/12", "2001:db8::/64"])), &[]);
    check_write(
        CIDR,
        "",
        &made,
        cidrs(json!(["10.0.0.0/8"])),
        &["spec.cidrs[0]: Invalid value: \"10.0.0.0/8\": field is immutable"],
    );
    check_write(CIDR, "", &made, cidrs(json!([])), &["spec.cidrs: Invalid value: null: field is immutable"]);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"cidrs": ["x"]}});
    let changed = check_write(CIDR, "status", &made, ready, &[]);
    assert_eq!(changed["spec"], made["spec"]);
    assert_eq!(changed["status"]["conditions"][0]["type"], "Ready");
}

#[test]
fn policies_that_select_all_or_nothing_are_not_the_same() {
    let policy = |spec: Value| {
        let mut object = created(POLICY, json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}));
        object["metadata"]["generation"] = json!(1);
        object
    };
    let generation = |from: Value, to: Value| {
        let old = policy(json!({"podSelector": {}, "ingress": from}));
        let new = check_write(POLICY, "", &old, json!({"spec": {"ingress": to}}), &[]);
        new["metadata"]["generation"].clone()
    };
    let pods = json!([{"from": [{"namespaceSelector": {}}]}]);
    let pods_of_all = json!([{"from": [{"namespaceSelector": {}, "podSelector": {}}]}]);
    assert_eq!(generation(pods.clone(), pods_of_all), 2);
    assert_eq!(generation(pods.clone(), json!([{"from": [{"namespaceSelector": {"matchLabels": {}}}]}])), 1);
    assert_eq!(generation(json!([]), json!([{}])), 2);
    assert_eq!(generation(json!([{"ports": []}]), json!([{}])), 1);
}
