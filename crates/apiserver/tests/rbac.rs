//! RBAC as clients see it: the bootstrap roles against a table of requests, ways to more than one has, and faults of the
//! past by their names.

mod support;

use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::{Api, TestServer};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
const MATRIX: &str = include_str!("rbac/matrix.txt");

/// A review's spec for `verb resource/subresource.group namespace/name`.
fn attributes(request: &str) -> Value {
    let words: Vec<&str> = request.split_whitespace().collect();
    let (verb, what) = (words[0], words[1]);
    if what.starts_with('/') {
        return json!({"nonResourceAttributes": {"verb": verb, "path": what}});
    }
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, name) = words.get(2).map_or(("", ""), |at| at.split_once('/').unwrap_or((at, "")));
    let namespace = if namespace == "-" { "" } else { namespace };
    json!({"resourceAttributes": {
        "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace, "name": name,
    }})
}

async fn bind(api: &Api, role: &str, user: &str, namespace: Option<&str>) {
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
    let binding = json!({
        "metadata": {"name": user}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    let path = match namespace {
        None => format!("POST {RBAC}/clusterrolebindings"),
        Some(namespace) => format!("POST {RBAC}/namespaces/{namespace}/rolebindings"),
    };
    api.ok(&path, binding).await;
}

#[tokio::test]
async fn bootstrap_roles_allow_what_they_should() {
    let test = TestServer::start().await;
    let api = test.admin();
    for namespace in ["here", "there"] {
        api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
    }
    let (mut user, mut groups, mut faults, mut checked) = (String::new(), Vec::new(), Vec::new(), 0);
    for line in MATRIX.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            (user, groups) = (words[1].to_owned(), vec!["system:authenticated".to_owned()]);
            match words[0] {
                "user" => {
                    groups.extend(words.get(2).into_iter().flat_map(|groups| groups.split(',')).map(str::to_owned));
                    if let Some(account) = user.strip_prefix("system:serviceaccount:") {
                        let namespace = account.split(':').next().unwrap();
                        groups.extend(["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]);
                    }
                }
                kind => {
                    user = format!("{kind}-{}", user.replace(':', "."));
                    // What everybody may do would hide what the role does not allow.
                    groups.clear();
                    bind(&api, words[1], &user, (kind == "here").then_some("here")).await;
                }
            }
            continue;
        }
        let (sign, request) = (words[0], words[1..].join(" "));
        let mut spec = attributes(&request);
        spec["user"] = user.as_str().into();
        spec["groups"] = groups.clone().into();
        let answer = api.ok(REVIEWS, json!({"spec": spec})).await;
        checked += 1;
        if answer["status"]["allowed"] != (sign == "+") {
            faults.push(format!("{user}: {sign} {request}: {}", answer["status"]));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 180, "{checked}");
    // Every ClusterRole that is not a controller's or what others are made of has its lines.
    let roles = api.ok(&format!("GET {RBAC}/clusterroles"), json!(null)).await;
    let names = roles["items"].as_array().unwrap().iter().map(|role| role["metadata"]["name"].as_str().unwrap());
    let skipped = |name: &str| {
        let elsewhere = [
            "system:node",
            "system:kube-scheduler",
            "system:kube-controller-manager",
            "system:coredns",
            "system:cloud-controller-manager",
        ];
        name.starts_with("system:controller:") || name.starts_with("system:aggregate-to-") || elsewhere.contains(&name)
    };
    for name in names.filter(|name| !skipped(name)) {
        assert!(MATRIX.contains(&format!("role {name}\n")), "{name} has no lines");
    }
}

/// Bob, who may do what `rules` say, with his own clients.
async fn bob(test: &TestServer, rules: Value) -> Api {
    let api = test.admin();
    api.ok(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "bob"}, "rules": rules})).await;
    bind(&api, "bob", "bob", None).await;
    test.api(UserInfo::new("bob", Vec::<String>::new()))
}

