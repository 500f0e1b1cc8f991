//! Watch semantics under load: watchers that lose their connection again and again see every change exactly once and in
//! order, while objects come, change and go, the store is compacted and the ring of changes is flushed. What they see is
//! held against the store's own history.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keelson_apiserver::BoxError;
use keelson_store::WatchItem;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::json;
use support::{Api, TestServer, tls_connect};
use tokio::sync::{mpsc, watch as signal};

const WATCHERS: usize = 1000;
/// So many of them come over TLS, on a few connections.
const OVER_TLS: usize = 60;
const CONNECTIONS: usize = 3;
/// So many stay away after their first connection until the server has forgotten what they know.
const AWAY: usize = 20;
const WRITERS: usize = 4;
const CHANGES: usize = 100;
/// Objects of one writer.
const NAMES: usize = 8;
const SHARDS: u32 = 3;
/// The last object that is created; every selector matches it.
const END: &str = "z-end";
const CM: &str = "/api/v1/namespaces/default/configmaps";
const LONGEST: Duration = Duration::from_secs(120);

/// How a watcher reaches the server.
#[derive(Clone)]
enum Way {
    InProcess(Api),
    Tls(SendRequest<Empty<Bytes>>),
}

type Body = UnsyncBoxBody<Bytes, BoxError>;

