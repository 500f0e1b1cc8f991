use futures::future::join_all;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use serde_json::{Value, json};

use super::{namespace, pod, refused, start};
use crate::support::store::{Gate, Hooked};
use crate::support::{Api, TestServer};

const PODS: &str = "POST /api/v1/namespaces/team/pods";
const QUOTAS: &str = "/api/v1/namespaces/team/resourcequotas";

/// A quota as the controller has first counted it: nothing is used.
async fn quota(api: &Api, name: &str, spec: Value) {
    api.ok(&format!("POST {QUOTAS}"), json!({"metadata": {"name": name}, "spec": spec})).await;
    let hard = spec["hard"].clone();
    let used: Value = hard.as_object().unwrap().keys().map(|name| (name.clone(), Value::from("0"))).collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    api.ok(&format!("PATCH+merge {QUOTAS}/{name}/status"), status).await;
}

async fn used(api: &Api, name: &str) -> Value {
    api.ok(&format!("GET {QUOTAS}/{name}"), Value::Null).await["status"]["used"].clone()
}

fn sized(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

#[tokio::test]
async fn use_is_charged_and_excess_refused() {
    let (_server, api) = start(json!({})).await;
    quota(
        &api,
        "q",
        json!({"hard": {"pods": "2", "requests.cpu": "1", "secrets": "1", "count/deployments.apps": "0"}}),
    )
    .await;
    refused(&api, PODS, pod("a"), 403, "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: c")
        .await;
    api.ok(PODS, sized("a", "600m")).await;
    assert_eq!(
        used(&api, "q").await,
        json!({"pods": "1", "requests.cpu": "600m", "secrets": "0", "count/deployments.apps": "0"})
    );
    let said = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: \
                requests.cpu=1";
    refused(&api, PODS, sized("b", "600m"), 403, said).await;
    // A dry run is judged and not charged.
    api.ok(&format!("{PODS}?dryRun=All"), sized("b", "400m")).await;
    assert_eq!(used(&api, "q").await["pods"], "1");
    let secret = |name: &str| json!({"metadata": {"name": name}});
    api.ok("POST /api/v1/namespaces/team/secrets", secret("s")).await;
    let said =
        "secrets \"t\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=1, limited: secrets=1";
    refused(&api, "POST /api/v1/namespaces/team/secrets", secret("t"), 403, said).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}}});
    let said = "deployments.apps \"d\" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: \
                count/deployments.apps=0, limited: count/deployments.apps=0";
    refused(&api, "POST /apis/apps/v1/namespaces/team/deployments", deployment, 403, said).await;
    // A pod that grows is charged for what it grows by.
    let grow = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    let resize = "PATCH+strategic /api/v1/namespaces/team/pods/a/resize";
    api.ok(resize, grow("900m")).await;
    assert_eq!(used(&api, "q").await["requests.cpu"], "900m");
    let (code, status) = api.call(resize, grow("1100m")).await;
    assert_eq!(code, 403, "{status}");
    // Not elsewhere.
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    api.ok("POST /api/v1/namespaces/default/pods", pod("a")).await;
}

#[tokio::test]
async fn updates_are_charged_by_what_they_add() {
    let (_server, api) = start(json!({})).await;
    quota(&api, "q", json!({"hard": {"services": "5", "services.nodeports": "1"}})).await;
    let ports = |ports: &[u16]| -> Value {
        ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port})).collect()
    };
    let services = "/api/v1/namespaces/team/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": ports(&[1, 2])}});
    api.ok(&format!("POST {services}"), service).await;
    let exposed = |numbers: &[u16]| json!({"spec": {"type": "NodePort", "ports": ports(numbers)}});
    let patch = format!("PATCH+merge {services}/s");
    let said = "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, \
                limited: services.nodeports=1";
    refused(&api, &patch, exposed(&[1, 2]), 403, said).await;
    api.ok(&patch, exposed(&[1])).await;
    assert_eq!(used(&api, "q").await, json!({"services": "1", "services.nodeports": "1"}));
    api.ok(&patch, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(used(&api, "q").await["services.nodeports"], "1");
}

