//! Priority and fairness: who floods the server waits and is turned away, and nobody else is.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_store::Error;
use serde_json::{Value, json};
use support::store::{Hook, Hooked};
use support::{Api, TestServer};
use tokio::sync::{Semaphore, mpsc};
use tower::ServiceExt as _;

const CM: &str = "/api/v1/namespaces/default/configmaps";
/// Of which users without a level of their own get five.
const SEATS: u32 = 60;

/// ConfigMaps are written one for each permit.
struct Gated {
    gate: Semaphore,
}

#[async_trait]
impl Hook for Gated {
    async fn before_put(&self, key: &str) -> Result<(), Error> {
        if key.starts_with("/registry/configmaps/default/") {
            self.gate.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

struct Crowded {
    store: Arc<Hooked<Gated>>,
    server: ApiServer,
}

impl Crowded {
    async fn start() -> Self {
        Self::with(SEATS).await
    }

    async fn with(seats: u32) -> Self {
        let store = Hooked::open(Gated { gate: Semaphore::new(0) });
        let config = Config { max_requests_inflight: seats, max_mutating_requests_inflight: 0, ..Config::default() };
        let this = Self { server: ApiServer::new(config, store.clone()).await.unwrap(), store };
        let ready = |_: u16, cidr: &Value| cidr["status"]["conditions"][0]["status"] == "True";
        this.admin().eventually("GET /apis/networking.k8s.io/v1/servicecidrs/kubernetes", ready).await;
        let role =
            json!({"metadata": {"name": "all"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}]});
        this.admin().ok("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
        let binding = json!({"metadata": {"name": "all"}, "subjects": [{"kind": "Group", "name": "system:authenticated"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"}});
        this.admin().ok("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        this
    }

    fn admin(&self) -> Api {
        Api::new(self.server.clone(), UserInfo::new("admin", ["system:masters"]))
    }

    fn user(&self, name: &str) -> Api {
        Api::new(self.server.clone(), UserInfo::new(name, Vec::<String>::new()))
    }

    /// Starts to create ConfigMaps; the answers' codes come back with the name of who asked.
    fn create(&self, who: &'static str, count: usize, answers: &mpsc::UnboundedSender<(&'static str, u16)>) {
        for at in 0..count {
            let (api, answers) = (self.user(who), answers.clone());
            tokio::spawn(async move {
                let body = json!({"metadata": {"name": format!("{who}-{at}")}}).to_string();
                let response = api.send(&format!("POST {CM}"), body).await;
                answers.send((who, response.status().as_u16())).unwrap();
            });
        }
    }

    async fn metrics_of(&self, schema: &str) -> (usize, usize) {
        let text = self.admin().raw("GET /debug/api_priority_and_fairness/dump_priority_levels", String::new()).await.1;
        let line = text.lines().find(|line| line.starts_with(schema)).unwrap().to_owned();
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        (cells[4].parse().unwrap(), cells[5].parse().unwrap())
    }
}

#[tokio::test]
async fn a_flood_waits_and_others_have_their_turn() {
    let test = Crowded::start().await;
    // Whatever this takes, no level lends its seats meanwhile. Clients that never wait keep the clock from going on.
    tokio::time::pause();
    let (sender, mut answers) = mpsc::unbounded_channel();
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // Clients that try again without end. Five have seats, six queues of fifty are full; the rest is turned away at once.
    for at in 0..330 {
        let (api, sender, stop, refused) = (test.user("ann"), sender.clone(), stop.clone(), refused.clone());
        tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let body = json!({"metadata": {"name": format!("ann-{at}-{round}")}}).to_string();
                match api.send(&format!("POST {CM}"), body).await.status().as_u16() {
                    429 => refused.fetch_add(1, Ordering::Relaxed),
                    code => sender.send(("ann", code)).map_or(0, |()| 0),
                };
                tokio::task::yield_now().await;
            }
        });
    }
    while test.metrics_of("global-default").await != (300, 5) || refused.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }

    let response = test.user("ann").send(&format!("GET {CM}"), "").await;
    assert_eq!(response.status(), 429);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("retry-after").as_str(), header("content-type").as_str()), ("1", "text/plain; charset=utf-8"));
    let uid = async |path: &str| {
        let path = format!("GET /apis/flowcontrol.apiserver.k8s.io/v1/{path}/global-default");
        test.admin().ok(&path, json!(null)).await["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    assert_eq!(header("x-kubernetes-pf-flowschema-uid"), uid("flowschemas").await);
    assert_eq!(header("x-kubernetes-pf-prioritylevel-uid"), uid("prioritylevelconfigurations").await);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*body, b"Too many requests, please try again later.\n");

    // Who is exempt does not wait: health checks of anybody, and administrators.
    let anonymous = Api::new(test.server.clone(), UserInfo::anonymous());
    for path in ["/readyz", "/livez", "/healthz"] {
        assert_eq!(anonymous.raw(&format!("GET {path}"), String::new()).await.0, 200);
        assert_eq!(test.user("ann").raw(&format!("GET {path}"), String::new()).await.0, 200);
    }
    test.admin().ok(&format!("GET {CM}"), json!(null)).await;

    // Once the queues are level, Bob comes. He is served after what runs already and within a round of Ann's queues, not after
    // her hundreds.
    let mut step = async || {
        test.store.gate.add_permits(1);
        let (who, code) = answers.recv().await.unwrap();
        assert_eq!(code, 201);
        who
    };
    for _ in 0..200 {
        assert_eq!(step().await, "ann");
    }
    test.create("bob", 1, &sender);
    let mut before = 0;
    while step().await == "ann" {
        before += 1;
        assert!(before < 20);
    }
    tokio::time::resume();
    // Everybody who waits is served in the end, and nothing is left of it.
    stop.store(true, Ordering::Relaxed);
    test.store.gate.add_permits(1000);
    drop(sender);
    let mut served = 0;
    while let Some((who, code)) = answers.recv().await {
        assert_eq!((who, code), ("ann", 201));
        served += 1;
    }
    assert!(served >= 300, "{served}");
    assert_eq!(test.metrics_of("global-default").await, (0, 0));
}

/// What has seats does not keep others' requests from the processor, either.
#[tokio::test]
async fn a_flood_that_runs_has_its_turns_and_no_more() {
    let test = Crowded::with(10 * SEATS).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    // Of all that is under way, Bob's request came last. Then everything may go on at the same moment.
    let under_way = async |count| {
        while test.metrics_of("global-default").await != (0, count) {
            tokio::task::yield_now().await;
        }
    };
    test.create("ann", 48, &sender);
    under_way(48).await;
    test.create("bob", 1, &sender);
    under_way(49).await;
    test.store.gate.add_permits(49);
    let mut before = 0;
    while answers.recv().await.unwrap() != ("bob", 201) {
        before += 1;
    }
    // One of Ann's at each of his turns, as far as what it did then was the last of it.
    assert!(before < 10, "{before} of Ann's were answered before Bob's");
}

#[tokio::test]
async fn nobody_waits_without_end() {
    let test = Crowded::start().await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    test.create("ann", 120, &sender);
    // After ten seconds idle levels lend their seats, but there are not enough. A quarter of a request's time is for waiting.
    let mut codes = std::collections::BTreeMap::<_, u32>::new();
    for _ in 0..120 {
        let (_, code) = answers.recv().await.unwrap();
        *codes.entry((begin.elapsed().as_secs(), code)).or_default() += 1;
    }
    let counts: Vec<_> = codes.into_iter().collect();
    let [((15, 429), turned_away), ((60, 504), stuck)] = counts[..] else { panic!("{counts:?}") };
    assert!((80..110).contains(&turned_away) && stuck > 10, "{turned_away} {stuck}");
    assert_eq!(test.metrics_of("global-default").await, (0, 0));
}

#[tokio::test]
async fn who_gives_up_is_not_waited_for() {
    let test = Crowded::start().await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    test.create("ann", 5, &sender);
    let path = format!("POST {CM}");
    while test.metrics_of("global-default").await.1 < 5 {
        tokio::task::yield_now().await;
    }
    let ann = test.user("ann");
    for at in 0..20 {
        let body = json!({"metadata": {"name": format!("gone-{at}")}}).to_string();
        assert!(ann.send(&path, body).now_or_never().is_none());
    }
    assert_eq!(test.metrics_of("global-default").await, (0, 5));
    test.store.gate.add_permits(5);
    for _ in 0..5 {
        assert_eq!(answers.recv().await.unwrap(), ("ann", 201));
    }
    assert_eq!(test.metrics_of("global-default").await, (0, 0));
}

#[tokio::test]
async fn watches_and_slow_senders_hold_no_seats() {
    let test = Crowded::start().await;
    let ann = test.user("ann");
    test.store.gate.add_permits(1);
    ann.ok(&format!("POST {CM}"), json!({"metadata": {"name": "one"}})).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = ann.send(&format!("GET {CM}?watch=1"), "").await.into_body();
        // The first thing that is sent ends its beginning: there is one object.
        watch.frame().await.unwrap().unwrap();
        watches.push(watch);
    }
    let slow = || {
        let begin = futures::stream::iter([Ok::<_, std::convert::Infallible>(http_body::Frame::data(
            Bytes::from_static(b"{"),
        ))]);
        let body = StreamBody::new(begin.chain(futures::stream::pending()).boxed());
        let request = http::Request::post(CM).header("content-type", "application/json").body(body).unwrap();
        tokio::spawn(test.server.service_for(UserInfo::new("ann", Vec::<String>::new())).oneshot(request))
    };
    let slow: Vec<_> = (0..20).map(|_| slow()).collect();
    for _ in 0..20 {
        assert_eq!(ann.raw(&format!("GET {CM}"), String::new()).await.0, 200);
    }
    // The last ones may still be on their way.
    for _ in 0..1000 {
        if test.metrics_of("global-default").await == (0, 0) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(test.metrics_of("global-default").await, (0, 0));
    slow.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn schemas_say_whether_they_dangle() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    let condition =
        |status: &'static str| move |_: u16, schema: &Value| schema["status"]["conditions"][0]["status"] == status;
    let found = api.eventually(&format!("GET {path}/global-default"), condition("False")).await;
    let condition_is = &found["status"]["conditions"][0];
    let message =
        "This FlowSchema references the PriorityLevelConfiguration object named \"global-default\" and it exists";
    assert_eq!((&condition_is["type"], &condition_is["reason"]), (&json!("Dangling"), &json!("Found")));
    assert_eq!(condition_is["message"], message);
    let schema = json!({"metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "later"}, "matchingPrecedence": 100,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}], "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/version"]}]}]}});
    api.ok(&format!("POST {path}"), schema).await;
    let found = api.eventually(&format!("GET {path}/mine"), condition("True")).await;
    assert_eq!(found["status"]["conditions"][0]["reason"], "NotFound");
    let uid_of = async |user: &str| {
        let user = test.api(UserInfo::new(user, Vec::<String>::new()));
        let response = user.send("GET /version", "").await;
        response.headers()["x-kubernetes-pf-flowschema-uid"].to_str().unwrap().to_owned()
    };
    let mine = found["metadata"]["uid"].as_str().unwrap();
    assert_ne!(uid_of("ann").await, mine, "a schema without a level matches nothing");
    let level = json!({"metadata": {"name": "later"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    api.ok(&format!("POST {levels}"), level).await;
    api.eventually(&format!("GET {path}/mine"), condition("False")).await;
    assert_eq!(uid_of("ann").await, mine);
    assert_ne!(uid_of("bob").await, mine);
    // What must be there comes back, and goes on meanwhile.
    api.ok(&format!("DELETE {path}/catch-all"), json!(null)).await;
    api.eventually(&format!("GET {path}/catch-all"), |code, _| code == 200).await;
}
