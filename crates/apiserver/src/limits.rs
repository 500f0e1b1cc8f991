//! What the server does at once beside the requests that priority and fairness counts, each kind with a limit of its own: who
//! watches or streams takes nothing from who writes. At a limit the answer is 429, at once.

use std::sync::Arc;

use keelson_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Open watches: some KiB each.
const WATCHES: usize = 16_384;
/// Logs, execs, port forwards and proxied requests: one connection to a kubelet or pod each.
const STREAMS: usize = 4096;
/// Bytes of request bodies that did not come in one piece.
const BODY_BYTES: usize = 256 << 20;

/// The limits, with what is taken of them.
pub(crate) struct Limits {
    watches: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    body_bytes: Semaphore,
}

/// A place among the streams, for as long as a clone of it lives. It travels with the request.
#[derive(Clone)]
pub(crate) struct StreamPermit(Arc<Held>);

struct Held {
    _permit: OwnedSemaphorePermit,
    /// Dropped when the stream is over.
    until_then: Mutex<Option<Box<dyn Send>>>,
}

impl StreamPermit {
    /// Keeps something until the stream is over.
    pub(crate) fn keep(&self, guard: impl Send + 'static) {
        *self.0.until_then.lock() = Some(Box::new(guard));
    }
}

impl StreamPermit {
    /// One of the places in `semaphore`; 429 when there is none.
    pub(crate) fn of(semaphore: &Arc<Semaphore>) -> Result<Self, Status> {
        let permit = semaphore.clone().try_acquire_owned().map_err(|_| busy())?;
        Ok(Self(Arc::new(Held { _permit: permit, until_then: Mutex::default() })))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watches: Arc::new(Semaphore::new(WATCHES)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            body_bytes: Semaphore::new(BODY_BYTES),
        }
    }
}

impl Limits {
    pub(crate) fn watch(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.watches.clone().try_acquire_owned().map_err(|_| busy())
    }

    pub(crate) fn stream(&self) -> Result<StreamPermit, Status> {
        StreamPermit::of(&self.streams)
    }

    /// Memory for `bytes` more of a body, which hold `held` already.
    pub(crate) fn body<'a>(&'a self, held: &mut Option<SemaphorePermit<'a>>, bytes: usize) -> Result<(), Status> {
        let more = u32::try_from(bytes).ok().and_then(|bytes| self.body_bytes.try_acquire_many(bytes).ok());
        let more = more.ok_or_else(busy)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

fn busy() -> Status {
    Status::too_many_requests("too many requests, please try again later", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let limits = Limits::default();
        let stream = limits.stream().unwrap();
        let with_the_request = stream.clone();
        drop(stream);
        assert_eq!(limits.streams.available_permits(), STREAMS - 1);
        drop(with_the_request);
        assert_eq!(limits.streams.available_permits(), STREAMS);
        let mut held = None;
        limits.body(&mut held, BODY_BYTES - 10).unwrap();
        limits.body(&mut held, 10).unwrap();
        let refused = limits.body(&mut None, 1).unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        drop(held);
        limits.body(&mut None, BODY_BYTES).unwrap();
    }
}
