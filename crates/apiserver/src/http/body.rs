//! Bodies. A response is one buffer, a run of buffers made on demand (LIST), or a stream (WATCH, proxied bytes).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Any error that ends a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body in pieces. Its size hint is zero once the last one was taken.
pub(crate) type Pieces = Box<dyn Iterator<Item = Result<Bytes, BoxError>> + Send>;

/// A response's body.
pub enum Body {
    /// Sent at once; `None` once sent.
    Full(Option<Bytes>),
    /// Chunks of a response that is never built as a whole.
    Chunks(Pieces),
    /// Bytes as they come.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// Any of them, and who hears of it.
    Witnessed(Box<Body>, Option<Box<dyn Witness>>),
}

/// Hears of what a body sends. Dropped when the body is over or given up.
pub trait Witness: Send {
    fn sent(&mut self, bytes: &Bytes);
}

impl Body {
    /// A body with no bytes.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// Keeps `guard` until a streamed body is over or dropped.
    pub(crate) fn holding(self, guard: impl Send + 'static) -> Self {
        let stream = match self {
            Self::Stream(stream) => stream,
            whole => return whole,
        };
        let guarded = stream.inspect(move |_| {
            let _ = &guard;
        });
        Self::Stream(guarded.boxed())
    }

    /// Lets a witness hear of what is sent from now on.
    pub(crate) fn witnessed(self, witness: impl Witness + 'static) -> Self {
        Self::Witnessed(Box::new(self), Some(Box::new(witness)))
    }

    /// Keeps `guard` until a body in pieces is over, dropped, or `longest` has passed: what the client did not read by then
    /// is let go, whether it reads on or not. Its first piece is made at once; if there is no other, nothing is kept.
    pub(crate) fn within(self, longest: Duration, guard: impl Send + 'static) -> Self {
        let mut pieces = match self {
            Self::Chunks(pieces) => pieces,
            other => return other,
        };
        let first = match pieces.next() {
            Some(Ok(first)) if pieces.size_hint().1 == Some(0) => return Self::Full(Some(first)),
            Some(first) => first,
            None => return Self::empty(),
        };
        let rest = Arc::new(Mutex::new(Some((pieces, guard))));
        let timer = tokio::spawn({
            let rest = Arc::downgrade(&rest);
            async move {
                tokio::time::sleep(longest).await;
                let late = rest.upgrade().and_then(|rest| rest.lock().take());
                drop(late);
            }
        });
        let rest = Rest { held: rest, over: false, _timer: AbortOnDropHandle::new(timer) };
        Self::Chunks(Box::new(std::iter::once(first).chain(rest)))
    }
}

/// The rest of a body that has a time limit.
struct Rest<G> {
    /// `None` after the last piece, and after the time is up.
    held: Arc<Mutex<Option<(Pieces, G)>>>,
    over: bool,
    _timer: AbortOnDropHandle<()>,
}

impl<G> Iterator for Rest<G> {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let mut held = self.held.lock();
        let next = match held.as_mut() {
            Some((pieces, _)) => pieces.next(),
            None => Some(Err("the response was not read in time".into())),
        };
        if !matches!(next, Some(Ok(_))) {
            self.over = true;
            *held = None;
        }
        next
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Chunks(chunks) => Poll::Ready(chunks.next().map(|r| r.map(Frame::data))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map(|item| item.map(|r| r.map(Frame::data))),
            Self::Witnessed(body, witness) => {
                let polled = Pin::new(&mut **body).poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let (Some(witness), Some(bytes)) = (witness, frame.data_ref()) {
                            witness.sent(bytes);
                        }
                    }
                    Poll::Ready(_) => *witness = None,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Witnessed(body, _) => body.is_end_stream(),
            Self::Chunks(_) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Witnessed(body, _) => body.size_hint(),
            Self::Chunks(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

#[cfg(test)]
mod tests;
