//! What a webhook made of the objects of one write. Merging goes by rules that do not wait, so it is tried: what a try
//! misses is noted, fetched, and found by the next.

use keelson_api::kind::Kind;
use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::crd::Shared;
use crate::registry::Resource;

/// Conversions in one write: a few for each version that managers wrote in. What is beyond counts as not there.
const MAX: usize = 64;

/// The conversions of one write.
pub(crate) struct Conversions<'a> {
    /// Of a kind whose versions a webhook converts.
    shared: Option<&'a Shared>,
    known: Mutex<Vec<Conversion>>,
}

struct Conversion {
    object: Value,
    api_version: String,
    answer: Answer,
}

enum Answer {
    Missing,
    Converted(Value),
    Failed,
}

impl<'a> Conversions<'a> {
    pub(crate) fn of(resource: &'a Resource) -> Self {
        let shared = resource.shared().filter(|shared| shared.converter.asks());
        Self { shared, known: Mutex::default() }
    }

    /// Whether there is a webhook to ask.
    pub(super) fn is_needed(&self) -> bool {
        self.shared.is_some()
    }

    /// The object as one of `kind`; `None` when that cannot be had, or not yet.
    pub(super) fn get(&self, object: &Value, kind: &Kind) -> Option<Value> {
        let api_version = kind.api_version();
        let mut known = self.known.lock();
        let found = known.iter().find(|known| known.api_version == api_version && known.object == *object);
        match found.map(|found| &found.answer) {
            Some(Answer::Converted(converted)) => return Some(converted.clone()),
            Some(Answer::Missing | Answer::Failed) => return None,
            None => {}
        }
        if known.len() < MAX {
            known.push(Conversion { object: object.clone(), api_version, answer: Answer::Missing });
        }
        None
    }

    /// 500 for an outcome in which something was missing.
    pub(crate) fn complete(&self) -> Result<(), Status> {
        let missing = self.known.lock().iter().any(|known| matches!(known.answer, Answer::Missing));
        if missing { Err(Status::internal("conversions are missing")) } else { Ok(()) }
    }

    /// Fetches what is missing and says whether anything was; then the outcome does not count. The webhook's error when it
    /// fails, which the next try takes for a version that is not there.
    pub(crate) async fn fetch(&self) -> Result<bool, Status> {
        let Some(Shared { converter, .. }) = self.shared else { return Ok(false) };
        let mut any = false;
        loop {
            let next = {
                let known = self.known.lock();
                let next = known.iter().position(|known| matches!(known.answer, Answer::Missing));
                next.and_then(|at| Some((at, known.get(at)?.object.clone(), known.get(at)?.api_version.clone())))
            };
            let Some((at, object, api_version)) = next else { return Ok(any) };
            any = true;
            let (answer, failure) = match converter.convert_to(object, &api_version).await {
                Ok(converted) => (Answer::Converted(converted), None),
                Err(status) => (Answer::Failed, Some(status)),
            };
            if let Some(known) = self.known.lock().get_mut(at) {
                known.answer = answer;
            }
            if let Some(status) = failure {
                return Err(status);
            }
        }
    }
}
