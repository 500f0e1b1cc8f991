//! The etcd engine: the common suite, and what only a server over the network can do to us.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use keelson_store::{
    Error, EtcdStore, Expect, Store, WatchItem, WatchStream,
    etcd::{Options, process::Etcd},
    suite,
};
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory in memory where there is one: these tests are not about how long a disk takes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn start(dir: &Path, flags: &[&str]) -> Etcd {
    Etcd::start(dir, flags).expect("Debian's etcd-server is installed")
}

async fn connect(etcd: &Etcd, prefix: &str) -> EtcdStore {
    let options = Options { prefix: prefix.into(), ..Options::new(vec![etcd.endpoint()]) };
    EtcdStore::connect(options).await.expect("a store")
}

async fn put(store: &EtcdStore, key: &str, value: &str) -> u64 {
    store.put(key, Bytes::copy_from_slice(value.as_bytes()), Expect::Any).await.expect("a put")
}

/// Values of the events up to a revision, with their revisions.
async fn values(stream: &mut WatchStream, last: u64) -> Vec<(u64, String)> {
    let mut out: Vec<(u64, String)> = Vec::new();
    while out.last().is_none_or(|(at, _)| *at < last) {
        let item = tokio::time::timeout(DEADLINE, stream.next()).await.expect("in time").expect("it goes on");
        if let WatchItem::Events(events) = item.expect("no error") {
            let text = |e: &keelson_store::Event| {
                e.value.as_ref().map_or("-".into(), |kv| String::from_utf8_lossy(&kv.value).into_owned())
            };
            out.extend(events.iter().map(|e| (e.revision, text(e))));
        }
    }
    out
}

/// Tries until it succeeds.
async fn eventually<T, F: Future<Output = Result<T, Error>>>(mut attempt: impl FnMut() -> F) -> T {
    let started = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if started.elapsed() > DEADLINE => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    // The common prefix, and others, which must not see each other.
    suite::compare_and_swap(&connect(&etcd, "/registry").await).await;
    suite::concurrent_writers(Arc::new(connect(&etcd, "/concurrent").await)).await;
    suite::ranges(&connect(&etcd, "/some/ranges").await).await;
    suite::watches(&connect(&etcd, "/watches/").await).await;
    suite::compaction(&connect(&etcd, "/compaction").await).await;
    for prefix in ["", "/", "registry"] {
        let options = Options { prefix: prefix.into(), ..Options::new(vec![etcd.endpoint()]) };
        assert!(matches!(EtcdStore::connect(options).await, Err(Error::Invalid { .. })), "{prefix:?}");
    }
}

#[tokio::test]
async fn long_lists_are_read_in_pages_of_one_revision() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let store = Arc::new(connect(&etcd, "/registry").await);
    let writes = (0..1203).map(|n| {
        let store = store.clone();
        async move { put(&store, &format!("/registry/l/{n:04}"), "x").await }
    });
    futures::stream::iter(writes).buffer_unordered(32).collect::<Vec<_>>().await;
    let at = store.revision().await.unwrap();
    store.delete("/registry/l/0000", Expect::Any).await.unwrap();
    let keys = |range: &keelson_store::Range| range.kvs.iter().map(|kv| kv.key.to_string()).collect::<Vec<_>>();
    let all: Vec<_> = (0..1203).map(|n| format!("/registry/l/{n:04}")).collect();
    let range = store.range("/registry/l/", "", Some(at), 0).await.unwrap();
    assert_eq!((keys(&range), range.revision, range.more, range.count), (all.clone(), at, false, 1203));
    let range = store.range("/registry/l/", "", None, 1100).await.unwrap();
    assert_eq!((keys(&range), range.more, range.count), (all[1..1101].to_vec(), true, 1202));
    let range = store.range("/registry/l/", "/registry/l/0600", Some(at), 0).await.unwrap();
    assert_eq!((keys(&range), range.count), (all[600..].to_vec(), 603));
}

