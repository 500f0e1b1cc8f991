//! Asking one webhook.

use bytes::Bytes;

use super::review::{self, Verdict};
use super::{Failure, Hook, UNAVAILABLE};
use crate::admission::Request;

/// Asks; `review` is the AdmissionReview with this uid. The answer has been checked, and what it warns of noted.
pub(super) async fn ask(
    hook: &Hook,
    request: &Request<'_>,
    uid: &str,
    review: Bytes,
    mutating: bool,
) -> Result<Verdict, Failure> {
    let client = hook.client().map_err(|error| Failure::Call(500, format!("could not get REST client: {error}")))?;
    let failed = |why: String| Failure::Call(UNAVAILABLE, format!("failed to call webhook: {why}"));
    let answer = client.ask(review, hook.timeout).await.map_err(|error| failed(error.to_string()))?;
    let answer = review::decode(answer).map_err(failed)?;
    let verdict = review::verify(&answer, hook.version, uid, mutating)
        .map_err(|why| Failure::Call(UNAVAILABLE, format!("received invalid webhook response: {why}")))?;
    for (key, value) in &verdict.annotations {
        request.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
    }
    for warning in &verdict.warnings {
        request.notes.warn(warning.as_str());
    }
    if !verdict.allowed {
        return Err(Failure::Refused(review::refusal(&hook.name, &verdict.result)));
    }
    Ok(verdict)
}

/// Whether a dry run may ask the webhook.
pub(super) fn check_dry_run(hook: &Hook, request: &Request<'_>) -> Result<(), Failure> {
    if request.is_dry_run() && !hook.dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refused(keelson_api::status::Status::bad_request(why)));
    }
    Ok(())
}
