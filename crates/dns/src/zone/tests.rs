use std::sync::Arc;

use serde_json::json;

use super::*;

fn zone(pods: PodMode) -> Zone {
    Zone::new("cluster.local", 30, pods, Ipv4Addr::new(10, 96, 0, 10)).unwrap()
}

fn index() -> Index {
    let mut index = Index::default();
    for name in ["default", "empty"] {
        index.set_namespace(&serde_json::from_value(json!({"metadata": {"name": name}})).unwrap());
    }
    let mut service = |name: &str, spec: serde_json::Value| {
        let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        index.set_service(Arc::new(serde_json::from_value(service).unwrap()));
    };
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    service("web", json!({"clusterIP": "10.96.0.5", "ports": ports}));
    service("plain", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]}));
    service("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
    service("early", json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    service("none", json!({"clusterIP": "None"}));
    service("out", json!({"type": "ExternalName", "externalName": "www.example.com"}));
    service("alias", json!({"type": "ExternalName", "externalName": "WEB.default.svc.cluster.local."}));
    service("loop", json!({"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"}));
    let mut slice = |service: &str, n: u8, endpoints: serde_json::Value, ports: serde_json::Value| {
        let slice = json!({
            "metadata": {"name": format!("{service}-{n}"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        });
        index.set_slice(Arc::new(serde_json::from_value(slice).unwrap()));
    };
    let sql = json!([{"name": "sql", "port": 5432}]);
    let ready = |ready: bool| json!({"ready": ready});
    slice(
        "db",
        1,
        json!([
            {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": ready(true)},
            {"addresses": ["10.244.0.3"]},
            {"addresses": ["10.244.0.4"], "hostname": "db-2", "conditions": ready(false)},
        ]),
        sql.clone(),
    );
    slice("db", 2, json!([{"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": ready(true)}]), sql);
    slice("early", 1, json!([{"addresses": ["10.244.0.9"], "conditions": ready(false)}]), json!([]));
    slice("none", 1, json!([{"addresses": ["10.244.0.9"], "conditions": ready(false)}]), json!([]));
    slice("web", 1, json!([{"addresses": ["10.244.0.7"]}]), json!([{"name": "http", "port": 8080}]));
    index.set_pod(
        &serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default"}, "status": {"podIP": "10.244.0.8"},
        }))
        .unwrap(),
    );
    index
}

/// Records as `owner TYPE data`, additional ones in brackets; or the code with the SOA's owner.
fn ask_with(zone: &Zone, name: &str, record_type: RecordType) -> Vec<String> {
    let name = Name::from_ascii(name).unwrap();
    let Outcome::Answer(answer) = zone.answer(&index(), &name, record_type, false) else {
        return vec!["elsewhere".to_owned()];
    };
    let line = |r: &Record| {
        assert_eq!(r.ttl, 30);
        format!("{} {} {}", r.name, r.record_type(), r.data)
    };
    let mut lines: Vec<String> = answer.records.iter().map(line).collect();
    lines.extend(answer.additional.iter().map(|r| format!("[{}]", line(r))));
    lines.extend(answer.elsewhere.iter().map(|name| format!("then {name}")));
    if let Some(soa) = answer.soa {
        let code = if answer.exists { "NOERROR" } else { "NXDOMAIN" };
        assert!(matches!(soa.data, RData::SOA(_)));
        lines.push(format!("{code} {}", soa.name));
    }
    lines
}

fn check(name: &str, record_type: RecordType, expected: &[&str]) {
    assert_eq!(ask_with(&zone(PodMode::Insecure), name, record_type), expected, "{name} {record_type}");
}

const NODATA: &[&str] = &["NOERROR cluster.local."];
const NXDOMAIN: &[&str] = &["NXDOMAIN cluster.local."];

#[test]
fn services() {
    check("web.default.svc.cluster.local.", RecordType::A, &["web.default.svc.cluster.local. A 10.96.0.5"]);
    // The owner is spelled as the question was.
    check("Web.Default.SVC.cluster.Local.", RecordType::A, &["Web.Default.SVC.cluster.Local. A 10.96.0.5"]);
    check("web.default.svc.cluster.local.", RecordType::AAAA, NODATA);
    check("web.default.svc.cluster.local.", RecordType::MX, NODATA);
    check("nope.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check("web.nope.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check("a.b.c.web.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check(
        "10-244-0-7.web.default.svc.cluster.local.",
        RecordType::A,
        &["10-244-0-7.web.default.svc.cluster.local. A 10.244.0.7"],
    );
}

#[test]
fn names_in_between_exist() {
    for name in ["default.svc.cluster.local.", "empty.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
        check(name, RecordType::A, NODATA);
    }
    check("_tcp.web.default.svc.cluster.local.", RecordType::A, NODATA);
    check("_sctp.web.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check("nope.cluster.local.", RecordType::A, NXDOMAIN);
    check("nope.svc.cluster.local.", RecordType::A, NXDOMAIN);
}

#[test]
fn headless_services() {
    check(
        "db.default.svc.cluster.local.",
        RecordType::A,
        &["db.default.svc.cluster.local. A 10.244.0.2", "db.default.svc.cluster.local. A 10.244.0.3"],
    );
    check("DB-0.db.default.svc.cluster.local.", RecordType::A, &["DB-0.db.default.svc.cluster.local. A 10.244.0.2"]);
    check(
        "10-244-0-3.db.default.svc.cluster.local.",
        RecordType::A,
        &["10-244-0-3.db.default.svc.cluster.local. A 10.244.0.3"],
    );
    check("10-244-0-2.db.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check("db-2.db.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
    check("early.default.svc.cluster.local.", RecordType::A, &["early.default.svc.cluster.local. A 10.244.0.9"]);
    check("none.default.svc.cluster.local.", RecordType::A, NXDOMAIN);
}

#[test]
fn named_ports() {
    check(
        "_http._tcp.web.default.svc.cluster.local.",
        RecordType::SRV,
        &[
            "_http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local.",
            "[web.default.svc.cluster.local. A 10.96.0.5]",
        ],
    );
    check("_http._udp.web.default.svc.cluster.local.", RecordType::SRV, NXDOMAIN);
    check("_http._tcp.web.default.svc.cluster.local.", RecordType::A, NODATA);
    check(
        "_sql._tcp.db.default.svc.cluster.local.",
        RecordType::SRV,
        &[
            "_sql._tcp.db.default.svc.cluster.local. SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
            "_sql._tcp.db.default.svc.cluster.local. SRV 0 50 5432 10-244-0-3.db.default.svc.cluster.local.",
            "[db-0.db.default.svc.cluster.local. A 10.244.0.2]",
            "[10-244-0-3.db.default.svc.cluster.local. A 10.244.0.3]",
        ],
    );
    check(
        "plain.default.svc.cluster.local.",
        RecordType::SRV,
        &[
            "plain.default.svc.cluster.local. SRV 0 100 80 plain.default.svc.cluster.local.",
            "[plain.default.svc.cluster.local. A 10.96.0.6]",
        ],
    );
}

#[test]
fn external_names() {
    let alias = "out.default.svc.cluster.local. CNAME www.example.com.";
    check("out.default.svc.cluster.local.", RecordType::A, &[alias, "then www.example.com."]);
    check("out.default.svc.cluster.local.", RecordType::CNAME, &[alias]);
    check(
        "alias.default.svc.cluster.local.",
        RecordType::A,
        &[
            "alias.default.svc.cluster.local. CNAME WEB.default.svc.cluster.local.",
            "WEB.default.svc.cluster.local. A 10.96.0.5",
        ],
    );
    let lines = ask_with(&zone(PodMode::Insecure), "loop.default.svc.cluster.local.", RecordType::A);
    assert_eq!(lines.len(), MAX_ALIASES, "a loop ends");
}

#[test]
fn pods() {
    let (own, other) = ("10-244-0-8.default.pod.cluster.local.", "10-244-9-9.default.pod.cluster.local.");
    check(own, RecordType::A, &["10-244-0-8.default.pod.cluster.local. A 10.244.0.8"]);
    check(other, RecordType::A, &["10-244-9-9.default.pod.cluster.local. A 10.244.9.9"]);
    check("10-244-0-8.nope.pod.cluster.local.", RecordType::A, NXDOMAIN);
    check("p.default.pod.cluster.local.", RecordType::A, NXDOMAIN);
    check("default.pod.cluster.local.", RecordType::A, NODATA);
    let verified = zone(PodMode::Verified);
    assert_eq!(ask_with(&verified, own, RecordType::A).len(), 1);
    assert_eq!(ask_with(&verified, other, RecordType::A), NXDOMAIN);
    assert_eq!(ask_with(&zone(PodMode::Disabled), own, RecordType::A), NXDOMAIN);
}

#[test]
fn reverse_names() {
    let ptr = |ip: &str, expected: &[&str]| {
        let reversed: Vec<&str> = ip.rsplit('.').collect();
        let name = format!("{}.in-addr.arpa.", reversed.join("."));
        let expected: Vec<String> = expected
            .iter()
            .map(|e| if e.starts_with('N') { (*e).to_owned() } else { format!("{name} PTR {e}") })
            .collect();
        assert_eq!(ask_with(&zone(PodMode::Insecure), &name, RecordType::PTR), expected);
    };
    ptr("10.96.0.5", &["web.default.svc.cluster.local."]);
    ptr("10.244.0.2", &["db-0.db.default.svc.cluster.local."]);
    ptr("10.244.0.3", &["10-244-0-3.db.default.svc.cluster.local."]);
    ptr("10.244.0.7", &["10-244-0-7.web.default.svc.cluster.local."]);
    ptr("192.0.2.1", &["NXDOMAIN in-addr.arpa."]);
    check("5.0.96.10.in-addr.arpa.", RecordType::A, &["NOERROR in-addr.arpa."]);
    check("300.0.96.10.in-addr.arpa.", RecordType::PTR, &["elsewhere"]);
}

#[test]
fn the_zone_itself() {
    check("dns-version.cluster.local.", RecordType::TXT, &["dns-version.cluster.local. TXT 1.1.0"]);
    check("dns-version.cluster.local.", RecordType::A, NODATA);
    check(
        "cluster.local.",
        RecordType::NS,
        &["cluster.local. NS ns.dns.cluster.local.", "[ns.dns.cluster.local. A 10.96.0.10]"],
    );
    let soa = "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30";
    check("cluster.local.", RecordType::SOA, &[soa]);
    for name in ["example.com.", "local.", "xcluster.local."] {
        check(name, RecordType::A, &["elsewhere"]);
    }
}

#[test]
fn what_is_gone_is_denied() {
    let (zone, mut index) = (zone(PodMode::Verified), index());
    let gone = |index: &Index, name: &str, t| {
        let name = Name::from_ascii(name).unwrap();
        matches!(zone.answer(index, &name, t, false), Outcome::Answer(a) if !a.exists)
    };
    index.resync_services(Vec::new());
    assert!(gone(&index, "web.default.svc.cluster.local.", RecordType::A));
    assert!(gone(&index, "5.0.96.10.in-addr.arpa.", RecordType::PTR));
    index.resync_slices(Vec::new());
    index.resync_namespaces(&[]);
    index.resync_pods(&[]);
    assert!(gone(&index, "default.svc.cluster.local.", RecordType::A));
    assert!(gone(&index, "10-244-0-8.default.pod.cluster.local.", RecordType::A));
    assert!(gone(&index, "2.0.244.10.in-addr.arpa.", RecordType::PTR));
}
