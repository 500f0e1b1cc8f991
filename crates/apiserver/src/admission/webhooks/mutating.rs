//! Mutating webhooks, one after the other: each sees what those before it made of the object.

use keelson_api::patch::{Patch, PatchType};
use keelson_api::status::Status;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::{ask, check_dry_run};
use super::{Failure, Hook, UNAVAILABLE, measure, review};
use crate::admission::Request;
use crate::admission::attributes::{Seen, as_version, back, settle};
use crate::admission::reinvocation::Rounds;
use crate::audit::Level;
use crate::metrics::Step;

const KIND: &str = "MutatingAdmissionWebhook";

/// Asks the webhooks, which may change the object.
pub(in crate::admission) async fn mutate(
    request: &Request<'_>,
    object: &mut Value,
    rounds: &mut Rounds,
) -> Result<(), Status> {
    let hooks = request.core.extensions.mutating();
    rounds.begin(KIND, object);
    for (index, hook) in hooks.iter().enumerate() {
        let Some(resource) = hook.matching.find(request, object).await? else { continue };
        let seen = as_version(request, &resource, object).await?;
        if !hook.is_wanted(request, &seen.borrow(&resource), Step::Admit).await? {
            continue;
        }
        let key = format!("{}/{}", hook.configuration, hook.name);
        if !rounds.may_run(KIND, &key) {
            continue;
        }
        let begin = Instant::now();
        let asked = call(hook, request, &seen.borrow(&resource)).await;
        measure(hook, request, Step::Admit, begin, &asked);
        let patched = match asked {
            Ok(Some((patched, patch))) if patched != *seen.object => {
                note_patch(request, rounds.number(), index, hook, &patch);
                Some(patched)
            }
            Ok(_) => None,
            Err(failure) => {
                let open = matches!(failure, Failure::Call(..)) && !hook.fails_closed;
                if let Some(status) = failure.status(hook) {
                    note_mutation(request, rounds.number(), index, hook, false);
                    return Err(status);
                }
                if open {
                    let key =
                        format!("failed-open.mutation.webhook.admission.k8s.io/{}", place(rounds.number(), index));
                    request.notes.annotate(key, hook.name.as_str());
                }
                None
            }
        };
        note_mutation(request, rounds.number(), index, hook, patched.is_some());
        if let Some(patched) = patched {
            *object = back(request, &resource, patched).await?;
            rounds.changed();
        }
        if hook.reinvoked {
            rounds.ran(KIND, key);
        }
    }
    rounds.end(KIND, object);
    Ok(())
}

/// Asks one webhook; the object as its patch makes it, and the patch.
async fn call(hook: &Hook, request: &Request<'_>, seen: &Seen<'_>) -> Result<Option<(Value, Vec<u8>)>, Failure> {
    check_dry_run(hook, request)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review::write(hook.version, &uid, request, seen).map_err(Failure::Impossible)?;
    let verdict = ask(hook, request, &uid, review, true).await?;
    if verdict.patch.is_empty() {
        return Ok(None);
    }
    let (patch, _) = Patch::parse(PatchType::Json, &verdict.patch).map_err(|e| {
        Failure::Call(UNAVAILABLE, format!("received undecodable patch in webhook response: {}", e.message))
    })?;
    if matches!(&patch, Patch::Json(patch) if patch.0.is_empty()) {
        return Ok(None);
    }
    let impossible = |why: String| Failure::Impossible(Status::internal(why));
    if seen.object.is_null() {
        return Err(impossible(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    }
    let mut patched = seen.object.clone();
    // Only strategic patches read the schema.
    let schema = crate::registry::body::schema_of(&seen.resource.kind).map_err(Failure::Impossible)?;
    patch.apply(&mut patched, schema).map_err(|status| impossible(status.message))?;
    settle(request, seen.resource, &mut patched).map_err(impossible)?;
    Ok(Some((patched, verdict.patch)))
}

fn place(round: usize, index: usize) -> String {
    format!("round_{round}_index_{index}")
}

fn note_mutation(request: &Request<'_>, round: usize, index: usize, hook: &Hook, mutated: bool) {
    let Hook { configuration, name, .. } = hook;
    let value = json!({"configuration": configuration, "webhook": name, "mutated": mutated});
    let key = format!("mutation.webhook.admission.k8s.io/{}", place(round, index));
    request.notes.annotate(key, value.to_string());
}

/// For audit events that show what was sent; others would tell what the object holds.
fn note_patch(request: &Request<'_>, round: usize, index: usize, hook: &Hook, patch: &[u8]) {
    let Ok(patch) = serde_json::from_slice::<Value>(patch) else { return };
    let Hook { configuration, name, .. } = hook;
    let value = json!({"configuration": configuration, "webhook": name, "patch": patch, "patchType": "JSONPatch"});
    let key = format!("patch.webhook.admission.k8s.io/{}", place(round, index));
    request.notes.annotate_from(Level::Request, key, value.to_string());
}