#[tokio::test]
async fn scopes_choose_what_is_counted() {
    let (_server, api) = start(json!({})).await;
    quota(&api, "best", json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})).await;
    quota(&api, "ending", json!({"hard": {"pods": "1"}, "scopes": ["Terminating"]})).await;
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    api.ok("POST /apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    let high = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    quota(&api, "high", json!({"hard": {"pods": "0"}, "scopeSelector": high})).await;
    api.ok(PODS, pod("a")).await;
    let (code, status) = api.call(PODS, pod("b")).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("exceeded quota: best"), "{status}");
    api.ok(PODS, sized("b", "1m")).await;
    let mut ending = sized("c", "1m");
    ending["spec"]["activeDeadlineSeconds"] = 60.into();
    api.ok(PODS, ending).await;
    // A pod that gets a deadline comes into the scope.
    let deadline = json!({"spec": {"activeDeadlineSeconds": 60}});
    let (code, status) = api.call("PATCH+merge /api/v1/namespaces/team/pods/b", deadline).await;
    assert_eq!(code, 403, "{status}");
    let mut high = sized("d", "1m");
    high["spec"]["priorityClassName"] = "high".into();
    let (code, status) = api.call(PODS, high).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("exceeded quota: high"), "{status}");
    let counted = [used(&api, "best").await, used(&api, "ending").await, used(&api, "high").await];
    assert_eq!(counted, [json!({"pods": "1"}), json!({"pods": "1"}), json!({"pods": "0"})]);
}

#[tokio::test]
async fn many_at_once_never_exceed() {
    let (_server, api) = start(json!({})).await;
    quota(&api, "count", json!({"hard": {"pods": "20"}})).await;
    quota(&api, "cpu", json!({"hard": {"requests.cpu": "1300m"}})).await;
    let creates = (0..32).map(|i| {
        let api = api.clone();
        tokio::spawn(async move { api.call(PODS, sized(&format!("p{i}"), "100m")).await })
    });
    let outcomes: Vec<(u16, Value)> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    let made = outcomes.iter().filter(|(code, _)| *code == 201).count();
    assert_eq!(made, 13);
    for (code, status) in outcomes.iter().filter(|(code, _)| *code != 201) {
        let message = status["message"].as_str().unwrap();
        assert!(*code == 403 && message.contains("exceeded quota: cpu, requested: requests.cpu=100m"), "{status}");
    }
    assert_eq!(used(&api, "count").await["pods"], "13");
    assert_eq!(used(&api, "cpu").await["requests.cpu"], "1300m");
    let pods = api.ok("GET /api/v1/namespaces/team/pods", Value::Null).await;
    assert_eq!(pods["items"].as_array().unwrap().len(), made);
}

#[tokio::test]
async fn custom_resources_are_counted() {
    let (_server, api) = start(json!({})).await;
    let crd = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).await;
    let widgets = "/apis/example.com/v1/namespaces/team/widgets";
    api.eventually(&format!("GET {widgets}"), |code, _| code == 200).await;
    quota(&api, "q", json!({"hard": {"count/widgets.example.com": "1"}})).await;
    let widget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    api.ok(&format!("POST {widgets}"), widget("a")).await;
    let said = "widgets.example.com \"b\" is forbidden: exceeded quota: q, requested: count/widgets.example.com=1, used: \
                count/widgets.example.com=1, limited: count/widgets.example.com=1";
    refused(&api, &format!("POST {widgets}"), widget("b"), 403, said).await;
}

#[tokio::test]
async fn what_has_not_been_counted_yet_is_refused() {
    let (_server, api) = start(json!({})).await;
    api.ok(&format!("POST {QUOTAS}"), json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}})).await;
    api.ok(&format!("PATCH+merge {QUOTAS}/q/status"), json!({"status": {"hard": {"pods": "1"}}})).await;
    refused(&api, PODS, pod("a"), 403, "pods \"a\" is forbidden: status unknown for quota: q, resources: pods").await;
}