#[tokio::test]
async fn a_watch_survives_a_restart_and_loses_nothing() {
    let dir = scratch();
    let mut etcd = start(dir.path(), &[]);
    let (store, other) = (connect(&etcd, "/registry").await, connect(&etcd, "/registry").await);
    let first = put(&store, "/registry/w/a", "1").await;
    let mut watch = store.watch("/registry/w/", first).await.unwrap();
    let second = put(&store, "/registry/w/a", "2").await;
    assert_eq!(values(&mut watch, second).await, [(second, "2".to_owned())]);
    etcd.stop();
    let down = store.put("/registry/w/a", Bytes::new(), Expect::Revision(second)).await;
    assert!(matches!(down, Err(Error::Unreachable { .. } | Error::Timeout { .. })), "{down:?}");
    assert!(store.health().await.is_err());
    etcd.restart().unwrap();
    // What was acknowledged is there; written by another while the watch may still be down.
    let third = eventually(|| other.put("/registry/w/a", Bytes::from_static(b"3"), Expect::Revision(second))).await;
    let fourth = put(&other, "/registry/w/b", "4").await;
    let seen = values(&mut watch, fourth).await;
    assert_eq!(seen, [(third, "3".to_owned()), (fourth, "4".to_owned())]);
    eventually(|| store.health()).await;
}

#[tokio::test]
async fn a_watch_that_was_compacted_away_says_so() {
    let dir = scratch();
    let mut etcd = start(dir.path(), &[]);
    let (store, other) = (connect(&etcd, "/registry").await, connect(&etcd, "/registry").await);
    let first = put(&store, "/registry/w/a", "1").await;
    // Held up as by a server that was cut off: it goes on after `first` when it is next polled.
    let mut watch = store.watch("/registry/w/", first).await.unwrap();
    etcd.restart().unwrap();
    eventually(|| other.put("/registry/w/a", Bytes::from_static(b"2"), Expect::Any)).await;
    let newest = put(&other, "/registry/w/a", "3").await;
    other.compact(newest).await.unwrap();
    let end = loop {
        match tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time") {
            Some(Ok(WatchItem::Progress(_))) => {}
            end => break end,
        }
    };
    match end {
        Some(Err(Error::Compacted { requested, oldest })) => assert_eq!((requested, oldest), (first, newest)),
        other => panic!("{other:?}"),
    }
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn another_etcd_in_its_place_is_noticed() {
    let dir = scratch();
    let mut etcd = start(dir.path(), &[]);
    let store = connect(&etcd, "/registry").await;
    for _ in 0..20 {
        put(&store, "/registry/w/a", "1").await;
    }
    let at = store.revision().await.unwrap();
    let mut watch = store.watch("/registry/w/", at).await.unwrap();
    etcd.stop();
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    etcd.restart().unwrap();
    let end = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time");
    assert!(matches!(end, Some(Err(Error::Future { requested, .. })) if requested == at), "{end:?}");
}

/// Three members of one etcd.
fn start_three(dir: &Path) -> [Etcd; 3] {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = [free(), free(), free()].map(|taken| format!("http://{}", taken.local_addr().unwrap()));
    let all: Vec<_> = peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}")).collect();
    let all = all.join(",");
    std::array::from_fn(|at| {
        let (name, peer) = (format!("m{at}"), peers[at].as_str());
        let dir = dir.join(&name);
        std::fs::create_dir(&dir).unwrap();
        let urls = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer];
        start(&dir, &[&["--name", &name, "--initial-cluster", &all][..], &urls].concat())
    })
}

/// Passes connections on to the address of the moment; its change breaks them off. Returns its own address.
async fn relay(target: &tokio::sync::watch::Sender<String>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = target.subscribe();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut target = target.clone();
            let to = target.borrow_and_update().trim_start_matches("http://").to_owned();
            tokio::spawn(async move {
                let Ok(mut to) = tokio::net::TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    _ = target.changed() => {}
                }
            });
        }
    });
    format!("http://{address}")
}

