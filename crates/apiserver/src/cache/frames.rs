//! A change as it goes over the wire in other forms than stored JSON: made once per form, when the first watcher asks for
//! it, and shared by all of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use keelson_api::codec::Encoding;
use keelson_api::kind::Kind;
use keelson_api::status::Status;
use parking_lot::Mutex;

use super::resource::EventType;

/// What makes one form differ from another.
#[derive(Clone, Debug)]
pub(crate) struct FrameKey {
    pub(crate) event: EventType,
    pub(crate) encoding: Encoding,
    /// Metadata only: `v1beta1` or `v1`.
    pub(crate) partial: Option<bool>,
    /// The kind as which the object is seen.
    pub(crate) kind: Arc<Kind>,
}

impl PartialEq for FrameKey {
    fn eq(&self, other: &Self) -> bool {
        (self.event, self.encoding, self.partial) == (other.event, other.encoding, other.partial)
            && Arc::ptr_eq(&self.kind, &other.kind)
    }
}

type Frame = Arc<OnceLock<Result<Bytes, Status>>>;

/// The forms that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Vec<(FrameKey, Frame)>>);

impl Frames {
    /// The frame of a form, made by `make` when it is not there.
    pub(crate) fn get(&self, key: &FrameKey, make: impl FnOnce() -> Result<Bytes, Status>) -> Result<Bytes, Status> {
        let frame = {
            let mut frames = self.0.lock();
            match frames.iter().find(|(known, _)| known == key) {
                Some((_, frame)) => frame.clone(),
                None => {
                    let frame = Frame::default();
                    frames.push((key.clone(), frame.clone()));
                    frame
                }
            }
        };
        frame.get_or_init(make).clone()
    }
}
