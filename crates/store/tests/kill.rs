//! `kill -9` at random moments under concurrent load: every acknowledged write is there afterwards. The child is this test
//! binary itself, told so by its environment.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use keelson_store::{Expect, LocalStore, Options, Store};
use rand::Rng;

const CHILD_DIR: &str = "KEELSON_TEST_STORE_DIR";
const ROUNDS: usize = 200;
const WRITERS: usize = 16;

fn options() -> Options {
    // Small, so that rotation, growth, compaction and snapshots happen all the time.
    Options {
        segment_bytes: 256 << 10,
        preallocate_bytes: 64 << 10,
        snapshot_log_bytes: 512 << 10,
        ..Options::default()
    }
}

/// The value written at `key` the `n`th time: long enough to span sectors, and says itself what it is.
fn value(key: &str, n: u64) -> Bytes {
    let mut text = format!("{key} {n} ");
    while text.len() < 200 + (n as usize % 7) * 300 {
        text.push_str("0123456789");
    }
    text.into()
}

#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let store = Arc::new(LocalStore::open(Path::new(&dir), options()).expect("the store opens"));
        println!("\nopen");
        let writers = (0..WRITERS).map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = format!("/kill/{w}");
                let mut current = store.get(&key).await.expect("get").map(|kv| (kv.mod_revision, count(&kv.value)));
                loop {
                    let n = current.map_or(0, |(_, n)| n) + 1;
                    let expect = current.map_or(Expect::Absent, |(revision, _)| Expect::Revision(revision));
                    let revision = store.put(&key, value(&key, n), expect).await.expect("put");
                    current = Some((revision, n));
                    // One write call a line, so that a line is whole or not there.
                    let line = format!("ack {w} {n} {revision}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
                    if revision % 400 == 0 {
                        store.compact(revision - 100).await.expect("compact");
                    }
                }
            })
        });
        futures::future::join_all(writers.collect::<Vec<_>>()).await;
    });
}

fn count(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("text");
    text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut rng = rand::rng();
    let mut acknowledged: HashMap<usize, (u64, u64)> = HashMap::new();
    let (mut total, mut newest) = (0u64, 0u64);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the child starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).split(b'\n');
        let opened = lines.by_ref().any(|l| l.expect("a line") == b"open");
        assert!(opened, "round {round}: the child could not open the store");
        let reader = std::thread::spawn(move || lines.map(|l| l.expect("a line")).collect::<Vec<_>>());
        // The one sleep that is the point: how long the load runs before the kill.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..25_000)));
        child.kill().expect("kill -9");
        child.wait().expect("reaped");
        for line in reader.join().expect("the reader") {
            let line = String::from_utf8(line).expect("text");
            let Some(rest) = line.strip_prefix("ack ") else { continue };
            let numbers: Vec<u64> = rest.split(' ').map(|n| n.parse().expect("a number")).collect();
            let [w, n, revision] = numbers[..] else { panic!("{line}") };
            acknowledged.insert(w as usize, (n, revision));
            newest = newest.max(revision);
            total += 1;
        }

        let store = LocalStore::open(dir.path(), options()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        runtime.block_on(async {
            assert!(store.revision().await.expect("revision") >= newest, "round {round}");
            for (w, (n, revision)) in &acknowledged {
                let key = format!("/kill/{w}");
                let kv = store.get(&key).await.expect("get").unwrap_or_else(|| panic!("round {round}: {key} is gone"));
                let there = count(&kv.value);
                assert_eq!(kv.value, value(&key, there), "round {round}: half a value");
                // At most one write per key was under way.
                assert!((*n..=n + 1).contains(&there), "round {round}: {key} is at {there}, {n} was acknowledged");
                assert!(if there == *n { kv.mod_revision == *revision } else { kv.mod_revision > *revision });
                // What was not acknowledged but is there counts from now on.
            }
        });
        for w in 0..WRITERS {
            if let Some(kv) = runtime.block_on(store.get(&format!("/kill/{w}"))).expect("get") {
                acknowledged.insert(w, (count(&kv.value), kv.mod_revision));
            }
        }
    }
    assert!(total > 10 * ROUNDS as u64, "only {total} writes were acknowledged: this was no load");
}
