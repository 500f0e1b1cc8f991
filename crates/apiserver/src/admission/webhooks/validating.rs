//! Validating webhooks, all at once: each sees the object as it is to be stored.

use std::collections::HashMap;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keelson_api::status::Status;
use serde_json::Value;
use tokio::time::Instant;

use super::call::{ask, check_dry_run};
use super::{Failure, Hook, measure, review};
use crate::admission::Request;
use crate::admission::attributes::{Seen, as_version};
use crate::metrics::Step;

/// Asks the webhooks; the first no that comes is the answer.
pub(in crate::admission) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let hooks = request.core.extensions.validating();
    let mut versions = HashMap::new();
    let mut relevant = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        let Some(resource) = hook.matching.find(request, object).await? else { continue };
        let version = resource.kind.api_version();
        if !versions.contains_key(&version) {
            versions.insert(version.clone(), as_version(request, &resource, object).await?);
        }
        let Some(seen) = versions.get(&version) else { continue };
        if hook.is_wanted(request, &seen.borrow(&resource), Step::Validate).await? {
            relevant.push((index, hook, resource, version));
        }
    }
    let mut calls: FuturesUnordered<_> = relevant
        .iter()
        .filter_map(|(index, hook, resource, version)| {
            let seen = versions.get(version)?;
            Some(async move {
                let begin = Instant::now();
                let result = call(hook, request, &seen.borrow(resource)).await;
                measure(hook, request, Step::Validate, begin, &result);
                (*index, hook, result)
            })
        })
        .collect();
    let mut first = None;
    while let Some((index, hook, result)) = calls.next().await {
        let Err(failure) = result else { continue };
        match failure.status(hook) {
            Some(status) => first = first.or(Some(status)),
            None => {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                request.notes.annotate(key, hook.name.as_str());
            }
        }
    }
    first.map_or(Ok(()), Err)
}

async fn call(hook: &Hook, request: &Request<'_>, seen: &Seen<'_>) -> Result<(), Failure> {
    check_dry_run(hook, request)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review::write(hook.version, &uid, request, seen).map_err(Failure::Impossible)?;
    ask(hook, request, &uid, review, false).await.map(drop)
}