impl Way {
    async fn get(&mut self, query: &str) -> (u16, Body) {
        match self {
            Self::InProcess(api) => {
                let response = api.send(&format!("GET {CM}?{query}"), Bytes::new()).await;
                (response.status().as_u16(), response.into_body().boxed_unsync())
            }
            Self::Tls(sender) => {
                let uri = format!("https://localhost{CM}?{query}");
                let request = Request::get(uri).body(Empty::new()).unwrap();
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                (response.status().as_u16(), response.into_body().map_err(Into::into).boxed_unsync())
            }
        }
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    type_: Type,
    object: Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Meta {
    name: String,
    resource_version: String,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Meta {
    fn revision(&self) -> u64 {
        self.resource_version.parse().unwrap()
    }
}

#[derive(Deserialize)]
struct List {
    metadata: Meta,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
}

/// Objects by name, with their revisions.
type State = BTreeMap<String, u64>;

/// What a watcher saw between two lists.
#[derive(Default)]
struct Segment {
    /// Revision of the list, and what was in it.
    start: u64,
    listed: State,
    seen: Vec<(u64, Type, String)>,
    /// How far the server says it has been shown everything.
    end: u64,
}

#[derive(Default)]
struct Seen {
    segments: Vec<Segment>,
    connects: usize,
    state: State,
}

fn selector(shard: Option<u32>) -> String {
    shard.map_or(String::new(), |shard| format!("&labelSelector=shard+in+({shard},all)"))
}

fn matches(shard: Option<u32>, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get("shard").map_or("", String::as_str);
    shard.is_none_or(|shard| label == "all" || label == shard.to_string())
}

/// Reads a watch line by line.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let event = serde_json::from_slice(&self.buffer[..end]).unwrap();
                self.buffer.drain(..=end);
                return Some(event);
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

/// Who stays away once: how often the server has forgotten, and what is dropped on return.
struct Away {
    forgotten: signal::Receiver<usize>,
    _gone: mpsc::Sender<()>,
}

impl Away {
    /// Until the server has forgotten in a round that began after this.
    async fn wait(mut self) {
        let now = *self.forgotten.borrow();
        self.forgotten.wait_for(|rounds| *rounds >= now + 2).await.unwrap();
    }
}

/// Lists, watches, loses the connection, goes on from the last revision; lists anew when that is gone.
async fn watch(mut way: Way, shard: Option<u32>, mut rng: StdRng, mut away: Option<Away>) -> Seen {
    let mut all = Seen::default();
    loop {
        let streaming = rng.random_bool(0.25);
        let mut segment = Segment::default();
        if !streaming {
            let (code, body) = way.get(&format!("limit=1000{}", selector(shard))).await;
            assert_eq!(code, 200);
            let list: List = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            segment.start = list.metadata.revision();
            segment.listed = list.items.iter().map(|i| (i.metadata.name.clone(), i.metadata.revision())).collect();
            segment.end = segment.start;
            if segment.listed.contains_key(END) {
                all.finish(segment);
                return all;
            }
        }
        let mut listing = streaming;
        'segment: loop {
            let start = match listing {
                true => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
                false => format!("resourceVersion={}", segment.end),
            };
            let (code, body) = way.get(&format!("watch=1&allowWatchBookmarks=true&{start}{}", selector(shard))).await;
            assert_eq!(code, 200);
            all.connects += 1;
            let mut lines = Lines { body, buffer: Vec::new() };
            let mut left = if away.is_some() { 0 } else { rng.random_range(1..40) };
            while left > 0 || listing {
                left -= 1;
                let Some(Event { type_, object }) = lines.next().await else { break };
                let Object { metadata, code } = object;
                match type_ {
                    Type::Error => {
                        assert_eq!(code, 410);
                        break 'segment;
                    }
                    Type::Bookmark if listing => {
                        assert_eq!(metadata.annotations["k8s.io/initial-events-end"], "true");
                        (segment.start, segment.end) = (metadata.revision(), metadata.revision());
                        listing = false;
                    }
                    Type::Bookmark => segment.end = metadata.revision(),
                    _ if listing => {
                        assert_eq!(type_, Type::Added);
                        segment.listed.insert(metadata.name.clone(), metadata.revision());
                    }
                    _ => {
                        assert!(metadata.name == END || matches(shard, &metadata.labels), "shows a matching version");
                        segment.end = metadata.revision();
                        segment.seen.push((segment.end, type_, metadata.name));
                    }
                }
                let ended = |(_, _, name): &(u64, Type, String)| name == END;
                if !listing && (segment.seen.last().is_some_and(ended) || segment.listed.contains_key(END)) {
                    all.finish(segment);
                    return all;
                }
            }
            drop(lines);
            if let Some(away) = away.take() {
                away.wait().await;
            } else if rng.random_bool(0.1) {
                tokio::time::sleep(Duration::from_millis(rng.random_range(300..2500))).await;
            }
        }
        all.finish(segment);
    }
}

impl Seen {
    fn finish(&mut self, segment: Segment) {
        self.state = segment.listed.clone();
        for (revision, type_, name) in &segment.seen {
            match type_ {
                Type::Deleted => self.state.remove(name),
                _ => self.state.insert(name.clone(), *revision),
            };
        }
        self.segments.push(segment);
    }
}

/// One change in the store's own history.
struct Truth {
    revision: u64,
    name: String,
    old: Option<BTreeMap<String, String>>,
    new: Option<BTreeMap<String, String>>,
}

/// Follows the store until the end.
async fn follow(store: Arc<dyn keelson_store::Store>, revision: u64) -> Vec<Truth> {
    let mut stream = store.watch("/registry/configmaps/default/", revision).await.unwrap();
    let labels = |kv: keelson_store::KeyValue| serde_json::from_slice::<Item>(&kv.value).unwrap().metadata.labels;
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        let WatchItem::Events(events) = item.unwrap() else { continue };
        for event in events {
            let name = event.key.rsplit('/').next().unwrap().to_owned();
            let (old, new) = (event.previous.map(labels), event.value.map(labels));
            let end = name == END;
            all.push(Truth { revision: event.revision, name, old, new });
            if end {
                return all;
            }
        }
    }
    all
}

/// What a watcher is owed between two revisions.
fn owed(truth: &[Truth], shard: Option<u32>, from: u64, to: u64) -> Vec<(u64, Type, String)> {
    let changes = truth.iter().filter(|change| change.revision > from && change.revision <= to);
    let events = changes.filter_map(|change| {
        let old = change.old.as_ref().is_some_and(|labels| matches(shard, labels));
        let new = change.new.as_ref().is_some_and(|labels| matches(shard, labels));
        let type_ = match (old, new) {
            (false, true) => Type::Added,
            (true, true) => Type::Modified,
            (true, false) => Type::Deleted,
            (false, false) => return None,
        };
        Some((change.revision, type_, change.name.clone()))
    });
    events.collect()
}

fn state_at(truth: &[Truth], shard: Option<u32>, revision: u64) -> State {
    let mut state = State::new();
    for (revision, type_, name) in owed(truth, shard, 0, revision) {
        match type_ {
            Type::Deleted => state.remove(&name),
            _ => state.insert(name, revision),
        };
    }
    state
}

/// Creates, changes and deletes objects of its own.
async fn write(api: Api, writer: usize, mut rng: StdRng) {
    let mut there = [false; NAMES];
    for change in 0..CHANGES {
        let index = rng.random_range(0..NAMES);
        let name = format!("w{writer}-{index}");
        let labels = json!({"shard": rng.random_range(0..SHARDS).to_string()});
        if !there[index] {
            let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"n": change.to_string()}});
            api.ok(&format!("POST {CM}"), object).await;
            there[index] = true;
        } else if rng.random_bool(0.2) {
            api.ok(&format!("DELETE {CM}/{name}"), json!(null)).await;
            there[index] = false;
        } else {
            let patch = json!({"metadata": {"labels": labels}, "data": {"n": change.to_string()}});
            api.ok(&format!("PATCH+merge {CM}/{name}"), patch).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..50))).await;
    }
}

