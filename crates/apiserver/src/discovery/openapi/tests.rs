use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test(start_paused = true)]
async fn documents_are_made_once_and_kept_for_a_while() {
    let (kept, made) = (Kept::default(), Arc::new(AtomicUsize::new(0)));
    let get = async |name: &str, hash: &str| {
        let made = made.clone();
        let make = move || Some(format!("document {}", made.fetch_add(1, Ordering::Relaxed)).into_bytes());
        kept.get(name.to_owned(), hash, make).await.unwrap()
    };
    let (first, second) = tokio::join!(get("a", "1"), get("a", "1"));
    assert_eq!(first, "document 0");
    assert_eq!(first.as_ptr(), second.as_ptr(), "the same bytes");
    assert_eq!(get("b", "1").await, "document 1");
    assert_eq!(get("a", "2").await, "document 2", "another hash is another document");
    assert_eq!(kept.documents.lock().len(), 2, "and takes the place of the old one");
    tokio::time::sleep(KEEP / 2).await;
    assert_eq!(get("a", "2").await, "document 2");
    tokio::time::sleep(KEEP).await;
    assert_eq!(kept.documents.lock().len(), 0);
}
