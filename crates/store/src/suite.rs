//! What every engine must do, as cases over `dyn Store`. Each wants a fresh, empty store. For tests only: failures panic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;

use crate::{Error, Event, Expect, Store, WatchItem, WatchStream};

const DEADLINE: Duration = Duration::from_secs(10);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    store.put(key, bytes(value), Expect::Any).await.expect("an unconditional put")
}

/// Keys and values of a range, its revision, whether there is more, the count.
async fn list(
    store: &dyn Store,
    prefix: &str,
    start: &str,
    at: Option<u64>,
    limit: usize,
) -> (Vec<String>, bool, usize) {
    let range = store.range(prefix, start, at, limit).await.expect("a range");
    let text = |kv: &crate::KeyValue| format!("{}={}", kv.key, String::from_utf8_lossy(&kv.value));
    (range.kvs.iter().map(text).collect(), range.more, range.count)
}

async fn next(stream: &mut WatchStream) -> Result<WatchItem, Error> {
    let item = tokio::time::timeout(DEADLINE, stream.next()).await.expect("a watch item within the deadline");
    item.expect("the watch goes on")
}

/// Events until the one at `last`.
async fn events(stream: &mut WatchStream, last: u64) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    while out.last().is_none_or(|e| e.revision < last) {
        if let WatchItem::Events(events) = next(stream).await.expect("no error") {
            assert!(!events.is_empty(), "an item has events");
            out.extend(events);
        }
    }
    out
}

