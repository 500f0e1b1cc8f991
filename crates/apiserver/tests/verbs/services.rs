//! What stands in the store for addresses and ports of Services.

use std::time::Duration;

use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_store::{Expect, Store};
use serde_json::{Value, json};

use crate::support::{Api, TestServer};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const PORTS: &str = "/registry/ranges/servicenodeports/";

/// Names of the IPAddress objects, without that of the `kubernetes` Service, and numbers of the reserved ports.
async fn reserved(api: &Api, store: &dyn Store) -> (Vec<String>, Vec<u16>) {
    let list = api.ok(&format!("GET {ADDRESSES}"), json!(null)).await;
    let names = list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned());
    let names = names.filter(|name| name != "10.96.0.1").collect();
    let ports = store.range(PORTS, "", None, 0).await.unwrap().kvs;
    (names, ports.iter().map(|kv| kv.key.strip_prefix(PORTS).unwrap().parse().unwrap()).collect())
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn an_address_is_an_object() {
    let test = TestServer::start().await;
    let api = test.admin();
    let kubernetes = api.ok(&format!("GET {ADDRESSES}/10.96.0.1"), json!(null)).await;
    assert_eq!(
        kubernetes["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "kubernetes"})
    );
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(kubernetes["metadata"]["labels"], labels);

    let ports = json!([{"port": 80, "nodePort": 30080}, {"name": "b", "port": 81}]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.50", "ports": [ports[0]]});
    api.ok(&format!("POST {SERVICES}?dryRun=All"), service("a", spec.clone())).await;
    assert_eq!(reserved(&api, &*test.store).await, (vec![], vec![]), "a dry run takes nothing");
    api.ok(&format!("POST {SERVICES}"), service("a", spec.clone())).await;
    let taken = (vec!["10.96.0.50".to_owned()], vec![30080]);
    assert_eq!(reserved(&api, &*test.store).await, taken);
    // Neither one that is refused nor one that is there already leaves anything.
    let (code, status) = api.call(&format!("POST {SERVICES}"), service("a", spec)).await;
    assert_eq!((code, &status["reason"]), (409, &json!("AlreadyExists")));
    let other = json!({"ports": [{"port": 80}], "type": "NodePort"});
    assert_eq!(api.call(&format!("POST {SERVICES}"), service("a", other)).await.0, 409);
    let wrong = json!({"ports": [{"port": 80}], "sessionAffinity": "no"});
    assert_eq!(api.call(&format!("POST {SERVICES}"), service("c", wrong)).await.0, 422);
    assert_eq!(reserved(&api, &*test.store).await, taken);
    // What somebody else has reserved is his.
    let parent =
        json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"});
    api.ok(&format!("POST {ADDRESSES}"), json!({"metadata": {"name": "10.96.0.51"}, "spec": {"parentRef": parent}}))
        .await;
    let spec = json!({"clusterIP": "10.96.0.51", "ports": [{"port": 80}]});
    let (code, status) = api.call(&format!("POST {SERVICES}"), service("b", spec.clone())).await;
    assert_eq!(code, 422, "{status}");
    assert!(status["message"].as_str().unwrap().contains("provided IP is already allocated"), "{status}");
    api.ok(&format!("DELETE {ADDRESSES}/10.96.0.51"), json!(null)).await;
    api.ok(&format!("POST {SERVICES}"), service("b", spec)).await;
    api.ok(&format!("DELETE {SERVICES}"), json!(null)).await;
    let (names, ports) = reserved(&api, &*test.store).await;
    assert_eq!((names.len(), ports.len()), (0, 0), "{names:?} {ports:?}");
}

#[tokio::test]
async fn reservations_follow_the_type() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = format!("{SERVICES}/a");
    let spec = json!({"clusterIP": "10.96.0.50", "ports": [{"port": 80, "nodePort": 30080}], "type": "NodePort"});
    api.ok(&format!("POST {SERVICES}"), service("a", spec)).await;
    let patch = async |spec: Value| api.ok(&format!("PATCH+merge {path}"), json!({"spec": spec})).await;
    let ip = || vec!["10.96.0.50".to_owned()];
    patch(json!({"type": "ClusterIP"})).await;
    assert_eq!(reserved(&api, &*test.store).await, (ip(), vec![]));
    let balanced = patch(json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30081}],
        "healthCheckNodePort": 30082,
    }));
    assert_eq!(balanced.await["spec"]["clusterIP"], "10.96.0.50");
    assert_eq!(reserved(&api, &*test.store).await, (ip(), vec![30081, 30082]));
    patch(json!({"ports": [{"port": 80, "nodePort": 30083}]})).await;
    assert_eq!(reserved(&api, &*test.store).await, (ip(), vec![30082, 30083]), "another port");
    let (code, status) = api
        .call(&format!("PATCH+merge {path}?dryRun=All"), json!({"spec": {"ports": [{"port": 80, "nodePort": 30084}]}}))
        .await;
    assert_eq!(code, 200, "{status}");
    let external = json!({"type": "ExternalName", "externalName": "example.com", "ports": null, "clusterIP": null,
        "clusterIPs": null, "externalTrafficPolicy": null, "healthCheckNodePort": null, "allocateLoadBalancerNodePorts": null});
    patch(external).await;
    assert_eq!(reserved(&api, &*test.store).await, (vec![], vec![]));
    let back = json!({"type": "ClusterIP", "externalName": null, "clusterIP": "10.96.0.52", "ports": [{"port": 80}]});
    patch(back).await;
    assert_eq!(reserved(&api, &*test.store).await, (vec!["10.96.0.52".to_owned()], vec![]));
    api.ok(&format!("DELETE {path}"), json!(null)).await;
    let headless = json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]});
    api.ok(&format!("POST {SERVICES}"), service("h", headless)).await;
    assert_eq!(reserved(&api, &*test.store).await, (vec![], vec![]));
}