/// A member that was cut off knows less than what the watch has told. It is no other etcd: it catches up.
#[tokio::test]
async fn a_member_that_lags_behind_is_waited_for() {
    let dir = scratch();
    let [leads, also, lags] = start_three(dir.path());
    let target = tokio::sync::watch::Sender::new(leads.endpoint());
    let relay = relay(&target).await;
    let direct = eventually(|| EtcdStore::connect(Options::new(vec![leads.endpoint()]))).await;
    let first = eventually(|| direct.put("/registry/w/a", Bytes::new(), Expect::Any)).await;
    let store = EtcdStore::connect(Options::new(vec![relay])).await.unwrap();
    let mut watch = store.watch("/registry/w/", first).await.unwrap();
    // Through a member itself, as it is now.
    let mut member = etcd_client::Client::connect([lags.endpoint()], None).await.unwrap();
    let serializable = etcd_client::GetOptions::new().with_serializable();
    member.get("x", Some(serializable.clone())).await.unwrap();

    // More than the others send ahead to a member that does not answer.
    lags.signal(Signal::STOP).unwrap();
    // It may have been the leader.
    let put = |key: &'static str, value: &'static [u8]| {
        let direct = &direct;
        eventually(move || direct.put(key, Bytes::from_static(value), Expect::Any))
    };
    let puts = (0..3000).map(|_| put("/registry/x", b"x"));
    assert_eq!(futures::stream::iter(puts).buffer_unordered(64).count().await, 3000);
    let told = put("/registry/w/a", b"told").await;
    assert_eq!(values(&mut watch, told).await, [(told, "told".to_owned())]);
    for other in [&leads, &also] {
        other.signal(Signal::STOP).unwrap();
    }
    lags.signal(Signal::CONT).unwrap();
    target.send_replace(lags.endpoint());
    let quiet = tokio::time::timeout(Duration::from_secs(4), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let newest = member.get("x", Some(serializable)).await.unwrap().header().unwrap().revision();
    assert!(newest.unsigned_abs() < told, "it knows {newest} of {told}");

    for other in [&leads, &also] {
        other.signal(Signal::CONT).unwrap();
    }
    let later = eventually(|| store.put("/registry/w/a", Bytes::from_static(b"later"), Expect::Any)).await;
    let seen = values(&mut watch, later).await;
    assert_eq!(seen.last(), Some(&(later, "later".to_owned())));
}

#[tokio::test]
async fn progress_is_told_of_what_happens_elsewhere() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let (store, tenant) = (connect(&etcd, "/registry").await, connect(&etcd, "/tenant").await);
    let at = store.revision().await.unwrap();
    let mut watch = store.watch("/registry/", at).await.unwrap();
    let newest = put(&tenant, "/registry/a", "1").await;
    store.request_progress().await.unwrap();
    let item = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time");
    assert!(matches!(item, Some(Ok(WatchItem::Progress(at))) if at > newest), "{item:?}");
    assert_eq!(store.range("/registry/", "", None, 0).await.unwrap().count, 0, "no key of it shows");
}

#[tokio::test]
async fn keys_expire_and_share_leases() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let store = connect(&etcd, "/registry").await;
    for n in 0..3 {
        let key = format!("/registry/events/{n}");
        // A lease is shared for a twentieth of its time.
        store.put_expiring(&key, Bytes::from_static(b"e"), Expect::Absent, Duration::from_secs(600)).await.unwrap();
    }
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    assert_eq!(client.leases().await.unwrap().leases().len(), 1, "three keys, one lease");
    // A lease that is gone is replaced.
    let id = client.leases().await.unwrap().leases()[0].id();
    client.lease_revoke(id).await.unwrap();
    store.put_expiring("/registry/events/4", Bytes::new(), Expect::Absent, Duration::from_secs(600)).await.unwrap();
    store.put_expiring("/registry/events/5", Bytes::new(), Expect::Absent, Duration::from_secs(2)).await.unwrap();
    let kept = put(&store, "/registry/events/kept", "k").await;
    assert_eq!(store.range("/registry/events/", "", Some(kept), 0).await.unwrap().count, 3);
    eventually(|| async {
        let count = store.range("/registry/events/", "", None, 0).await?.count;
        if count == 2 { Ok(()) } else { Err(Error::Closed) }
    })
    .await;
}

