//! The store: etcd's model behind one trait. One revision counter for everything; a key's versions are told apart by the
//! revision that wrote them (`mod_revision`); writes compare and swap on it; ranges and watches start at any revision that
//! is not compacted away. Only the API server uses this crate.

#![forbid(unsafe_code)]

pub mod bench;
pub mod etcd;
pub mod local;
pub mod migrate;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use etcd::EtcdStore;
pub use local::{LocalStore, Options};

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    /// Shared: the watch cache and the local engine hold the same bytes once.
    pub value: Bytes,
    pub create_revision: u64,
    pub mod_revision: u64,
}

/// What a write requires of the key's current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    /// The current version's `mod_revision`.
    Revision(u64),
}

/// A range's answer.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// The revision at which the range was read.
    pub revision: u64,
    /// Whether the limit cut it short.
    pub more: bool,
    /// Keys from `start` to the end of the prefix, the limit aside.
    pub count: usize,
}

/// One change, in revision order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Arc<str>,
    /// The revision of this change.
    pub revision: u64,
    /// The new version; `None` when the key was deleted.
    pub value: Option<KeyValue>,
    /// The version before; `None` when the key was created.
    pub previous: Option<KeyValue>,
}

/// A stream's item: changes (at least one, all of them durable), or news that nothing under the prefix changed up to
/// a revision.
#[derive(Clone, Debug)]
pub enum WatchItem {
    Events(Vec<Event>),
    Progress(u64),
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The write's expectation does not hold; `current` is the version that is there (`None`: the key is absent).
    #[error("the key has changed")]
    Conflict { current: Option<KeyValue> },
    /// The revision asked for is older than the last compaction.
    #[error("revision {requested} has been compacted; the oldest is {oldest}")]
    Compacted { requested: u64, oldest: u64 },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future; the newest is {newest}")]
    Future { requested: u64, newest: u64 },
    /// The files are damaged at the named place; nothing was dropped or changed.
    #[error("{file}: corrupt at byte {offset}: {what}")]
    Corrupt { file: String, offset: u64, what: String },
    /// The request itself cannot be served: an empty key, or one that is elsewhere.
    #[error("invalid request: {what}")]
    Invalid { what: String },
    /// A key or value is beyond the limits.
    #[error("too large: {what}")]
    TooLarge { what: String },
    /// The disk is full or fails; the write did not happen.
    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
    /// The engine's servers do not answer in time. A write may have happened or may still happen.
    #[error("{what}")]
    Timeout { what: String },
    /// The engine's servers cannot be reached, or do not serve. A write may have happened.
    #[error("{what}")]
    Unreachable { what: String },
    /// The store is shut down or its writer has died.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn corrupt(file: &Path, offset: u64, what: &str) -> Self {
        Error::Corrupt { file: file.display().to_string(), offset, what: what.to_owned() }
    }

    pub(crate) fn io(context: String, source: std::io::Error) -> Self {
        Error::Io { context, source }
    }
}

/// A watch; ends with [`Error::Compacted`] when the reader is too slow to be served from memory.
pub type WatchStream = futures::stream::BoxStream<'static, Result<WatchItem, Error>>;

/// An engine. Keys are `/registry/…` paths; ranges are by prefix, in byte order. No method has a default: what wraps a store
/// would hide the engine's own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes and waits until the write is durable. Returns the new `mod_revision`. An engine may keep `value` itself, so
    /// it should not be a small slice of a big buffer. Dropping the future does not take the write back.
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, Error>;

    /// As [`Store::put`], for a key that is to be deleted when it was not written for `ttl`. Engines that do not do that by
    /// themselves ([`Store::is_shared`]) leave it to the one process that uses them.
    async fn put_expiring(&self, key: &str, value: Bytes, expect: Expect, ttl: Duration) -> Result<u64, Error>;

    /// Deletes and waits until that is durable. Returns the revision of the deletion and the version deleted.
    /// An absent key is [`Error::Conflict`] with no current version, whatever is expected.
    async fn delete(&self, key: &str, expect: Expect) -> Result<(u64, KeyValue), Error>;

    /// The newest version.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error>;

    /// Keys that start with `prefix`, from `start` on (inclusive; empty for the first), at `revision` (`None`: the newest),
    /// `limit` of them at most (0: all).
    async fn range(&self, prefix: &str, start: &str, revision: Option<u64>, limit: usize) -> Result<Range, Error>;

    /// Changes under `prefix` after `revision`, which must be within what the engine still remembers, else
    /// [`Error::Compacted`]. Revisions that have not happened yet are [`Error::Future`].
    async fn watch(&self, prefix: &str, revision: u64) -> Result<WatchStream, Error>;

    /// The newest durable revision.
    async fn revision(&self) -> Result<u64, Error>;

    /// Asks every watch to report, after all its events, a [`WatchItem::Progress`] of at least the newest revision.
    async fn request_progress(&self) -> Result<(), Error>;

    /// Forgets all versions that were superseded at or before `revision`. Ranges at older revisions are
    /// [`Error::Compacted`] from then on, and so is compacting at or before it again.
    async fn compact(&self, revision: u64) -> Result<(), Error>;

    /// As [`Store::compact`], unless another process that shares the store has done so since this one last called. To be called
    /// in regular intervals.
    async fn compact_in_turn(&self, revision: u64) -> Result<(), Error>;

    /// Whether other processes may write to the store too. Then keys expire by themselves, and the newest state is only known
    /// to who asks for [`Store::revision`].
    fn is_shared(&self) -> bool;

    /// Whether reads and writes can be served now. Cheap enough to be asked by anybody at any time.
    async fn health(&self) -> Result<(), Error>;
}
