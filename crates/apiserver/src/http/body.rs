//! Bodies. A response is one buffer, a run of buffers made on demand (LIST), or a stream (WATCH, proxied bytes).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

/// Any error that ends a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A response's body.
pub enum Body {
    /// Sent at once; `None` once sent.
    Full(Option<Bytes>),
    /// Chunks of a response that is never built as a whole.
    Chunks(Box<dyn Iterator<Item = Result<Bytes, BoxError>> + Send>),
    /// Bytes as they come.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
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
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}
