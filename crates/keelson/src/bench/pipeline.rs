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
use super::{Figure, NO_BUDGET, Row, Size, millis};
use crate::cli::Failure;

const OPERATIONS: usize = 4000;
/// Requests of which the 99th percentile is taken, and the pause between two.
const SAMPLES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(2);
/// The longest that requests are sampled: a server that is slow is not asked all of them.
const SAMPLING: Duration = Duration::from_secs(20);
/// What refusals tell clients to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Requests that the flood has under way.
const FLOOD: usize = 400;
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
    fairness(&plain, size, print).await
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

/// How somebody's requests fare while somebody else sends as many as he can, and tries again what is refused: once the
/// second that the refusal names has passed, as clients do, and then at once.
async fn fairness(server: &ApiServer, size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let (quiet, samples) = (client(server, "quiet", &["bench"]), size.of(SAMPLES));
    let idle = p99(&quiet, "idle", samples).await?;
    print(Row::new("fairness: create, p99, nobody else there", Figure::Millis(NO_BUDGET), idle));
    for (name, pause, how) in
        [("flooded", Some(RETRY_AFTER), "a flood that waits as it is told"), ("crowded", None, "a flood without pause")]
    {
        let stop = Arc::new(AtomicBool::new(false));
        let mut flood = JoinSet::new();
        for at in 0..FLOOD {
            let (flooder, stop) = (client(server, "flood", &["bench"]), stop.clone());
            flood.spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let object = map(&format!("{name}-{at}-{round}"));
                    round += 1;
                    match (send(&flooder, "POST", MAPS, Some(object)).await, pause) {
                        (Err(_), Some(pause)) => tokio::time::sleep(pause).await,
                        _ => tokio::task::yield_now().await,
                    }
                }
            });
        }
        let during = p99(&quiet, name, samples).await;
        stop.store(true, Ordering::Relaxed);
        while flood.join_next().await.is_some() {}
        let during = during?;
        print(Row::new(format!("fairness: create, p99, {how}"), Figure::Millis(NO_BUDGET), during));
        // Who does not wait also takes the processor, which is here the same for all.
        let budget = if pause.is_some() { 2.0 } else { NO_BUDGET };
        print(Row::new(format!("fairness: what {how} costs others"), Figure::Times(budget), during / idle));
    }
    Ok(())
}

/// Milliseconds, of so many creates or of those that [`SAMPLING`] leaves time for.
async fn p99(client: &kube::Client, name: &str, samples: usize) -> Result<f64, Failure> {
    let (mut times, start) = (Vec::with_capacity(samples), Instant::now());
    for i in 0..samples {
        let begin = Instant::now();
        send(client, "POST", MAPS, Some(map(&format!("{name}-{i}")))).await?;
        times.push(millis(begin.elapsed()));
        if start.elapsed() > SAMPLING {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() * 99 / 100).copied().unwrap_or_default())
}
