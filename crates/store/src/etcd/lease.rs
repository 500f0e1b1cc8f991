//! Leases for keys that expire. A lease costs etcd more than a key, so keys that expire at about the same time share one, as
//! upstream's do: a lease is granted for somewhat longer than asked and given to others for that while.

use std::time::{Duration, Instant};

use etcd_client::LeaseClient;
use tokio::sync::Mutex;

use super::failure::call;
use crate::Error;

/// Keys that share a lease at most (`--lease-max-object-count`).
const MAX_KEYS: usize = 1000;
/// A key lives at most so much longer than asked, in parts of a hundred.
const MAX_EXTRA_PERCENT: u32 = 5;

pub(super) struct Leases {
    client: LeaseClient,
    reuse: Duration,
    last: Mutex<Option<Lease>>,
}

struct Lease {
    id: i64,
    expires: Instant,
    keys: usize,
}

impl Leases {
    pub(super) fn new(client: LeaseClient, reuse: Duration) -> Self {
        Self { client, reuse, last: Mutex::default() }
    }

    /// A lease that lasts for `ttl` or a little longer.
    pub(super) async fn get(&self, ttl: Duration) -> Result<i64, Error> {
        let extra = self.reuse.min(ttl * MAX_EXTRA_PERCENT / 100).max(Duration::from_secs(1));
        let mut last = self.last.lock().await;
        let (least, most) = (Instant::now() + ttl, Instant::now() + ttl + extra);
        if let Some(lease) = last.as_mut().filter(|l| l.expires >= least && l.expires <= most && l.keys < MAX_KEYS) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let seconds = (ttl + extra).as_secs().max(1);
        let granted = call("lease", self.client.clone().grant(seconds.cast_signed(), None)).await?;
        // Counted from before the request: etcd's clock for it cannot be behind.
        *last = Some(Lease { id: granted.id(), expires: least - ttl + Duration::from_secs(seconds), keys: 1 });
        Ok(granted.id())
    }

    /// A lease is gone: nobody is to get it again.
    pub(super) fn forget(&self, id: i64) {
        if let Ok(mut last) = self.last.try_lock() {
            last.take_if(|lease| lease.id == id);
        }
    }
}
