//! Operations of the store, by what they are about. The names say etcd, whatever the engine, as dashboards know them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keelson_store::{Error, Expect, KeyValue, Range, Store, WatchStream};
use prometheus::{HistogramVec, IntCounterVec, Registry};
use tokio::time::Instant;

use super::{SECONDS, counters, histograms};
use crate::cache::Cache;

/// Upstream's since v1.34.
const LABELS: [&str; 3] = ["operation", "group", "resource"];

/// The families.
pub(super) struct Operations {
    durations: HistogramVec,
    total: IntCounterVec,
    errors: IntCounterVec,
}

impl Operations {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            durations: histograms(
                registry,
                "etcd_request_duration_seconds",
                "Etcd request latency in seconds for each operation and object type.",
                SECONDS,
                &LABELS,
            )?,
            total: counters(
                registry,
                "etcd_requests_total",
                "Etcd request counts for each operation and object type.",
                &LABELS,
            )?,
            errors: counters(
                registry,
                "etcd_request_errors_total",
                "Etcd failed request counts for each operation and object type.",
                &LABELS,
            )?,
        })
    }
}

/// A store whose operations are measured.
pub(super) struct Measured {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    operations: Arc<Operations>,
}

impl Measured {
    pub(super) fn new(store: Arc<dyn Store>, cache: Arc<Cache>, operations: Arc<Operations>) -> Self {
        Self { store, cache, operations }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begin = Instant::now();
        let result = work.await;
        let (group, resource) = self.cache.type_of_key(key);
        let labels = [operation, group.as_str(), resource.as_str()];
        self.operations.total.with_label_values(&labels).inc();
        self.operations.durations.with_label_values(&labels).observe(begin.elapsed().as_secs_f64());
        // A key that is not as expected is an answer.
        if matches!(&result, Err(error) if !matches!(error, Error::Conflict { .. })) {
            self.operations.errors.with_label_values(&labels).inc();
        }
        result
    }
}

#[async_trait]
impl Store for Measured {
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, Error> {
        let operation = if expect == Expect::Absent { "create" } else { "update" };
        self.measure(operation, key, self.store.put(key, value, expect)).await
    }

    async fn put_expiring(&self, key: &str, value: Bytes, expect: Expect, ttl: Duration) -> Result<u64, Error> {
        let operation = if expect == Expect::Absent { "create" } else { "update" };
        self.measure(operation, key, self.store.put_expiring(key, value, expect, ttl)).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(u64, KeyValue), Error> {
        self.measure("delete", key, self.store.delete(key, expect)).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.measure("get", key, self.store.get(key)).await
    }

    async fn range(&self, prefix: &str, start: &str, revision: Option<u64>, limit: usize) -> Result<Range, Error> {
        self.measure("list", prefix, self.store.range(prefix, start, revision, limit)).await
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
        self.store.watch(prefix, revision).await
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.store.revision().await
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.store.request_progress().await
    }

    async fn compact(&self, revision: u64) -> Result<(), Error> {
        self.store.compact(revision).await
    }

    async fn compact_in_turn(&self, revision: u64) -> Result<(), Error> {
        self.store.compact_in_turn(revision).await
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    async fn health(&self) -> Result<(), Error> {
        self.store.health().await
    }
}