/// Makes the server forget: the store is compacted, and big changes elsewhere push all others out of the ring.
async fn forget(test: &TestServer, forgotten: signal::Sender<usize>) {
    let api = test.admin();
    let other = "/api/v1/namespaces/kube-public/configmaps";
    api.ok(&format!("POST {other}"), json!({"metadata": {"name": "big"}})).await;
    let filler = "x".repeat(900 << 10);
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        for i in 0..10 {
            let patch = json!({"data": {"n": i.to_string(), "filler": filler}});
            api.ok(&format!("PATCH+merge {other}/big"), patch).await;
        }
        test.store.compact(test.store.revision().await.unwrap()).await.unwrap();
        forgotten.send_modify(|rounds| *rounds += 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_change_once_and_in_order() {
    let seed = std::env::var("KEELSON_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121);
    println!("KEELSON_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let test = TestServer::start().await;
    let address = test.listen();
    let begin = Instant::now();
    let truth = tokio::spawn(follow(test.store.clone(), test.store.revision().await.unwrap()));
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = tls_connect(&test.pki, address, Some(test.pki.issue("admin", &["system:masters"])), b"h2").await;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        senders.push(sender);
    }
    let (rounds, forgotten) = signal::channel(0);
    let (gone, mut returned) = mpsc::channel(1);
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|i| {
            let way = match senders.get(i % CONNECTIONS) {
                Some(sender) if i < OVER_TLS => Way::Tls(sender.clone()),
                _ => Way::InProcess(test.admin()),
            };
            let shard = rng.random_bool(0.5).then(|| rng.random_range(0..SHARDS));
            let rng = StdRng::seed_from_u64(rng.random());
            let away = (i < AWAY).then(|| Away { forgotten: forgotten.clone(), _gone: gone.clone() });
            tokio::spawn(async move { (shard, watch(way, shard, rng, away).await) })
        })
        .collect();
    drop(gone);
    let writers = futures::future::join_all(
        (0..WRITERS).map(|writer| write(test.admin(), writer, StdRng::seed_from_u64(rng.random()))),
    );
    let writing = async {
        tokio::select! {
            _ = async { (writers.await, returned.recv().await) } => {}
            () = forget(&test, rounds) => {}
        }
        let end = json!({"metadata": {"name": END, "labels": {"shard": "all"}}});
        test.admin().ok(&format!("POST {CM}"), end).await;
        futures::future::join_all(watchers).await
    };
    let seen = tokio::time::timeout(LONGEST, writing.boxed()).await.expect("all watchers reach the end");
    let truth = truth.await.unwrap();
    let last = truth.last().unwrap().revision;
    let (mut events, mut connects, mut lists) = (0, 0, 0);
    for (i, watcher) in seen.into_iter().enumerate() {
        let (shard, seen) = watcher.unwrap();
        for segment in &seen.segments {
            let context = format!("watcher {i} of shard {shard:?} from {} to {}", segment.start, segment.end);
            assert_eq!(segment.listed, state_at(&truth, shard, segment.start), "{context}: listed");
            assert_eq!(segment.seen, owed(&truth, shard, segment.start, segment.end), "{context}: seen");
            events += segment.seen.len();
        }
        assert_eq!(seen.state, state_at(&truth, shard, last), "watcher {i} converges");
        connects += seen.connects;
        lists += seen.segments.len();
    }
    println!("{} changes, {events} events, {connects} watches, {lists} lists, {:?}", truth.len(), begin.elapsed());
    assert!(truth.len() > WRITERS * CHANGES, "with the end");
    assert!(connects > 3 * WATCHERS, "connections were lost");
    assert!(lists >= WATCHERS + AWAY, "who was away had to list again");
}

/// The model itself: what is owed is not simply what came.
#[test]
fn the_model_tells_wrong_from_right() {
    let labels = |shard: &str| Some(BTreeMap::from([("shard".to_owned(), shard.to_owned())]));
    let change = |revision, old: Option<&str>, new: Option<&str>| Truth {
        revision,
        name: "a".into(),
        old: old.and_then(labels),
        new: new.and_then(labels),
    };
    let truth = [
        change(1, None, Some("0")),
        change(2, Some("0"), Some("1")),
        change(3, Some("1"), Some("1")),
        change(4, Some("1"), None),
    ];
    let types = |shard, from, to| owed(&truth, shard, from, to).into_iter().map(|(r, t, _)| (r, t)).collect::<Vec<_>>();
    assert_eq!(types(Some(0), 0, 9), [(1, Type::Added), (2, Type::Deleted)]);
    assert_eq!(types(Some(1), 0, 9), [(2, Type::Added), (3, Type::Modified), (4, Type::Deleted)]);
    assert_eq!(types(None, 1, 3), [(2, Type::Modified), (3, Type::Modified)]);
    assert_eq!(state_at(&truth, Some(1), 3), State::from([("a".to_owned(), 3)]));
    assert_eq!(state_at(&truth, None, 4), State::new());
}
