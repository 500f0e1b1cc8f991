//! What requests pay on their way to the handler for the audit log. In this process, over the local engine, without a socket
//! between: what is compared is the pipeline and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_apiserver::{ApiServer, Audit, AuditLog, AuditMode, Config, UserInfo};
use keelson_store::LocalStore;
use serde_json::{Value, json};

use super::request::send;
use super::scratch::Scratch;
use super::{Figure, NO_BUDGET, Row, Size};
use crate::cli::Failure;

const OPERATIONS: usize = 4000;
/// Between two looks at what the server is to have.
const PAUSE: Duration = Duration::from_millis(2);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

/// Prints the rows.
pub(super) async fn costs(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let (scratch, operations) = (Scratch::new()?, size.of(OPERATIONS));
    let show = async |server: &ApiServer, audit: &str| {
        let (get, create) = one_by_one(server, operations).await?;
        print(Row::new(format!("pipeline: GET in process, {audit}"), Figure::Micros(NO_BUDGET), get));
        print(Row::new(format!("pipeline: create in process, {audit}"), Figure::Micros(NO_BUDGET), create));
        Ok::<_, Failure>(())
    };
    let plain = server(scratch.path(), "plain", None).await?;
    show(&plain, "no audit").await?;
    for (mode, what) in [(AuditMode::Batch, "audit in batches"), (AuditMode::Blocking, "audit blocking")] {
        let name = format!("{mode:?}");
        let policy = scratch.path().join("policy.yaml");
        std::fs::write(&policy, POLICY)?;
        let path = scratch.path().join(format!("{name}.log"));
        let log = AuditLog { mode, ..AuditLog::new(path) };
        let audited = server(scratch.path(), &name, Some(Audit { policy, log: Some(log), webhook: None })).await?;
        show(&audited, what).await?;
    }
    Ok(())
}

async fn server(dir: &Path, name: &str, audit: Option<Audit>) -> Result<ApiServer, Failure> {
    let store = LocalStore::open(&dir.join(name), Default::default())?;
    let server = ApiServer::new(Config { audit, ..Config::default() }, Arc::new(store)).await?;
    let admin = client(&server, "admin", &["system:masters"]);
    let role = json!({"metadata": {"name": "bench"}, "rules": [
        {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]});
    send(&admin, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", Some(role)).await?;
    let binding = json!({"metadata": {"name": "bench"}, "subjects": [{"kind": "Group", "name": "bench"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bench"}});
    send(&admin, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Some(binding)).await?;
    send(&admin, "POST", MAPS, Some(map("one"))).await?;
    // The flow schemas are written once the server is ready.
    let schema = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default";
    let begin = Instant::now();
    while send(&admin, "GET", schema, None).await.is_err() {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err("the server has no flow schemas".into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(server)
}

fn client(server: &ApiServer, name: &str, groups: &[&str]) -> kube::Client {
    server.kube_client(UserInfo::new(name, groups.iter().copied()))
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(256)}})
}

/// Microseconds of one GET and one create.
async fn one_by_one(server: &ApiServer, operations: usize) -> Result<(f64, f64), Failure> {
    let user = client(server, "ann", &["bench"]);
    let each = |begin: Instant| begin.elapsed().as_secs_f64() * 1e6 / operations as f64;
    let path = format!("{MAPS}/one");
    let begin = Instant::now();
    for _ in 0..operations {
        send(&user, "GET", &path, None).await?;
    }
    let get = each(begin);
    let begin = Instant::now();
    for i in 0..operations {
        send(&user, "POST", MAPS, Some(map(&format!("alone-{i}")))).await?;
    }
    Ok((get, each(begin)))
}