#[tokio::test]
async fn only_one_of_several_compacts() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let (one, two) = (connect(&etcd, "/registry").await, connect(&etcd, "/registry").await);
    let first = put(&one, "/registry/a", "1").await;
    let second = put(&one, "/registry/a", "2").await;
    one.compact_in_turn(first).await.unwrap();
    assert!(one.range("/registry/", "", Some(first), 0).await.is_ok());
    // Forestalled: it only learns of the round.
    two.compact_in_turn(second).await.unwrap();
    assert!(one.range("/registry/", "", Some(first), 0).await.is_ok());
    two.compact_in_turn(second).await.unwrap();
    assert!(matches!(one.range("/registry/", "", Some(first), 0).await, Err(Error::Compacted { .. })));
    // Forestalled in turn.
    one.compact_in_turn(second).await.unwrap();
}

#[tokio::test]
async fn a_full_etcd_says_so_and_recovers() {
    let dir = scratch();
    let etcd = start(dir.path(), &["--quota-backend-bytes", "2000000"]);
    let store = connect(&etcd, "/registry").await;
    store.health().await.unwrap();
    let value = Bytes::from(vec![b'x'; 200_000]);
    let mut full = None;
    for n in 0..500 {
        if let Err(error) = store.put(&format!("/registry/big/{n}"), value.clone(), Expect::Absent).await {
            full = Some(error);
            break;
        }
    }
    match full {
        Some(Error::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    let why = eventually(|| async {
        match store.health().await {
            Ok(()) => Err(Error::Closed),
            Err(error) => Ok(error.to_string()),
        }
    })
    .await;
    assert!(why.contains("NOSPACE") || why.contains("space"), "{why}");
    assert!(store.range("/registry/", "", None, 0).await.unwrap().count > 0, "it still reads");
    // The administrator's part.
    for kv in store.range("/registry/big/", "", None, 0).await.unwrap().kvs {
        store.delete(&kv.key, Expect::Any).await.unwrap();
    }
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    // Compaction goes on after its answer, so that there may be nothing to be freed yet.
    let started = std::time::Instant::now();
    loop {
        client.defragment().await.unwrap();
        let nospace = etcd_client::AlarmType::Nospace;
        for raised in client.alarm(etcd_client::AlarmAction::Get, nospace, None).await.unwrap().alarms() {
            let mut options = etcd_client::AlarmOptions::new();
            options.with_member(raised.member_id());
            client.alarm(etcd_client::AlarmAction::Deactivate, nospace, Some(options)).await.unwrap();
        }
        match store.put("/registry/a", Bytes::from_static(b"1"), Expect::Any).await {
            Ok(_) => break,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
    }
    eventually(|| store.health()).await;
}

#[tokio::test]
async fn a_slow_etcd_is_waited_for_within_limits() {
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let store = connect(&etcd, "/registry").await;
    let at = put(&store, "/registry/a", "1").await;
    let mut watch = store.watch("/registry/", at).await.unwrap();
    etcd.signal(Signal::STOP).unwrap();
    let started = std::time::Instant::now();
    let (write, health) =
        tokio::join!(store.put("/registry/a", Bytes::from_static(b"2"), Expect::Revision(at)), store.health());
    assert!(matches!(write, Err(Error::Timeout { .. } | Error::Unreachable { .. })), "{write:?}");
    assert!(health.is_err());
    assert!(started.elapsed() < Duration::from_secs(20));
    etcd.signal(Signal::CONT).unwrap();
    // The write may have happened after all: whoever gave up on it must look.
    eventually(|| store.revision()).await;
    let newest = eventually(|| store.put("/registry/a", Bytes::from_static(b"3"), Expect::Any)).await;
    assert_eq!(values(&mut watch, newest).await.pop(), Some((newest, "3".to_owned())));
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn events_that_are_moved_expire() {
    use keelson_store::{LocalStore, migrate};
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let local = LocalStore::open(&dir.path().join("one"), Default::default()).unwrap();
    for key in ["/registry/events/default/a", "/registry/things/a"] {
        local.put(key, Bytes::from_static(b"1"), Expect::Absent).await.unwrap();
    }
    let store = connect(&etcd, "/registry").await;
    migrate::to_etcd(&local, &store, HOUR).await.unwrap();
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let mut leases = Vec::new();
    for key in ["/registry/events/default/a", "/registry/things/a"] {
        leases.push(client.get(key, None).await.unwrap().kvs()[0].lease());
    }
    assert!(leases[0] != 0 && leases[1] == 0, "{leases:?}");
    let granted = client.lease_time_to_live(leases[0], None).await.unwrap().granted_ttl();
    assert!((3600..3800).contains(&granted), "{granted}");
}

#[tokio::test]
async fn everything_moves_both_ways() {
    use keelson_store::{LocalStore, migrate};
    let dir = scratch();
    let etcd = start(dir.path(), &[]);
    let local = LocalStore::open(&dir.path().join("one"), Default::default()).unwrap();
    // Created in one order, last written in another, some deleted.
    for n in (0..40).rev() {
        local.put(&format!("/registry/things/{n:02}"), Bytes::from(format!("first {n}")), Expect::Any).await.unwrap();
    }
    for n in [7, 3, 31] {
        local.put(&format!("/registry/things/{n:02}"), Bytes::from(format!("second {n}")), Expect::Any).await.unwrap();
    }
    for n in [8, 39, 0] {
        local.delete(&format!("/registry/things/{n:02}"), Expect::Any).await.unwrap();
    }
    let before = local.range("/registry/", "", None, 0).await.unwrap();
    let fresh = connect(&etcd, "/registry").await;
    let moved = migrate::to_etcd(&local, &fresh, HOUR).await.unwrap();
    assert_eq!((moved.keys, moved.revision), (37, before.revision));
    let by_revision = |range: &keelson_store::Range| {
        let mut all: Vec<_> = range.kvs.iter().map(|kv| (kv.mod_revision, kv.key.clone(), kv.value.clone())).collect();
        all.sort();
        all
    };
    // etcd's first write has revision 2: the first one written here cannot keep its own, unless it was superseded.
    let there = fresh.range("/registry/", "", None, 0).await.unwrap();
    assert!(moved.exact);
    assert_eq!(by_revision(&there), by_revision(&before));
    let refused = migrate::to_etcd(&local, &fresh, HOUR).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");

    // An etcd that has moved on already: another order of magnitude, the same order.
    let used = connect(&etcd, "/used").await;
    let moved = migrate::to_etcd(&local, &used, HOUR).await.unwrap();
    assert!(!moved.exact && moved.revision >= before.revision);
    let there = used.range("/registry/", "", None, 0).await.unwrap();
    let order =
        |all: Vec<(u64, Arc<str>, Bytes)>| all.into_iter().map(|(_, key, value)| (key, value)).collect::<Vec<_>>();
    assert_eq!(order(by_revision(&there)), order(by_revision(&before)));

    // Back, with the numbers that etcd gave.
    let back = dir.path().join("two");
    let moved = migrate::to_local(&used, &back).await.unwrap();
    assert_eq!((moved.keys, moved.exact), (37, true));
    assert!(migrate::to_local(&used, &back).await.is_err(), "there is something already");
    let back = LocalStore::open(&back, Default::default()).unwrap();
    assert_eq!(back.range("/registry/", "", None, 0).await.unwrap().kvs, there.kvs);
    assert_eq!(back.revision().await.unwrap(), moved.revision);
    back.put("/registry/things/00", Bytes::from_static(b"again"), Expect::Absent).await.unwrap();
}
