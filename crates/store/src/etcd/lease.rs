//! Leases for keys that expire. A lease costs etcd more than a key, so keys that expire at about the same time share one, as
//! upstream's do: a lease is granted for somewhat longer than asked and given to others for that while. One that is being
//! granted is shared already: who comes meanwhile waits for the same answer, and nobody waits in line.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::LeaseClient;
use futures::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::failure::{again, call};
use crate::Error;

/// Keys that share a lease at most (`--lease-max-object-count`).
const MAX_KEYS: usize = 1000;
/// A key lives at most so much longer than asked, in parts of a hundred.
const MAX_EXTRA_PERCENT: u32 = 5;

/// Asks for a lease of so many seconds; answers with its id.
type Grant = Box<dyn Fn(i64) -> BoxFuture<'static, Result<i64, Error>> + Send + Sync>;
type Granted = Shared<BoxFuture<'static, Result<i64, Arc<Error>>>>;

pub(super) struct Leases {
    grant: Grant,
    reuse: Duration,
    last: Mutex<Option<Lease>>,
}

struct Lease {
    granted: Granted,
    expires: Instant,
    keys: usize,
}

impl Leases {
    pub(super) fn new(client: LeaseClient, reuse: Duration) -> Self {
        Self::with(reuse, move |seconds| {
            let mut client = client.clone();
            async move { Ok(call("lease", client.grant(seconds, None)).await?.id()) }.boxed()
        })
    }

    fn with(
        reuse: Duration,
        grant: impl Fn(i64) -> BoxFuture<'static, Result<i64, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { grant: Box::new(grant), reuse, last: Mutex::default() }
    }

    /// A lease that lasts for `ttl` or a little longer.
    pub(super) async fn get(&self, ttl: Duration) -> Result<i64, Error> {
        let granted = self.shared(ttl);
        let outcome = granted.clone().await;
        if outcome.is_err() {
            self.last.lock().take_if(|lease| lease.granted.ptr_eq(&granted));
        }
        outcome.map_err(|error| again(&error))
    }

    /// The lease that others have or wait for, or a new one.
    fn shared(&self, ttl: Duration) -> Granted {
        let extra = self.reuse.min(ttl * MAX_EXTRA_PERCENT / 100).max(Duration::from_secs(1));
        let mut last = self.last.lock();
        let now = Instant::now();
        let (least, most) = (now + ttl, now + ttl + extra);
        if let Some(lease) = last.as_mut().filter(|l| l.expires >= least && l.expires <= most && l.keys < MAX_KEYS) {
            lease.keys += 1;
            return lease.granted.clone();
        }
        let seconds = (ttl + extra).as_secs().max(1);
        let granted = (self.grant)(seconds.cast_signed()).map(|outcome| outcome.map_err(Arc::new)).boxed().shared();
        // Counted from before the request: etcd's clock for it cannot be behind.
        *last = Some(Lease { granted: granted.clone(), expires: now + Duration::from_secs(seconds), keys: 1 });
        granted
    }

    /// A lease is gone: nobody is to get it again.
    pub(super) fn forget(&self, id: i64) {
        self.last.lock().take_if(|lease| matches!(lease.granted.peek(), Some(Ok(known)) if *known == id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn leases(grant: fn(i64) -> BoxFuture<'static, Result<i64, Error>>) -> (Leases, Arc<AtomicI64>) {
        let asked = Arc::<AtomicI64>::default();
        let count = asked.clone();
        let ask = move |seconds| {
            let id = count.fetch_add(1, Ordering::Relaxed);
            grant(seconds).map(move |outcome| outcome.map(|_| id)).boxed()
        };
        (Leases::with(Duration::from_secs(60), ask), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_grant_is_waited_for_by_all_at_once() {
        let (leases, asked) = leases(|_| {
            async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err(Error::Timeout { what: "etcd: lease: no answer".into() })
            }
            .boxed()
        });
        let begin = Instant::now();
        let outcomes = futures::future::join_all((0..50).map(|_| leases.get(HOUR))).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(10), "nobody waits for another's wait");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        for outcome in outcomes {
            assert!(matches!(&outcome, Err(Error::Timeout { what }) if what.contains("no answer")), "{outcome:?}");
        }
        // What failed is asked for again.
        assert!(leases.get(HOUR).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_the_grant_to_others() {
        let (leases, asked) = leases(|seconds| {
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(seconds)
            }
            .boxed()
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), leases.get(HOUR)).await.is_err());
        assert_eq!(leases.get(HOUR).await.unwrap(), 0);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // A lease is for so many keys, until it is forgotten, and for those that live about as long.
        for _ in 2..MAX_KEYS {
            assert_eq!(leases.get(HOUR).await.unwrap(), 0);
        }
        assert_eq!(leases.get(HOUR).await.unwrap(), 1);
        leases.forget(0);
        assert_eq!(leases.get(HOUR).await.unwrap(), 1);
        leases.forget(1);
        assert_eq!(leases.get(HOUR).await.unwrap(), 2);
        assert_eq!(leases.get(HOUR * 2).await.unwrap(), 3);
    }
}