#[tokio::test]
async fn who_gives_up_in_mid_charge_holds_nobody_up() {
    let store = Hooked::open(Gate::at("/registry/resourcequotas/"));
    let server = ApiServer::new(Config::default(), store.clone()).await.unwrap();
    let api = Api::new(server, UserInfo::new("admin", ["system:masters"]));
    namespace(&api, "team", json!({})).await;
    quota(&api, "a", json!({"hard": {"pods": "5"}})).await;
    quota(&api, "b", json!({"hard": {"pods": "5"}})).await;
    store.hold();
    let create = |name: &'static str, query: &'static str| {
        let api = api.clone();
        tokio::spawn(async move { api.call(&format!("{PODS}{query}"), pod(name)).await })
    };
    let leader = create("leader", "?timeout=1s");
    store.reached().await;
    let followers: Vec<_> = ["x", "y", "z"].map(|name| create(name, "")).into();
    let (code, status) = leader.await.unwrap();
    assert_eq!(code, 504, "{status}");
    store.release();
    for (code, answer) in join_all(followers).await.into_iter().map(Result::unwrap) {
        assert_eq!(code, 201, "{answer}");
    }
    // What had begun is done, and charged once, to both; nothing more.
    api.eventually("GET /api/v1/namespaces/team/pods/leader", |code, _| code == 200).await;
    assert_eq!([used(&api, "a").await, used(&api, "b").await], [json!({"pods": "4"}), json!({"pods": "4"})]);
    let (code, status) = api.call(PODS, pod("fifth")).await;
    assert_eq!(code, 201, "{status}");
    let (code, status) = api.call(PODS, pod("sixth")).await;
    assert_eq!(code, 403, "{status}");
}

#[tokio::test]
async fn what_is_limited_needs_a_quota_that_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admission.yaml");
    let text = "\
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchContains: [requests.cpu]
      matchScopes: [{scopeName: PriorityClass, operator: In, values: [dear]}]
    - apiGroup: apps
      resource: deployments
      matchContains: [count/]
";
    std::fs::write(&file, text).unwrap();
    let server = TestServer::start_with(|config| config.admission_control_config_file = Some(file)).await;
    let api = server.admin();
    namespace(&api, "team", json!({})).await;
    let class = json!({"metadata": {"name": "dear"}, "value": 1000});
    api.ok("POST /apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    let dear = |name: &str| {
        let mut pod = pod(name);
        pod["spec"]["priorityClassName"] = json!("dear");
        pod
    };

    // Without any quota: what uses none of it is free.
    api.ok(PODS, pod("free")).await;
    let said = "pods \"a\" is forbidden: insufficient quota to consume: requests.cpu";
    refused(&api, PODS, sized("a", "1m"), 403, said).await;
    let said = "insufficient quota to match these scopes: [{PriorityClass In [dear]}]";
    refused(&api, PODS, dear("d"), 500, said).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployment = json!({"metadata": {"name": "d"}, "spec": spec});
    let deployments = "POST /apis/apps/v1/namespaces/team/deployments";
    let said = "deployments.apps \"d\" is forbidden: insufficient quota to consume: count/deployments.apps";
    refused(&api, deployments, deployment.clone(), 403, said).await;

    // A quota of something else covers nothing; one of it does, as far as it goes.
    quota(&api, "other", json!({"hard": {"secrets": "9"}})).await;
    refused(&api, deployments, deployment.clone(), 403, said).await;
    quota(&api, "cpu", json!({"hard": {"requests.cpu": "1", "count/deployments.apps": "1"}})).await;
    api.ok(PODS, sized("a", "1")).await;
    let said = "pods \"b\" is forbidden: exceeded quota: cpu, requested: requests.cpu=1, used: requests.cpu=1, limited: \
                requests.cpu=1";
    refused(&api, PODS, sized("b", "1"), 403, said).await;
    api.ok(deployments, deployment).await;
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["dear"]}]});
    quota(&api, "dear", json!({"hard": {"pods": "1"}, "scopeSelector": selector})).await;
    let mut last = dear("d");
    last["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "0"}});
    api.ok(PODS, last.clone()).await;
    last["metadata"]["name"] = json!("e");
    let said = "pods \"e\" is forbidden: exceeded quota: dear, requested: pods=1, used: pods=1, limited: pods=1";
    refused(&api, PODS, last, 403, said).await;
}
