//! What a scripted run of kubectl leaves in the audit log: what the policy wants, and no secret.

use keelson_testbed::cluster::Cluster;
use serde_json::Value;

use super::{mentions, says};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  resources: [{group: "", resources: [secrets, serviceaccounts/token]}, {group: authentication.k8s.io}]
- level: RequestResponse
  omitManagedFields: true
  namespaces: [default]
  resources: [{group: "", resources: [configmaps]}]
- level: Metadata
  userGroups: ["system:serviceaccounts:default"]
- level: Metadata
  users: ["system:kube-scheduler"]
  verbs: [create]
  resources: [{group: "", resources: [pods/binding]}]
- level: None
"#;

#[test]
fn the_audit_log_is_what_the_policy_says() {
    let policy = "--extra-config=apiserver.audit-policy-file=/mnt/shared/policy.yaml";
    let log = "--extra-config=apiserver.audit-log-path=/mnt/shared/audit.log";
    let exe = env!("CARGO_BIN_EXE_keelson");
    let c = &Cluster::up_with_files(exe, &[("policy.yaml", POLICY)], &[policy, log]);
    c.kubectl("create secret generic vault --from-literal=password=swordfish-4711");
    c.kubectl("get secret vault -o yaml");
    c.kubectl("create configmap words --from-literal=greeting=hello");
    c.kubectl("label configmap words seen=yes");
    c.kubectl("delete configmap words");
    c.kubectl_fails("get configmap words");
    let token = c.kubectl("create token default");
    let token = token.trim();
    // Without the administrator's certificate, which would come first.
    let bare = super::isolation::bare(c);
    c.kubectl_fails(&format!("--token {token} --kubeconfig {bare} get pods"));
    c.kubectl("run hello --image keelson.local/hello");
    c.kubectl("wait --for=condition=Ready pod/hello --timeout=60s");
    c.kubectl("delete pod hello --now");

    let text = std::fs::read_to_string(c.path("shared").join("audit.log")).expect("the audit log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for secret in ["swordfish-4711", "c3dvcmRmaXNoLTQ3MTE=", token, token.rsplit('.').next().unwrap()] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let of = |resource: &str, verb: &str| -> Vec<&Value> {
        let found = events.iter().filter(|e| e["objectRef"]["resource"] == resource && e["verb"] == verb);
        found.filter(|e| e["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl/"))).collect()
    };
    let secrets = of("secrets", "create");
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    assert_eq!((&secrets[0]["level"], &secrets[0]["objectRef"]["name"]), (&"Metadata".into(), &"vault".into()));
    assert_eq!((&secrets[0]["requestObject"], &secrets[0]["responseObject"]), (&Value::Null, &Value::Null));
    assert_eq!(secrets[0]["user"]["username"], "kubernetes-admin");
    assert_eq!(of("secrets", "get").len(), 1);
    let created = of("configmaps", "create");
    assert_eq!(created.len(), 1, "{created:?}");
    assert_eq!(created[0]["requestObject"]["data"]["greeting"], "hello");
    assert_eq!(created[0]["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(of("configmaps", "patch")[0]["requestObject"]["metadata"]["labels"]["seen"], "yes");
    assert_eq!(of("configmaps", "delete")[0]["responseStatus"]["status"], "Success");
    assert_eq!(of("configmaps", "get").last().unwrap()["responseStatus"]["reason"], "NotFound");
    let asked = |e: &&Value| e["user"]["username"] == "system:serviceaccount:default:default";
    let account = events.iter().filter(asked).find(|e| e["objectRef"]["resource"] == "pods").unwrap();
    assert_eq!(account["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(account["responseStatus"]["code"], 403);
    // Components in the same process are seen, too; and nothing is that no rule names.
    let bound = events.iter().find(|e| e["user"]["username"] == "system:kube-scheduler").unwrap();
    assert_eq!((&bound["objectRef"]["subresource"], &bound["objectRef"]["name"]), (&"binding".into(), &"hello".into()));
    assert!(events.iter().all(|e| e["stage"] != "RequestReceived"));
    assert!(!events.iter().any(|e| e["objectRef"]["resource"] == "leases" || e["requestURI"] == "/readyz"));

    mentions(
        c,
        "kubectl get --raw '/readyz?verbose'",
        &["[+]etcd ok\n", "[+]informer-sync ok\n", "readyz check passed\n"],
    );
    says(c, "kubectl get --raw /livez/ping", "ok");
    mentions(c, "kubectl get --raw /metrics", &["apiserver_audit_event_total ", "apiserver_request_total{"]);
}