/// Create, update and delete under conditions, with what is there on conflict.
pub async fn compare_and_swap(store: &dyn Store) {
    let first = store.put("/registry/a", bytes("1"), Expect::Absent).await.expect("create");
    let conflict = store.put("/registry/a", bytes("x"), Expect::Absent).await;
    assert!(
        matches!(conflict, Err(Error::Conflict { current: Some(kv) }) if kv.mod_revision == first && kv.value == "1")
    );
    let second = store.put("/registry/a", bytes("2"), Expect::Revision(first)).await.expect("update");
    assert_eq!(second, first + 1);
    let conflict = store.put("/registry/a", bytes("x"), Expect::Revision(first)).await;
    assert!(matches!(conflict, Err(Error::Conflict { current: Some(kv) }) if kv.mod_revision == second));
    let conflict = store.put("/registry/b", bytes("x"), Expect::Revision(first)).await;
    assert!(matches!(conflict, Err(Error::Conflict { current: None })));
    let kv = store.get("/registry/a").await.expect("get").expect("it is there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.value), (first, second, bytes("2")));
    assert!(matches!(
        store.delete("/registry/a", Expect::Revision(first)).await,
        Err(Error::Conflict { current: Some(_) })
    ));
    let (third, deleted) = store.delete("/registry/a", Expect::Revision(second)).await.expect("delete");
    assert_eq!((third, deleted.mod_revision), (second + 1, second));
    for expect in [Expect::Any, Expect::Absent, Expect::Revision(second)] {
        assert!(matches!(store.delete("/registry/a", expect).await, Err(Error::Conflict { current: None })));
    }
    let fourth = store.put("/registry/a", bytes("3"), Expect::Absent).await.expect("create again");
    let kv = store.get("/registry/a").await.expect("get").expect("it is there");
    assert_eq!((kv.create_revision, kv.mod_revision), (fourth, fourth));
    assert_eq!(store.revision().await.expect("revision"), fourth, "failed writes make no revision");
    assert!(matches!(store.put("", bytes(""), Expect::Any).await, Err(Error::Invalid { .. })));
    store.put("/registry/r\u{f4}le", bytes("4"), Expect::Absent).await.expect("a key beyond ASCII");
    let found = store.range("/registry/r\u{f4}", "", None, 0).await.expect("range").kvs;
    assert_eq!(found.first().map(|kv| &*kv.key), Some("/registry/r\u{f4}le"));
}

/// Of many who write under the same condition at once, one wins; increments are not lost.
pub async fn concurrent_writers(store: Arc<dyn Store>) {
    put(&*store, "/registry/n", "0").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 20 {
                    let kv = store.get("/registry/n").await.expect("get").expect("it is there");
                    let n: u32 = String::from_utf8_lossy(&kv.value).parse().expect("a number");
                    match store.put("/registry/n", bytes(&(n + 1).to_string()), Expect::Revision(kv.mod_revision)).await
                    {
                        Ok(_) => done += 1,
                        Err(Error::Conflict { current: Some(kv) }) => {
                            let seen = store.get("/registry/n").await.expect("get").expect("it is there");
                            assert!(seen.mod_revision >= kv.mod_revision, "a conflict tells only what is durable");
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no writer panics");
    }
    assert_eq!(store.get("/registry/n").await.expect("get").expect("it is there").value, "160");
}

/// Prefixes, starts, limits and old revisions.
pub async fn ranges(store: &dyn Store) {
    for key in ["/registry/p/b", "/registry/p/a", "/registry/q/a", "/registry/p/c", "/registry/o/z"] {
        put(store, key, "1").await;
    }
    let before = store.revision().await.expect("revision");
    put(store, "/registry/p/b", "2").await;
    store.delete("/registry/p/a", Expect::Any).await.expect("delete");
    assert_eq!(
        list(store, "/registry/p/", "", None, 0).await,
        (vec!["/registry/p/b=2".into(), "/registry/p/c=1".into()], false, 2)
    );
    let old = ["/registry/p/a=1", "/registry/p/b=1", "/registry/p/c=1"].map(String::from);
    assert_eq!(list(store, "/registry/p/", "", Some(before), 0).await, (old.to_vec(), false, 3));
    assert_eq!(list(store, "/registry/p/", "", Some(before), 2).await, (old[..2].to_vec(), true, 3));
    assert_eq!(list(store, "/registry/p/", "/registry/p/b\0", Some(before), 2).await, (old[2..].to_vec(), false, 1));
    assert_eq!(list(store, "/registry/p/", "/registry/p/b", Some(before), 1).await, (vec![old[1].clone()], true, 2));
    assert_eq!(list(store, "/registry/x/", "", None, 0).await, (vec![], false, 0));
    assert_eq!(list(store, "/registry/", "", None, 0).await.2, 4);
    let newest = store.revision().await.expect("revision");
    assert_eq!(store.range("/registry/p/", "", None, 0).await.expect("range").revision, newest);
    let future = store.range("/registry/p/", "", Some(newest + 1), 0).await;
    assert!(matches!(future, Err(Error::Future { newest: n, .. }) if n == newest));
}

/// Watches from now and from the past see all changes under their prefix once, in order, with the version before.
pub async fn watches(store: &dyn Store) {
    let first = put(store, "/registry/w/a", "1").await;
    let mut from_past = store.watch("/registry/w/", first - 1).await.expect("watch");
    let mut from_now = store.watch("/registry/w/", first).await.expect("watch");
    let second = put(store, "/registry/w/a", "2").await;
    put(store, "/registry/v/a", "other").await;
    let (third, _) = store.delete("/registry/w/a", Expect::Any).await.expect("delete");

    let seen = events(&mut from_past, third).await;
    let shape = |e: &Event| {
        let text = |kv: &Option<crate::KeyValue>| kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        (e.revision, text(&e.value), text(&e.previous))
    };
    let (one, two) = (Some("1".to_owned()), Some("2".to_owned()));
    let all = vec![(first, one.clone(), None), (second, two.clone(), one), (third, None, two)];
    assert_eq!(seen.iter().map(shape).collect::<Vec<_>>(), all);
    assert_eq!(events(&mut from_now, third).await.iter().map(shape).collect::<Vec<_>>(), all[1..]);

    let newest = put(store, "/registry/v/b", "other").await;
    store.request_progress().await.expect("request");
    loop {
        match next(&mut from_now).await.expect("no error") {
            WatchItem::Progress(at) if at >= newest => break,
            WatchItem::Progress(_) => {}
            WatchItem::Events(events) => panic!("nothing happened under the prefix: {events:?}"),
        }
    }
    // Telling of progress may have taken revisions of its own.
    let newest = store.revision().await.expect("revision");
    assert!(matches!(store.watch("/registry/w/", newest + 1).await, Err(Error::Future { .. })));
}

/// After compaction the newest versions stay and older revisions are refused.
pub async fn compaction(store: &dyn Store) {
    put(store, "/registry/c/a", "1").await;
    put(store, "/registry/c/b", "1").await;
    let at = put(store, "/registry/c/a", "2").await;
    let (deleted, _) = store.delete("/registry/c/b", Expect::Any).await.expect("delete");
    store.compact(at).await.expect("compact");
    let old = vec!["/registry/c/a=2".to_owned(), "/registry/c/b=1".to_owned()];
    assert_eq!(list(store, "/registry/c/", "", Some(at), 0).await.0, old);
    assert!(matches!(
        store.range("/registry/c/", "", Some(at - 1), 0).await,
        Err(Error::Compacted { requested, oldest }) if requested == at - 1 && oldest == at
    ));
    assert!(matches!(store.watch("/registry/c/", at - 1).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(at).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(deleted + 1).await, Err(Error::Future { .. })));
    let mut watch = store.watch("/registry/c/", at).await.expect("watch from the compacted revision");
    assert_eq!(events(&mut watch, deleted).await.len(), 1);
    store.compact(deleted).await.expect("compact");
    assert_eq!(list(store, "/registry/c/", "", None, 0).await.0, vec!["/registry/c/a=2".to_owned()]);
}
