//! `cargo run -p keelson-store --example store_bench [DIR]`: durable 1 KiB writes/s, and the time to open 100,000 objects.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keelson_store::{Expect, LocalStore, Options, Store, bench};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent)?;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path(), Options::default())?);
    for in_flight in [1, 16, 32, 64] {
        let w = bench::writes(store.clone(), in_flight, 1024, Duration::from_secs(2)).await?;
        println!("{:>3} in flight: {:>8.0} writes/s, p50 {:?}, p99 {:?}", w.in_flight, w.per_second, w.p50, w.p99);
    }
    drop(store);
    let dir = tempfile::tempdir_in(dir.path())?;
    let store = Arc::new(LocalStore::open(dir.path(), Options::default())?);
    let value = bytes::Bytes::from(vec![b'x'; 1024]);
    let puts = (0..100_000u32).map(|i| {
        let (store, value) = (store.clone(), value.clone());
        async move { store.put(&format!("/registry/pods/default/{i:08}"), value, Expect::Any).await }
    });
    futures::future::try_join_all(puts).await?;
    drop(store);
    for kind in ["a log", "a snapshot"] {
        let at = Instant::now();
        let store = LocalStore::open(dir.path(), Options { snapshot_log_bytes: 0, ..Options::default() })?;
        println!("100,000 objects of 1 KiB opened from {kind} in {:?}", at.elapsed());
        if kind == "a log" {
            store.compact(store.revision().await?).await?;
        }
    }
    Ok(())
}
