//! Measures durable writes through the [`Store`] trait; the caller brings the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{Error, Expect, Store};

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    pub in_flight: usize,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Writes values of so many bytes to ever new keys, `in_flight` at a time, for as long as told.
pub async fn writes(
    store: Arc<dyn Store>,
    in_flight: usize,
    value_bytes: usize,
    time: Duration,
) -> Result<Writes, Error> {
    let value = Bytes::from(vec![b'x'; value_bytes]);
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (store, value, next) = (store.clone(), value.clone(), next.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < time {
                    let key = format!("/registry/bench/{in_flight}/{:08}", next.fetch_add(1, Ordering::Relaxed));
                    let at = Instant::now();
                    store.put(&key, value.clone(), Expect::Any).await?;
                    latencies.push(at.elapsed());
                }
                Ok::<_, Error>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.map_err(|_| Error::Closed)??);
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    Ok(Writes { in_flight, per_second, p50: at(50), p99: at(99) })
}
