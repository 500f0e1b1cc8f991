//! Moving everything from one engine to the other, while nobody uses them. Every key keeps its value; versions keep their
//! order, and the new store's revision is not below the old one's, so that no client's resourceVersion is of the future. Into
//! a fresh etcd, and into the local engine always, revisions stay what they were. History is not moved.

use std::{path::Path, time::Duration};

use crate::{Error, EtcdStore, Expect, LocalStore, Store};

/// All keys that the API server has.
const ALL: &str = "/registry/";
/// Which servers live: nobody's object, and over when they are stopped.
const SERVERS: &str = "/registry/masterleases/";

/// Keys that expire, whose engine sees to that: etcd by leases, which the local engine does not know.
const EXPIRING: &str = "/registry/events/";

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub keys: usize,
    /// The new store's revision.
    pub revision: u64,
    /// Whether every key has the revisions that it had.
    pub exact: bool,
}

/// Moves a local store into an etcd that has nothing under its prefix. etcd counts one revision for each write, so those in
/// between are made by writes beside the prefix: some tens of thousands a second. Events are given `event_ttl` from now on, as
/// if they had just been written.
pub async fn to_etcd(from: &LocalStore, to: &EtcdStore, event_ttl: Duration) -> Result<Moved, Error> {
    if to.range(ALL, "", None, 1).await?.count > 0 {
        return Err(Error::Invalid { what: "etcd already has keys under the prefix".into() });
    }
    let mut range = from.range(ALL, "", None, 0).await?;
    range.kvs.sort_by_key(|kv| kv.mod_revision);
    let mut exact = true;
    for kv in &range.kvs {
        to.advance(kv.mod_revision - 1).await?;
        let revision = match kv.key.starts_with(EXPIRING) {
            true => to.put_expiring(&kv.key, kv.value.clone(), Expect::Absent, event_ttl).await?,
            false => to.put(&kv.key, kv.value.clone(), Expect::Absent).await?,
        };
        exact &= revision == kv.mod_revision;
    }
    to.advance(range.revision).await?;
    Ok(Moved { keys: range.kvs.len(), revision: to.revision().await?, exact })
}

/// Moves what etcd has under its prefix into a local store in `dir`, which must be empty or absent. There the API server
/// removes Events by the times that they state.
pub async fn to_local(from: &EtcdStore, dir: &Path) -> Result<Moved, Error> {
    let mut range = from.range(ALL, "", None, 0).await?;
    range.kvs.retain(|kv| !kv.key.starts_with(SERVERS));
    let (keys, revision) = (range.kvs.len(), range.revision);
    let dir = dir.to_owned();
    let made = tokio::task::spawn_blocking(move || LocalStore::make(&dir, range.kvs, revision)).await;
    made.map_err(|_| Error::Closed)??;
    Ok(Moved { keys, revision, exact: true })
}
