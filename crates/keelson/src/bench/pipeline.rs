//! What requests pay on their way to the handler: the audit log, and a flood by somebody else. In this process, over the
//! local engine, without a socket between: what is compared is the pipeline and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keelson_apiserver::{ApiServer, Audit, AuditLog, AuditMode, Config, UserInfo};
use keelson_store::LocalStore;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::request::send;
use super::scratch::Scratch;
use super::{Figure, NO_BUDGET, Row, millis};
use crate::cli::Failure;

const OPERATIONS: usize = 4000;
/// Requests of which the 99th percentile is taken, and the pause between two.
const SAMPLES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(2);
/// Requests that the flood has under way.
const FLOOD: usize = 400;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

/// The rows.
pub(super) async fn costs() -> Result<Vec<Row>, Failure> {
    let scratch = Scratch::new()?;
    let row = |what, measured| Row { what, budget: Figure::Micros(NO_BUDGET), measured };
    let mut rows = Vec::new();
    let plain = server(scratch.path(), "plain", None).await?;
    let (get, create) = one_by_one(&plain).await?;
    rows.push(row("pipeline: GET in process, no audit", get));
    rows.push(row("pipeline: create in process, no audit", create));
    for (mode, what) in [
        (
            AuditMode::Batch,
            ["pipeline: GET in process, audit in batches", "pipeline: create in process, audit in batches"],
        ),
        (
            AuditMode::Blocking,
            ["pipeline: GET in process, audit blocking", "pipeline: create in process, audit blocking"],
        ),
    ] {
        let name = format!("{mode:?}");
        let policy = scratch.path().join("policy.yaml");
        std::fs::write(&policy, POLICY)?;
        let path = scratch.path().join(format!("{name}.log"));
        let log = AuditLog { path, max_size_mib: 0, max_backups: 0, max_age_days: 0, mode };
        let audited = server(scratch.path(), &name, Some(Audit { policy, log: Some(log), webhook: None })).await?;
        let (get, create) = one_by_one(&audited).await?;
        let [what_get, what_create] = what;
        rows.push(row(what_get, get));
        rows.push(row(what_create, create));
    }
    rows.extend(fairness(&plain).await?);
    Ok(rows)
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
async fn one_by_one(server: &ApiServer) -> Result<(f64, f64), Failure> {
    let user = client(server, "ann", &["bench"]);
    let each = |begin: Instant| begin.elapsed().as_secs_f64() * 1e6 / OPERATIONS as f64;
    let path = format!("{MAPS}/one");
    let begin = Instant::now();
    for _ in 0..OPERATIONS {
        send(&user, "GET", &path, None).await?;
    }
    let get = each(begin);
    let begin = Instant::now();
    for i in 0..OPERATIONS {
        send(&user, "POST", MAPS, Some(map(&format!("alone-{i}")))).await?;
    }
    Ok((get, each(begin)))
}

/// How somebody's requests fare while somebody else sends as many as he can, and tries again at once what is refused.
async fn fairness(server: &ApiServer) -> Result<Vec<Row>, Failure> {
    let quiet = client(server, "quiet", &["bench"]);
    let idle = p99(&quiet, "idle").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for at in 0..FLOOD {
        let (flooder, stop) = (client(server, "flood", &["bench"]), stop.clone());
        flood.spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("flood-{at}-{round}");
                // Most of them are refused.
                let _ = send(&flooder, "POST", MAPS, Some(map(&name))).await;
                round += 1;
                tokio::task::yield_now().await;
            }
        });
    }
    let crowded = p99(&quiet, "crowded").await;
    stop.store(true, Ordering::Relaxed);
    while flood.join_next().await.is_some() {}
    let crowded = crowded?;
    let row = |what, measured| Row { what, budget: Figure::Millis(NO_BUDGET), measured };
    Ok(vec![
        row("fairness: create, p99, nobody else there", idle),
        row("fairness: create, p99, while somebody floods the server", crowded),
        Row { what: "fairness: what the flood costs others", budget: Figure::Times(2.0), measured: crowded / idle },
    ])
}

/// Milliseconds.
async fn p99(client: &kube::Client, name: &str) -> Result<f64, Failure> {
    let mut times = Vec::with_capacity(SAMPLES);
    for i in 0..SAMPLES {
        let begin = Instant::now();
        send(client, "POST", MAPS, Some(map(&format!("{name}-{i}")))).await?;
        times.push(millis(begin.elapsed()));
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(SAMPLES * 99 / 100).copied().unwrap_or_default())
}
