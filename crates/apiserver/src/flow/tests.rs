use http::Method;
use serde_json::{Value, json};

use super::*;

fn find(flow: &FlowControl, user: &UserInfo, request: &str) -> (String, String) {
    let (method, uri) = request.split_once(' ').unwrap();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let info = RequestInfo::parse(&method.parse::<Method>().unwrap(), path, &Query::parse(query));
    let table = flow.table.load();
    let row = table.rows.iter().find(|row| row.schema.matches(user, &info)).unwrap();
    (row.schema.name.clone(), row.schema.flow(user, &info).to_owned())
}

fn with(objects: impl IntoIterator<Item = Value>) -> Arc<FlowControl> {
    let flow = FlowControl::new(600);
    let mut known = flow.objects.lock();
    for (at, mut object) in objects.into_iter().enumerate() {
        object["metadata"]["uid"] = format!("uid-{at}").into();
        let key: Arc<str> = at.to_string().into();
        if is_level(&object) {
            known.levels.insert(key, serde_json::from_value::<level::View>(object).unwrap().into());
        } else {
            let schema = Schema::from(serde_json::from_value::<schema::View>(object).unwrap());
            known.schemas.insert(key, Arc::new(schema));
        }
    }
    flow.rebuild(&mut known);
    drop(known);
    flow
}

#[test]
fn requests_belong_to_what_upstream_suggests() {
    let flow = with(keelson_api::kinds::suggested_flow_control().into_iter().chain(mandatory_flow_control()));
    let admin = UserInfo::new("admin", ["system:masters"]);
    let node = UserInfo::new("system:node:n", ["system:nodes"]);
    let manager = UserInfo::new("system:kube-controller-manager", Vec::<String>::new());
    let account = UserInfo::service_account("shop", "cart", "");
    let system = UserInfo::service_account("kube-system", "dns", "");
    let ann = UserInfo::new("ann", Vec::<String>::new());
    let nobody = UserInfo::anonymous();
    for (user, request, schema, distinguisher) in [
        (&admin, "GET /api/v1/pods", "exempt", ""),
        (&nobody, "GET /readyz", "probes", ""),
        (&ann, "GET /livez", "probes", ""),
        (&nobody, "GET /readyz/etcd", "global-default", "system:anonymous"),
        (&node, "PATCH /api/v1/nodes/n/status", "system-node-high", "system:node:n"),
        (&node, "GET /api/v1/namespaces/a/pods", "system-nodes", "system:node:n"),
        (
            &node,
            "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
            "system-node-high",
            "system:node:n",
        ),
        (
            &manager,
            "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/m",
            "system-leader-election",
            "system:kube-controller-manager",
        ),
        (&manager, "GET /api/v1/namespaces/a/pods", "kube-controller-manager", "a"),
        (&manager, "PUT /api/v1/namespaces/a/endpoints/e", "endpoint-controller", "system:kube-controller-manager"),
        (&system, "GET /api/v1/namespaces/a/pods", "kube-system-service-accounts", "a"),
        (&account, "GET /api/v1/namespaces/shop/pods", "service-accounts", "system:serviceaccount:shop:cart"),
        (&ann, "GET /api/v1/namespaces/shop/pods", "global-default", "ann"),
        (&ann, "GET /apis", "global-default", "ann"),
    ] {
        assert_eq!(find(&flow, user, request), (schema.into(), distinguisher.into()), "{} {request}", user.name);
    }
    let nominal = |name: &str| flow.levels().into_iter().find(|level| level.name == name).unwrap().bounds.nominal;
    // 600 seats by 245 shares.
    assert_eq!(
        (nominal("workload-low"), nominal("global-default"), nominal("catch-all"), nominal("exempt")),
        (245, 49, 13, 0)
    );
}

#[test]
fn what_must_be_there_is_there() {
    let flow = FlowControl::new(600);
    let ann = UserInfo::new("ann", Vec::<String>::new());
    assert_eq!(find(&flow, &ann, "GET /api/v1/pods").0, "catch-all");
    assert_eq!(find(&flow, &UserInfo::new("root", ["system:masters"]), "GET /api/v1/pods").0, "exempt");
    let names: Vec<String> = flow.levels().into_iter().map(|level| level.name).collect();
    assert_eq!(names, ["exempt", "catch-all"]);
}

#[test]
fn schemas_are_tried_by_precedence_and_then_by_name() {
    let schema = |name: &str, precedence: i32, level: &str, users: &[&str]| {
        let subjects: Vec<Value> = users.iter().map(|user| json!({"kind": "User", "user": {"name": user}})).collect();
        json!({"kind": "FlowSchema", "metadata": {"name": name}, "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [{"subjects": subjects, "resourceRules": [{
                "verbs": ["list"], "apiGroups": ["apps"], "resources": ["deployments", "*/scale", "deployments/status"],
                "namespaces": ["a"],
            }]}],
        }})
    };
    let flow = with([
        schema("b", 10, "catch-all", &["ann"]),
        schema("a", 10, "catch-all", &["*"]),
        schema("z", 9, "catch-all", &["bob"]),
        schema("gone", 1, "no-such-level", &["*"]),
    ]);
    let (ann, bob) = (UserInfo::new("ann", Vec::<String>::new()), UserInfo::new("bob", Vec::<String>::new()));
    let list = "GET /apis/apps/v1/namespaces/a/deployments";
    assert_eq!(find(&flow, &ann, list).0, "a");
    assert_eq!(find(&flow, &bob, list).0, "z");
    for other in [
        "GET /apis/apps/v1/namespaces/a/deployments/x",
        "GET /apis/apps/v1/namespaces/b/deployments",
        "GET /apis/apps/v1/deployments",
        "GET /apis/apps/v1/namespaces/a/replicasets",
    ] {
        assert_eq!(find(&flow, &bob, other).0, "catch-all", "{other}");
    }
}