#[tokio::test]
async fn nobody_grants_more_than_he_has() {
    let test = TestServer::start().await;
    let rules = json!([
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles"]},
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]},
        {"verbs": ["get"], "nonResourceURLs": ["/logs/*"]},
    ]);
    // The verb `*` has `escalate` and `bind` in it.
    let rules_of = |verbs: &[&str]| {
        let mut rules = rules.clone();
        rules[0]["verbs"] = json!(verbs);
        rules
    };
    let bob = bob(&test, rules_of(&["create", "update", "patch", "get"])).await;
    let roles = format!("POST {RBAC}/namespaces/default/roles");
    let cluster_roles = format!("POST {RBAC}/clusterroles");
    let mut made = 0;
    let mut role = |rule: Value| {
        made += 1;
        json!({"metadata": {"name": format!("r{made}")}, "rules": [rule]})
    };
    let rule = |verbs: Value, resources: Value| json!({"verbs": verbs, "apiGroups": [""], "resources": resources});
    let named =
        |name: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name]});
    for allowed in [
        rule(json!(["get"]), json!(["pods"])),
        rule(json!(["list", "get"]), json!(["replicationcontrollers/scale"])),
        named("a"),
    ] {
        bob.ok(&roles, role(allowed)).await;
    }
    bob.ok(&cluster_roles, role(json!({"verbs": ["get"], "nonResourceURLs": ["/logs/a"]}))).await;
    for denied in [
        rule(json!(["delete"]), json!(["pods"])),
        rule(json!(["*"]), json!(["pods"])),
        rule(json!(["get"]), json!(["*"])),
        rule(json!(["get"]), json!(["pods/exec"])),
        rule(json!(["get"]), json!(["secrets"])),
        named("c"),
        json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]}),
    ] {
        let (code, status) = bob.call(&roles, role(denied.clone())).await;
        assert_eq!(code, 403, "{denied}: {status}");
    }
    let url = json!({"verbs": ["get"], "nonResourceURLs": ["*"]});
    assert_eq!(bob.call(&cluster_roles, role(url)).await.0, 403);
    let wanted = json!([rule(json!(["get", "delete", "create"]), json!(["pods", "nodes"]))]);
    let (_, status) = bob.call(&roles, json!({"metadata": {"name": "x"}, "rules": wanted})).await;
    let why = "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is \
               attempting to grant RBAC permissions not currently held:\n\
               {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"delete\" \"create\"]}\n\
               {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}";
    assert_eq!(status["message"], why);
    // Nor by binding what others made, nor by changing what he made.
    let binding = |name: &str, kind: &str, role: &str| {
        json!({
            "metadata": {"name": name}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        })
    };
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(bob.call(&format!("POST {bindings}"), binding("a", "ClusterRole", "admin")).await.0, 403);
    assert_eq!(bob.call(&format!("POST {bindings}"), binding("a", "ClusterRole", "nowhere")).await.0, 404);
    bob.ok(&format!("POST {bindings}"), binding("own", "Role", "r1")).await;
    let (code, status) = bob.call(&format!("PUT {bindings}/own"), binding("own", "ClusterRole", "r1")).await;
    assert!(code == 422 && status["message"].as_str().unwrap().contains("cannot change roleRef"), "{status}");
    let more = json!([{"op": "add", "path": "/rules/-", "value": rule(json!(["delete"]), json!(["nodes"]))}]);
    assert_eq!(bob.call(&format!("PATCH+json {RBAC}/namespaces/default/roles/r1"), more).await.0, 403);
    // `bind` for one role, `escalate` for one.
    let verbs = json!([
        {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["view"]},
        {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["r1"]},
    ]);
    let verbs = json!({"metadata": {"name": "verbs"}, "rules": verbs});
    test.admin().ok(&cluster_roles, verbs).await;
    test.admin().ok(&format!("POST {RBAC}/clusterrolebindings"), binding("verbs", "ClusterRole", "verbs")).await;
    bob.ok(&format!("POST {bindings}"), binding("view", "ClusterRole", "view")).await;
    assert_eq!(bob.call(&format!("POST {bindings}"), binding("edit", "ClusterRole", "edit")).await.0, 403);
    let more = json!({"rules": [rule(json!(["delete"]), json!(["nodes"]))]});
    assert_eq!(bob.call(&format!("PATCH+merge {RBAC}/namespaces/default/roles/r2"), more.clone()).await.0, 403);
    bob.ok(&format!("PATCH+merge {RBAC}/namespaces/default/roles/r1"), more).await;
}

