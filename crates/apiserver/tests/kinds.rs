//! Kinds that the server itself fills in or keeps: certificate requests, flow control, APIServices, the range of ClusterIPs.

mod support;

use std::time::{Duration, Instant};

use base64::Engine;
use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::TestServer;

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn request(group: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    base64::engine::general_purpose::STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

fn csr(name: &str, group: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "request": request(group), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        "username": "root", "groups": ["system:masters"],
    }})
}

#[tokio::test]
async fn certificate_requests_say_who_asked_and_need_a_permitted_approver() {
    let test = TestServer::start().await;
    let admin = test.admin();
    let group = "certificates.k8s.io";
    let rules = json!([{"verbs": ["*"], "apiGroups": [group], "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]}]);
    admin.ok(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "csr"}, "rules": rules})).await;
    let bind = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    admin.ok(&format!("POST {RBAC}/clusterrolebindings"), bind("csr", "csr")).await;
    let mut user = UserInfo::new("jane", ["devs"]);
    user.uid = "u-1".into();
    user.extra = [("k".to_owned(), vec!["v".to_owned()])].into();
    let jane = test.api(user);

    let made = jane.ok(&format!("POST {CSRS}"), csr("a", "devs")).await;
    let spec = &made["spec"];
    assert_eq!(
        (&spec["username"], &spec["uid"], &spec["groups"], &spec["extra"]),
        (&json!("jane"), &json!("u-1"), &json!(["devs", "system:authenticated"]), &json!({"k": ["v"]}))
    );
    let (code, status) = jane.call(&format!("POST {CSRS}"), csr("m", "system:masters")).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );

    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Ok"}]}});
    let approve = format!("PATCH+merge {CSRS}/a/approval");
    let (code, status) = jane.call(&approve, approved.clone()).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
    );
    let signers = json!([{"verbs": ["approve"], "apiGroups": [group], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]}]);
    admin.ok(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "approver"}, "rules": signers})).await;
    admin.ok(&format!("POST {RBAC}/clusterrolebindings"), bind("approver", "approver")).await;
    let made = jane.ok(&approve, approved).await;
    let condition = &made["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{condition}");
    assert_eq!(jane.ok(&format!("GET {CSRS}/a/approval"), Value::Null).await["status"], made["status"]);
    let (code, _) = jane
        .call(
            &format!("PATCH+merge {CSRS}/a/status"),
            json!({"status": {"conditions": [
                {"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"},
            ]}}),
        )
        .await;
    assert_eq!(code, 403, "who may approve may not sign");

    let found = admin
        .ok(&format!("GET {CSRS}?fieldSelector=spec.signerName%3Dkubernetes.io/kube-apiserver-client"), Value::Null)
        .await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    let found = admin.ok(&format!("GET {CSRS}?fieldSelector=spec.signerName%3Dx/y"), Value::Null).await;
    assert_eq!(found["items"], json!([]));
}

#[tokio::test]
async fn flow_control_is_kept() {
    let test = TestServer::start().await;
    let admin = test.admin();
    let count = |wanted: usize| move |_: u16, list: &Value| list["items"].as_array().is_some_and(|l| l.len() == wanted);
    admin.eventually(&format!("GET {FLOW}/flowschemas"), count(13)).await;
    admin.eventually(&format!("GET {FLOW}/prioritylevelconfigurations"), count(8)).await;

    // Deleted ones come back, mandatory or not.
    for name in ["flowschemas/catch-all", "flowschemas/probes", "prioritylevelconfigurations/workload-low"] {
        let old = admin.ok(&format!("GET {FLOW}/{name}"), Value::Null).await;
        admin.ok(&format!("DELETE {FLOW}/{name}"), Value::Null).await;
        let uid = old["metadata"]["uid"].clone();
        admin.eventually(&format!("GET {FLOW}/{name}"), |code, new| code == 200 && new["metadata"]["uid"] != uid).await;
    }
    // A suggestion that somebody changed comes back too, unless he says that it is his.
    let path = format!("{FLOW}/prioritylevelconfigurations/workload-low");
    let shares = |n: i64| json!({"spec": {"limited": {"nominalConcurrencyShares": n}}});
    let has = |n: i64| move |_: u16, level: &Value| level["spec"]["limited"]["nominalConcurrencyShares"] == n;
    admin.ok(&format!("PATCH+merge {path}"), shares(7)).await;
    admin.eventually(&format!("GET {path}"), has(100)).await;
    let mine = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    admin.ok(&format!("PATCH+merge {path}"), mine).await;
    admin.ok(&format!("PATCH+merge {path}"), shares(7)).await;
    // Something else that is kept shows that the change was looked at.
    admin.ok(&format!("DELETE {FLOW}/flowschemas/probes"), Value::Null).await;
    admin.eventually(&format!("GET {FLOW}/flowschemas/probes"), |code, _| code == 200).await;
    assert_eq!(admin.ok(&format!("GET {path}"), Value::Null).await["spec"]["limited"]["nominalConcurrencyShares"], 7);
}