#[tokio::test]
async fn what_is_missing_is_made_and_what_is_nobodys_goes() {
    let test = TestServer::start_with(|config| config.repair_services_interval = Duration::from_millis(100)).await;
    let api = test.admin();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.50", "ports": [{"port": 80, "nodePort": 30080}]});
    api.ok(&format!("POST {SERVICES}"), service("a", spec)).await;
    api.ok(&format!("DELETE {ADDRESSES}/10.96.0.50"), json!(null)).await;
    api.eventually(&format!("GET {ADDRESSES}/10.96.0.50"), |code, _| code == 200).await;
    // As a server would leave it that ends between the reservation and the Service.
    let made = |name: &str, labels: Value| {
        let parent = json!({"resource": "services", "namespace": "default", "name": "gone"});
        json!({"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": parent}})
    };
    let managed = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    api.ok(&format!("POST {ADDRESSES}"), made("10.96.0.60", json!({}))).await;
    api.ok(&format!("POST {ADDRESSES}"), made("10.96.0.61", managed)).await;
    let value = json!({"service": "default/gone"}).to_string();
    test.store.put(&format!("{PORTS}30081"), value.into(), Expect::Absent).await.unwrap();
    api.eventually(&format!("GET {ADDRESSES}/10.96.0.61"), |code, _| code == 404).await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30081}]});
    api.eventually(&format!("GET {ADDRESSES}/10.96.0.60"), |code, _| code == 200).await;
    let mut code = 422;
    for _ in 0..500 {
        (code, _) = api.call(&format!("POST {SERVICES}"), service("b", spec.clone())).await;
        if code != 422 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code, 201, "the port is free again");
}

#[tokio::test]
async fn services_of_earlier_versions_are_taken_over() {
    let test = TestServer::start().await;
    let api = test.admin();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.50", "ports": [{"port": 80, "nodePort": 30080}]});
    api.ok(&format!("POST {SERVICES}"), service("a", spec)).await;
    let mut expected = reserved(&api, &*test.store).await;
    // What a server left that was the only one is freed at once. On a shared store it may be another server's write that is
    // still under way, and it stays for an interval.
    if test.store.is_shared() {
        expected.1.push(30081);
    }
    let left = json!({"service": "default/gone"}).to_string();
    test.store.put(&format!("{PORTS}30081"), left.into(), Expect::Absent).await.unwrap();
    let store = test.store.clone();
    // The first server goes on beside the second one, but its loop does not wake in so short a time.
    store.delete(&format!("{PORTS}30080"), Expect::Any).await.unwrap();
    store.delete("/registry/networking.k8s.io/ipaddresses/10.96.0.50", Expect::Any).await.unwrap();
    let second = ApiServer::new(Config::default(), store.clone()).await.unwrap();
    let api = Api::new(second, UserInfo::new("admin", ["system:masters"]));
    assert_eq!(reserved(&api, &*store).await, expected);
}

#[tokio::test]
async fn what_a_judge_refuses_is_given_back() {
    let test = TestServer::start().await;
    let api = test.admin();
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}]);
    let validations = json!([{"expression": "!('refused' in object.metadata.labels)"}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules}, "validations": validations}});
    api.ok("POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", policy).await;
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    api.ok("POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", binding).await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.50", "ports": [{"port": 80, "nodePort": 30080}]});
    let refused = json!({"metadata": {"name": "a", "labels": {"refused": "1"}}, "spec": spec});
    let mut last = (0, json!(null));
    for _ in 0..500 {
        last = api.call(&format!("POST {SERVICES}"), refused.clone()).await;
        if last.0 == 422 {
            break;
        }
        api.ok(&format!("DELETE {SERVICES}/a"), json!(null)).await;
    }
    assert!(last.1["message"].as_str().unwrap().contains("ValidatingAdmissionPolicy 'p'"), "{last:?}");
    assert_eq!(reserved(&api, &*test.store).await, (vec![], vec![]));
}