#[tokio::test]
async fn nobody_acts_as_another_unless_allowed() {
    let test = TestServer::start().await;
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["carol"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
    ]);
    let bob = bob(&test, rules).await;
    let act = async |headers: &[(&str, &str)]| bob.send_with("GET /version", "null", headers).await.status().as_u16();
    assert_eq!(act(&[("impersonate-user", "carol")]).await, 200);
    assert_eq!(act(&[("impersonate-user", "carol"), ("impersonate-group", "devs")]).await, 200);
    for denied in [
        &[("impersonate-user", "root")][..],
        &[("impersonate-user", "carol"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "carol"), ("impersonate-group", "devs"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "system:serviceaccount:kube-system:namespace-controller")],
        &[("impersonate-user", "system:node:n1"), ("impersonate-group", "system:nodes")],
        &[("impersonate-user", "carol"), ("impersonate-uid", "1")],
        &[("impersonate-user", "carol"), ("impersonate-extra-scopes", "all")],
    ] {
        assert_eq!(act(denied).await, 403, "{denied:?}");
    }
    // Whom one acts as decides, not who one is.
    let response = test.admin().send_with("GET /api/v1/nodes", "null", &[("impersonate-user", "carol")]).await;
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn roles_that_are_not_there_are_named() {
    let test = TestServer::start().await;
    bind(&test.admin(), "gone", "alice", None).await;
    let alice = test.api(UserInfo::new("alice", Vec::<String>::new()));
    let (code, status) = alice.call("GET /api/v1/pods", json!(null)).await;
    let why = "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" at the cluster scope: RBAC: \
               clusterrole.rbac.authorization.k8s.io \"gone\" not found";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
    let rules = json!({"spec": {"namespace": "default"}});
    let answer = alice.ok("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await;
    assert_eq!(answer["status"]["incomplete"], true);
    assert_eq!(answer["status"]["evaluationError"], "clusterrole.rbac.authorization.k8s.io \"gone\" not found");
}

/// Old data directories bind all nodes to a role that reads every Secret; what somebody set himself stays.
#[tokio::test]
async fn the_policy_is_reconciled_at_start() {
    let test = TestServer::start().await;
    let api = test.admin();
    let nodes = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"});
    let mine = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "mine"});
    let binding = format!("{RBAC}/clusterrolebindings/system:node");
    api.ok(&format!("PATCH+merge {binding}"), json!({"subjects": [nodes, mine]})).await;
    api.ok(&format!("PATCH+merge {RBAC}/clusterroles/system:kube-dns"), json!({"rules": []})).await;
    let off =
        json!({"rules": [], "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    api.ok(&format!("PATCH+merge {RBAC}/clusterroles/system:heapster"), off).await;
    api.ok(&format!("DELETE {RBAC}/clusterrolebindings/system:discovery"), json!(null)).await;
    let again =
        keelson_apiserver::ApiServer::new(keelson_apiserver::Config::default(), test.store.clone()).await.unwrap();
    let api = Api::new(again, UserInfo::new("admin", ["system:masters"]));
    assert_eq!(api.ok(&format!("GET {binding}"), json!(null)).await["subjects"], json!([mine]));
    let rules = async |name: &str| {
        let role = api.ok(&format!("GET {RBAC}/clusterroles/{name}"), json!(null)).await;
        role["rules"].as_array().map_or(0, Vec::len)
    };
    assert!(rules("system:kube-dns").await > 0);
    assert_eq!(rules("system:heapster").await, 0, "autoupdate is off");
    api.ok(&format!("GET {RBAC}/clusterrolebindings/system:discovery"), json!(null)).await;
}

fn definition(scope: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": scope, "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]},
    })
}

/// CVE-2019-11247: a role in a namespace reads and changes custom resources of the whole cluster by a path with a namespace.
#[tokio::test]
async fn cve_2019_11247_cluster_resources_have_no_namespace() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition("Cluster")).await;
    let things = "/apis/example.com/v1/things";
    api.eventually(&format!("GET {things}"), |code, _| code == 200).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}});
    api.ok(&format!("POST {things}"), thing.clone()).await;
    let role =
        json!({"metadata": {"name": "own"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    api.ok(&format!("POST {RBAC}/clusterroles"), role).await;
    bind(&api, "own", "alice", Some("default")).await;
    let alice = test.api(UserInfo::new("alice", Vec::<String>::new()));
    let here = "/apis/example.com/v1/namespaces/default/things";
    for (request, body) in [
        (format!("GET {here}"), json!(null)),
        (format!("GET {here}/a"), json!(null)),
        (format!("GET {here}?watch=true"), json!(null)),
        (format!("POST {here}"), json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "b"}})),
        (format!("PATCH+merge {here}/a"), json!({"spec": 1})),
        (format!("DELETE {here}/a"), json!(null)),
        (format!("DELETE {here}"), json!(null)),
    ] {
        assert_eq!(alice.call(&request, body).await.0, 404, "{request}");
    }
    for request in [format!("GET {things}"), format!("GET {things}/a"), format!("DELETE {things}/a")] {
        assert_eq!(alice.call(&request, json!(null)).await.0, 403, "{request}");
    }
    api.ok(&format!("GET {things}/a"), json!(null)).await;
}

