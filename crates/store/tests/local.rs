//! The local engine: the common suite, a model, reopening, limits, and the disk's refusals.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use keelson_store::{Error, Expect, LocalStore, Options, Store, WatchItem, suite};
use proptest::prelude::*;

fn open(dir: &Path) -> LocalStore {
    LocalStore::open(dir, Options::default()).expect("the store opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let dir = tempfile::tempdir().expect("a directory");
    let fresh = |name: &str| Arc::new(open(&dir.path().join(name)));
    suite::compare_and_swap(&*fresh("cas")).await;
    suite::concurrent_writers(fresh("concurrent")).await;
    suite::ranges(&*fresh("ranges")).await;
    suite::watches(&*fresh("watches")).await;
    suite::compaction(&*fresh("compaction")).await;
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Create(u8),
    Delete(u8),
    Compact(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u8, 0..3000u16).prop_map(|(k, n)| Step::Put(k, n)),
        3 => (0..6u8).prop_map(Step::Create),
        3 => (0..6u8).prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A directory in memory where there is one: these tests are about bytes, not about how long a disk takes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

type Model = BTreeMap<String, (Bytes, u64, u64)>;

async fn state(store: &LocalStore, at: u64) -> Model {
    let range = store.range("/", "", Some(at), 0).await.expect("a range");
    range.kvs.into_iter().map(|kv| (kv.key.to_string(), (kv.value, kv.create_revision, kv.mod_revision))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that keeps every revision whole, through reopening, segments and snapshots.
    #[test]
    fn behaves_as_a_map_of_maps(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = scratch();
            let options = Options {
                segment_bytes: 6 << 10, preallocate_bytes: 4096, snapshot_log_bytes: 16 << 10, ..Options::default()
            };
            let mut store = LocalStore::open(dir.path(), options).expect("the store opens");
            let mut history: Vec<Model> = vec![Model::new()];
            let mut compacted = 0;
            for step in steps {
                let mut model = history.last().cloned().unwrap_or_default();
                let revision = history.len() as u64;
                let key = |k: u8| format!("/{k}");
                match step {
                    Step::Put(k, n) => {
                        let value = Bytes::from(vec![n as u8; usize::from(n)]);
                        let created = model.get(&key(k)).map_or(revision, |v| v.1);
                        assert_eq!(store.put(&key(k), value.clone(), Expect::Any).await.expect("put"), revision);
                        model.insert(key(k), (value, created, revision));
                        history.push(model);
                    }
                    Step::Create(k) => match (store.put(&key(k), Bytes::new(), Expect::Absent).await, model.get(&key(k))) {
                        (Ok(at), None) => {
                            assert_eq!(at, revision);
                            model.insert(key(k), (Bytes::new(), revision, revision));
                            history.push(model);
                        }
                        (Err(Error::Conflict { current: Some(kv) }), Some(there)) => assert_eq!(kv.mod_revision, there.2),
                        (got, there) => panic!("{got:?} although there is {there:?}"),
                    },
                    Step::Delete(k) => match (store.delete(&key(k), Expect::Any).await, model.remove(&key(k))) {
                        (Ok((at, old)), Some(there)) => {
                            assert_eq!((at, old.mod_revision, old.value), (revision, there.2, there.0));
                            history.push(model);
                        }
                        (Err(Error::Conflict { current: None }), None) => {}
                        (got, there) => panic!("{got:?} although there is {there:?}"),
                    },
                    Step::Compact(share) => {
                        let at = (revision - 1) * u64::from(share) / 255;
                        match store.compact(at).await {
                            Ok(()) => compacted = at,
                            Err(Error::Compacted { .. }) => assert!(at <= compacted),
                            Err(e) => panic!("{e}"),
                        }
                    }
                    Step::Reopen => {
                        drop(store);
                        store = LocalStore::open(dir.path(), options).expect("the store opens again");
                    }
                }
            }
            for again in [false, true] {
                if again {
                    drop(store);
                    store = LocalStore::open(dir.path(), options).expect("the store opens again");
                }
                for (at, model) in history.iter().enumerate() {
                    if at as u64 >= compacted {
                        assert_eq!(&state(&store, at as u64).await, model, "revision {at}");
                    } else {
                        let old = store.range("/", "", Some(at as u64), 0).await;
                        assert!(matches!(old, Err(Error::Compacted { .. })), "revision {at}");
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn watches_go_on_after_reopening_and_end_with_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for n in 0..5 {
        store.put(&format!("/{n}"), Bytes::new(), Expect::Any).await.expect("put");
    }
    drop(store);
    let store = open(dir.path());
    let mut watch = store.watch("/", 2).await.expect("a watch from before the restart");
    let Some(Ok(WatchItem::Events(events))) = watch.next().await else { panic!("events first") };
    assert_eq!(events.iter().map(|e| e.revision).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(matches!(watch.next().await, Some(Ok(WatchItem::Progress(5)))));
    drop(store);
    assert!(matches!(watch.next().await, Some(Err(Error::Closed))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn slow_watches_are_cut_off_and_idle_ones_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store =
        LocalStore::open(dir.path(), Options { ring_events: 10, ..Options::default() }).expect("the store opens");
    let mut slow = store.watch("/a/", 0).await.expect("watch");
    let mut idle = store.watch("/b/", 0).await.expect("watch");
    for n in 0..20 {
        store.put(&format!("/a/{n}"), Bytes::new(), Expect::Any).await.expect("put");
    }
    assert!(matches!(slow.next().await, Some(Err(Error::Compacted { requested: 0, oldest: 10 }))));
    assert!(slow.next().await.is_none());
    assert!(matches!(idle.next().await, Some(Ok(WatchItem::Progress(20)))));
    store.put("/b/1", Bytes::new(), Expect::Any).await.expect("put");
    assert!(matches!(idle.next().await, Some(Ok(WatchItem::Events(e))) if e.len() == 1));
    assert!(matches!(store.watch("/b/", 3).await, Err(Error::Compacted { requested: 3, oldest: 11 })));
}

#[tokio::test]
async fn history_is_bounded_without_anybody_compacting() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { history_bytes: 64 << 10, ring_events: 8, ..Options::default() };
    let store = LocalStore::open(dir.path(), options).expect("the store opens");
    for n in 0..200u8 {
        store.put("/a", Bytes::from(vec![n; 1024]), Expect::Any).await.expect("put");
    }
    assert!(matches!(store.range("/", "", Some(1), 0).await, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn one_process_at_a_time_and_nobody_elses_eyes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let store = open(&path);
    store.put("/a", Bytes::from_static(b"secret"), Expect::Any).await.expect("put");
    store.compact(1).await.expect("compact");
    assert!(
        matches!(LocalStore::open(&path, Options::default()), Err(Error::Io { context, .. }) if context.contains("LOCK"))
    );
    assert_eq!(path.metadata().expect("metadata").permissions().mode() & 0o777, 0o700);
    for entry in path.read_dir().expect("a listing") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    drop(store);
    open(&path);
}

#[tokio::test]
async fn a_backup_is_whole_or_refused_and_restores() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().join("store"));
    for n in 0..300 {
        store.put(&format!("/{n:03}"), Bytes::from(vec![7; 2000]), Expect::Any).await.expect("put");
    }
    store.delete("/000", Expect::Any).await.expect("delete");
    let backup = dir.path().join("backup.snap");
    assert_eq!(store.snapshot_to(&backup).expect("a backup"), 301);
    let before = state(&store, 301).await;

    LocalStore::restore(&backup, &dir.path().join("again")).expect("restored");
    for put in [301, 302] {
        let again = open(&dir.path().join("again"));
        assert_eq!(again.revision().await.expect("revision"), put);
        assert_eq!(state(&again, 301).await, before);
        assert_eq!(again.put("/new", Bytes::new(), Expect::Any).await.expect("put"), put + 1);
    }
    assert!(matches!(LocalStore::restore(&backup, &dir.path().join("again")), Err(Error::Invalid { .. })));

    let bytes = std::fs::read(&backup).expect("read");
    for at in (0..bytes.len()).step_by(997).chain(bytes.len() - 24..bytes.len()).chain(0..40) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        std::fs::write(&backup, &damaged).expect("write");
        let result = LocalStore::restore(&backup, &dir.path().join("never"));
        assert!(matches!(result, Err(Error::Corrupt { .. })), "byte {at}: {result:?}");
    }
    std::fs::write(&backup, &bytes[..bytes.len() - 1]).expect("write");
    assert!(matches!(LocalStore::restore(&backup, &dir.path().join("never")), Err(Error::Corrupt { .. })));
}

/// Unmounts also when the test fails.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let size = std::ffi::CString::new("size=1m,mode=0700").expect("no zero byte");
    rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), Some(size.as_c_str()))
        .expect("this test mounts a small tmpfs and so needs root");
    let _mount = Mount(dir.path().to_owned());
    let path = dir.path().join("store");
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![1u8; 300 << 10]).expect("ballast");
    let options = Options { preallocate_bytes: 64 << 10, segment_bytes: 256 << 10, ..Options::default() };
    let store = Arc::new(LocalStore::open(&path, options).expect("the store opens"));
    let value = Bytes::from(vec![b'v'; 10_000]);
    let mut written = 0u64;
    let error = loop {
        match store.put(&format!("/{written}"), value.clone(), Expect::Absent).await {
            Ok(revision) => written = revision,
            Err(error) => break error,
        }
        assert!(written < 200, "the disk never fills up");
    };
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull), "{error}");
    let failures = futures::future::join_all((0..10).map(|n| {
        let (store, value) = (store.clone(), value.clone());
        async move { store.put(&format!("/full/{n}"), value, Expect::Absent).await }
    }));
    assert!(failures.await.iter().all(|r| matches!(r, Err(Error::Io { .. }))));
    assert_eq!(store.revision().await.expect("revision"), written);
    assert_eq!(store.range("/", "", None, 0).await.expect("range").count as u64, written);

    std::fs::remove_file(&ballast).expect("room again");
    assert_eq!(store.put("/after", value.clone(), Expect::Absent).await.expect("it goes on"), written + 1);
    drop(store);
    let store = LocalStore::open(&path, options).expect("the store opens again");
    assert_eq!(store.range("/", "", None, 0).await.expect("range").count as u64, written + 1);
}

#[tokio::test]
async fn abandoned_writes_still_happen_and_give_their_room_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store =
        LocalStore::open(dir.path(), Options { queue_bytes: 0, ..Options::default() }).expect("the store opens");
    let big = Bytes::from(vec![1; 9 << 20]);
    for n in 0..3 {
        // Polled once: entered, then dropped.
        let key = format!("/{n}");
        let put = store.put(&key, big.clone(), Expect::Any);
        let _ = tokio::time::timeout(Duration::ZERO, put).await;
    }
    // Only the first found room before it was dropped; without its room back there would be none for the last.
    store.put("/last", big, Expect::Any).await.expect("there is room again");
    assert!(store.get("/0").await.expect("get").is_some());
}
