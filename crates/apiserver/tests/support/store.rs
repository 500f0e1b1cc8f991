//! A real store whose calls a test may hold up, fail or change.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keelson_store::{Error, Expect, KeyValue, LocalStore, Options, Range, Store, WatchStream};
use tokio::sync::watch;

/// What comes before or after a call.
#[async_trait]
pub trait Hook: Send + Sync + 'static {
    async fn before_put(&self, _key: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn before_get(&self, _key: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn after_range(&self, _prefix: &str) -> Result<(), Error> {
        Ok(())
    }

    fn watched(&self, stream: WatchStream) -> WatchStream {
        stream
    }
}

/// The store; it looks like its hook.
pub struct Hooked<H> {
    local: LocalStore,
    hook: H,
    _dir: tempfile::TempDir,
}

impl<H: Hook> Hooked<H> {
    pub fn open(hook: H) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalStore::open(dir.path(), Options::default()).unwrap();
        Arc::new(Self { local, hook, _dir: dir })
    }
}

impl<H> Deref for Hooked<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hook
    }
}

#[async_trait]
impl<H: Hook> Store for Hooked<H> {
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, Error> {
        self.hook.before_put(key).await?;
        self.local.put(key, value, expect).await
    }

    async fn put_expiring(&self, key: &str, value: Bytes, expect: Expect, ttl: Duration) -> Result<u64, Error> {
        self.hook.before_put(key).await?;
        self.local.put_expiring(key, value, expect, ttl).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(u64, KeyValue), Error> {
        self.local.delete(key, expect).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.hook.before_get(key).await?;
        self.local.get(key).await
    }

    async fn range(&self, prefix: &str, start: &str, revision: Option<u64>, limit: usize) -> Result<Range, Error> {
        let range = self.local.range(prefix, start, revision, limit).await?;
        self.hook.after_range(prefix).await?;
        Ok(range)
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
        Ok(self.hook.watched(self.local.watch(prefix, revision).await?))
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.local.revision().await
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.local.request_progress().await
    }

    async fn compact(&self, revision: u64) -> Result<(), Error> {
        self.local.compact(revision).await
    }

    async fn compact_in_turn(&self, revision: u64) -> Result<(), Error> {
        self.local.compact_in_turn(revision).await
    }

    fn is_shared(&self) -> bool {
        self.local.is_shared()
    }

    async fn health(&self) -> Result<(), Error> {
        self.local.health().await
    }
}

/// Holds up writes of keys that have this in them.
pub struct Gate {
    part: &'static str,
    asked: watch::Sender<usize>,
    closed: watch::Sender<bool>,
}

impl Gate {
    /// It is open.
    pub fn at(part: &'static str) -> Self {
        Self { part, asked: watch::Sender::new(0), closed: watch::Sender::new(false) }
    }

    /// From here on writes wait.
    pub fn hold(&self) {
        self.asked.send_replace(0);
        self.closed.send_replace(true);
    }

    /// Waits until a write waits.
    pub async fn reached(&self) {
        let mut asked = self.asked.subscribe();
        let reached = asked.wait_for(|asked| *asked > 0);
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("a write comes").unwrap();
    }

    pub fn release(&self) {
        self.closed.send_replace(false);
    }
}

#[async_trait]
impl Hook for Gate {
    async fn before_put(&self, key: &str) -> Result<(), Error> {
        if key.contains(self.part) {
            self.asked.send_modify(|asked| *asked += 1);
            self.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
        }
        Ok(())
    }
}