/// CVE-2022-3162: who may list one custom resource lists another kind of the group by a path that climbs.
#[tokio::test]
async fn cve_2022_3162_paths_do_not_climb() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition("Namespaced")).await;
    let other = json!({
        "metadata": {"name": "secrets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "secrets", "kind": "Hidden"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", other).await;
    let hidden = "/apis/example.com/v1/namespaces/default/secrets";
    api.eventually(&format!("GET {hidden}"), |code, _| code == 200).await;
    let object = json!({"apiVersion": "example.com/v1", "kind": "Hidden", "metadata": {"name": "deep-secret"}});
    api.ok(&format!("POST {hidden}"), object).await;
    let rules = json!([{"verbs": ["get", "list", "watch"], "apiGroups": ["example.com"], "resources": ["things"]}]);
    let bob = bob(&test, rules).await;
    let things = "/apis/example.com/v1/namespaces/default/things";
    bob.ok(&format!("GET {things}"), json!(null)).await;
    for path in [
        format!("{things}/..%2fsecrets"),
        format!("{things}/../secrets"),
        format!("{things}%2f..%2fsecrets"),
        "/apis/example.com/v1/namespaces/..%2fsecrets/things".to_owned(),
        "/apis/example.com/v1/namespaces/default%2f..%2f..%2fsecrets/things".to_owned(),
        format!("{things}?fieldSelector=metadata.name%3D..%2Fsecrets%2Fdeep-secret"),
        format!("{things}?fieldSelector=metadata.namespace%3D..%2Fsecrets"),
    ] {
        let (_, text, _) = bob.raw(&format!("GET {path}"), "null".into()).await;
        assert!(!text.contains("deep-secret\"") || !text.contains("\"Hidden\""), "{path}: {text}");
    }
    assert_eq!(bob.call(&format!("GET {hidden}"), json!(null)).await.0, 403);
}

/// CVE-2019-11248: profiles of the process for everybody.
#[tokio::test]
async fn cve_2019_11248_profiles_are_not_public() {
    let test = TestServer::start().await;
    let paths = ["/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/flags/v", "/metrics", "/logs"];
    for user in [UserInfo::anonymous(), UserInfo::new("alice", Vec::<String>::new())] {
        let api = test.api(user);
        for path in paths {
            assert_eq!(api.call(&format!("GET {path}"), json!(null)).await.0, 403, "{path}");
        }
    }
    let (code, _) = test.admin().call("GET /debug/pprof/heap", json!(null)).await;
    assert_eq!(code, 404, "there are none");
}

/// CVE-2019-1002100: a JSON patch that copies without end. CVE-2019-11253: YAML whose aliases grow without end.
#[tokio::test]
async fn cve_2019_1002100_and_cve_2019_11253_bombs_do_not_go_off() {
    let test = TestServer::start().await;
    let api = test.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    api.ok(&format!("POST {maps}"), json!({"metadata": {"name": "a"}, "data": {"x": "y".repeat(10_000)}})).await;
    let copies: Vec<Value> = (0..10_001).map(|_| json!({"op": "add", "path": "/data/x", "value": "y"})).collect();
    let (code, status) = api.call(&format!("PATCH+json {maps}/a"), copies.into()).await;
    assert_eq!(code, 413, "{status}");
    // Twice as much at each step.
    let doubling: Vec<Value> = (0..40)
        .map(|i| json!({"op": "copy", "from": "/metadata/annotations", "path": format!("/metadata/annotations/a{i}")}))
        .collect();
    api.ok(&format!("PATCH+merge {maps}/a"), json!({"metadata": {"annotations": {"a": "b"}}})).await;
    let started = std::time::Instant::now();
    let (code, status) = api.call(&format!("PATCH+json {maps}/a"), doubling.into()).await;
    assert!((400..500).contains(&code), "{code} {status}");
    let mut yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a0: &a0 [lol, lol]\n".to_owned();
    for i in 1..30 {
        yaml.push_str(&format!(
            "  a{i}: &a{i} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n",
            i - 1
        ));
    }
    let response = api.send(&format!("POST+application/yaml {maps}"), yaml).await;
    assert!((400..500).contains(&response.status().as_u16()), "{}", response.status());
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}