#[tokio::test]
async fn the_servers_own_groups_and_range() {
    let test = TestServer::start().await;
    let admin = test.admin();
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    let service = admin.eventually(&format!("GET {services}/v1.apps"), |code, _| code == 200).await;
    assert_eq!(service["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    admin.eventually(&format!("GET {services}/v1."), |code, _| code == 200).await;
    let groups = admin.ok("GET /apis", Value::Null).await;
    for group in groups["groups"].as_array().unwrap() {
        let (name, version) = (&group["name"], &group["preferredVersion"]["version"]);
        let name = format!("{}.{}", version.as_str().unwrap(), name.as_str().unwrap());
        if name != "v1.apiregistration.k8s.io" {
            admin.eventually(&format!("GET {services}/{name}"), |code, _| code == 200).await;
        }
    }
    let cidrs = "/apis/networking.k8s.io/v1/servicecidrs";
    let ready = |_: u16, cidr: &Value| cidr["status"]["conditions"][0]["status"] == "True";
    let cidr = admin.eventually(&format!("GET {cidrs}/kubernetes"), ready).await;
    assert_eq!(cidr["spec"]["cidrs"], json!(["10.96.0.0/12"]));
}

#[tokio::test]
async fn a_review_without_a_token_is_no_question() {
    let test = TestServer::start().await;
    let request = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    let (code, status) = test.admin().call(request, json!({"spec": {}})).await;
    assert_eq!((code, &status["message"]), (400, &json!("token is required for TokenReview in authentication")));
}

/// What leads is healthy: the leases of the control plane say so.
#[tokio::test]
async fn components_are_healthy_while_they_lead() {
    let test = TestServer::start().await;
    let api = test.admin();
    let statuses = "/api/v1/componentstatuses";
    let health = async || -> Vec<(String, String, String)> {
        let list = api.ok(&format!("GET {statuses}"), json!(null)).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let read = |item: &Value| {
            let condition = &item["conditions"][0];
            (text(&item["metadata"]["name"]), text(&condition["status"]), text(&condition["message"]))
        };
        list["items"].as_array().unwrap().iter().map(read).collect()
    };
    let row = |name: &str, status: &str, message: &str| (name.to_owned(), status.to_owned(), message.to_owned());
    let none = |lease: &str| format!("leases.coordination.k8s.io \"{lease}\" not found");
    let controllers = row("controller-manager", "False", &none("kube-controller-manager"));
    let store = row("etcd-0", "True", "ok");
    let scheduler = row("scheduler", "False", &none("kube-scheduler"));
    assert_eq!(health().await, [scheduler, controllers.clone(), store.clone()]);

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let lease = |renewed: jiff::Timestamp| {
        json!({"metadata": {"name": "kube-scheduler"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15,
            "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()}})
    };
    let now = jiff::Timestamp::now();
    api.ok(&format!("POST {leases}"), lease(now)).await;
    assert_eq!(health().await, [row("scheduler", "True", "ok"), controllers.clone(), store.clone()]);
    let one = api.ok(&format!("GET {statuses}/scheduler"), json!(null)).await;
    assert_eq!(one["conditions"][0]["status"], "True");
    assert_eq!(api.call(&format!("GET {statuses}/nobody"), json!(null)).await.0, 404);

    let old = lease(now - jiff::SignedDuration::from_secs(60));
    api.ok(&format!("PATCH+merge {leases}/kube-scheduler"), json!({"spec": old["spec"]})).await;
    let found = health().await;
    assert_eq!((found[0].1.as_str(), found[0].2.contains("was last renewed at")), ("False", true), "{found:?}");
    api.ok(&format!("PATCH+merge {leases}/kube-scheduler"), json!({"spec": {"holderIdentity": ""}})).await;
    assert_eq!(
        health().await,
        [row("scheduler", "False", "nobody holds the lease kube-scheduler"), controllers, store]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_by_when_the_server_wrote_them() {
    let test = TestServer::start_with(|config| config.event_ttl = Duration::from_secs(4)).await;
    let admin = test.admin();
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    // Whatever times an event gives, far ahead or long gone, it lives as long as any other.
    let event = |name: &str, at: &str| {
        json!({"metadata": {"name": name}, "type": "Normal", "reason": "Tested", "firstTimestamp": at, "lastTimestamp": at,
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}})
    };
    let begin = Instant::now();
    for (name, at) in
        [("ahead", "2100-01-02T03:04:05Z"), ("long-ago", "2001-02-03T04:05:06Z"), ("renewed", "2100-01-02T03:04:05Z")]
    {
        admin.ok(&format!("POST {EVENTS}"), event(name, at)).await;
    }
    let is_there = async |name: &str| admin.call(&format!("GET {EVENTS}/{name}"), json!(null)).await.0 == 200;
    let mut renewed = Instant::now();
    while is_there("ahead").await || is_there("long-ago").await {
        assert!(begin.elapsed() < Duration::from_secs(30));
        if renewed.elapsed() > Duration::from_millis(500) {
            renewed = Instant::now();
            admin
                .ok(&format!("PATCH+merge {EVENTS}/renewed"), json!({"count": begin.elapsed().as_millis() as u64}))
                .await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(4), "not before their time: {:?}", begin.elapsed());
    assert!(is_there("renewed").await, "every write counts");
    while is_there("renewed").await {
        assert!(renewed.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(renewed.elapsed() >= Duration::from_secs(4));
}
