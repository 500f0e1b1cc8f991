//! `AdmissionReview`: what a webhook is sent, and what may come back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keelson_api::status::{Cause, Details, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::admission::Request;
use crate::admission::attributes::{Seen, describe};

/// The review of a request: `seen` is what the webhook is to see of it.
pub(super) fn write(version: &str, uid: &str, request: &Request<'_>, seen: &Seen<'_>) -> Result<Bytes, Status> {
    let mut head = describe(request, seen.resource);
    if let Some(map) = head.as_object_mut() {
        map.insert("uid".into(), uid.into());
    }
    let mut text = format!("{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/{version}\",\"request\":");
    let mut head = head.to_string();
    // The objects are large: they are written in place.
    head.pop();
    text.push_str(&head);
    let mut text = text.into_bytes();
    for (key, object) in [(&b",\"object\":"[..], seen.object), (b",\"oldObject\":", seen.old)] {
        text.extend_from_slice(key);
        serde_json::to_writer(&mut text, object).map_err(Status::internal)?;
    }
    text.extend_from_slice(b"}}");
    Ok(text.into())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(rename = "status")]
    result: Option<Refusal>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// A `Status`, as somebody else writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Refusal {
    message: String,
    reason: String,
    code: i64,
    details: Option<Details>,
}

/// A checked answer.
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) result: Refusal,
    /// A JSON patch; empty for none.
    pub(super) patch: Vec<u8>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// Reads an answer; why not, as upstream's decoder says it.
pub(super) fn decode(answer: Value) -> Result<Answer, String> {
    let shown = answer.to_string();
    let shown: String = shown.chars().take(256).collect();
    let answer: Answer = serde_json::from_value(answer).map_err(|error| error.to_string())?;
    match (answer.kind.as_str(), answer.api_version.as_str()) {
        ("", _) => Err(format!("Object 'Kind' is missing in '{shown}'")),
        (_, "") => Err(format!("Object 'apiVersion' is missing in '{shown}'")),
        ("AdmissionReview", "admission.k8s.io/v1" | "admission.k8s.io/v1beta1") => Ok(answer),
        (kind, version) => Err(format!("no kind {kind:?} is registered for version {version:?}")),
    }
}

/// Checks an answer to the review with this uid.
pub(super) fn verify(answer: &Answer, version: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let Some(response) = &answer.response else { return Err("webhook response was absent".into()) };
    let strict = version == "v1";
    if strict && response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    let wanted = format!("admission.k8s.io/{version}");
    if strict && answer.api_version != wanted {
        let Answer { kind, api_version, .. } = answer;
        return Err(format!(
            "expected webhook response of {wanted}, Kind=AdmissionReview, got {api_version}, Kind={kind}"
        ));
    }
    let patch = response.patch.as_deref().unwrap_or_default();
    let patch = STANDARD.decode(patch).map_err(|error| format!("illegal base64 data in response.patch: {error}"))?;
    match (mutating, &response.patch_type) {
        (true, Some(_)) if strict && patch.is_empty() => {
            return Err("webhook returned response.patchType but not response.patch".into());
        }
        (true, None) if strict && !patch.is_empty() => {
            return Err("webhook returned response.patch but not response.patchType".into());
        }
        (true, Some(kind)) if strict && kind.is_empty() => {
            return Err("webhook returned invalid response.patchType of \"\"".into());
        }
        (true, Some(kind)) if strict && kind != "JSONPatch" => return Err(format!("unsupported patch type {kind:?}")),
        (false, _) if strict && !patch.is_empty() => {
            return Err("validating webhook may not return response.patch".into());
        }
        (false, Some(_)) if strict => return Err("validating webhook may not return response.patchType".into()),
        _ => {}
    }
    Ok(Verdict {
        allowed: response.allowed,
        result: response.result.clone().unwrap_or_default(),
        patch: if mutating { patch } else { Vec::new() },
        annotations: response.audit_annotations.clone().unwrap_or_default(),
        warnings: response.warnings.clone().unwrap_or_default(),
    })
}

/// Of each cause that a webhook names.
const MAX_REASON_BYTES: usize = 256;

/// A webhook's no, as the client gets it.
pub(super) fn refusal(webhook: &str, result: &Refusal) -> Status {
    let code = u16::try_from(result.code).ok().filter(|code| (400..600).contains(code)).unwrap_or(400);
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (result.message.as_str(), result.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let mut status = Status::new(code, "", message);
    let mut details = result.details.clone();
    if !result.reason.is_empty() {
        details.get_or_insert_default().own_reason.clone_from(&result.reason);
    }
    for Cause { reason, .. } in details.iter_mut().flat_map(|details| &mut details.causes) {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    }
    status.details = details.map(Box::new);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verified(answer: Value, mutating: bool) -> Result<(bool, String), String> {
        let verdict = verify(&decode(answer)?, "v1", "u", mutating)?;
        Ok((verdict.allowed, String::from_utf8(verdict.patch).unwrap()))
    }

    fn answer(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    #[test]
    fn answers() {
        let check = |response: Value, mutating: bool, wanted: Result<(bool, &str), &str>| {
            let found = verified(answer(response.clone()), mutating);
            assert_eq!(found, wanted.map(|(a, p)| (a, p.to_owned())).map_err(str::to_owned), "{response}");
        };
        check(json!({"uid": "u", "allowed": true}), true, Ok((true, "")));
        check(json!({"uid": "u"}), false, Ok((false, "")));
        check(json!(null), false, Err("webhook response was absent"));
        check(json!({"uid": "v", "allowed": true}), false, Err("expected response.uid=\"u\", got \"v\""));
        let patch = STANDARD.encode("[]");
        check(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"}), true, Ok((true, "[]")));
        check(
            json!({"uid": "u", "allowed": true, "patch": patch}),
            true,
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(
            json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}),
            true,
            Err("webhook returned response.patchType but not response.patch"),
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "Merge"}),
            true,
            Err("unsupported patch type \"Merge\""),
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": patch}),
            false,
            Err("validating webhook may not return response.patch"),
        );
        assert_eq!(verified(json!({}), true), Err("Object 'Kind' is missing in '{}'".into()));
        let other =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}});
        assert_eq!(
            verified(other, true),
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                 admission.k8s.io/v1beta1, Kind=AdmissionReview"
                .into())
        );
    }

    #[test]
    fn refusals() {
        let shown = |result: Value| {
            let status = refusal("w", &serde_json::from_value(result).unwrap());
            (status.code, status.message.clone(), status.to_value()["reason"].clone())
        };
        assert_eq!(
            shown(json!({})),
            (400, "admission webhook \"w\" denied the request without explanation".into(), json!(""))
        );
        assert_eq!(
            shown(json!({"code": 200, "message": "no", "reason": "Mine"})),
            (400, "admission webhook \"w\" denied the request: no".into(), json!("Mine"))
        );
        assert_eq!(
            shown(json!({"code": 403, "reason": "Forbidden"})),
            (403, "admission webhook \"w\" denied the request: Forbidden".into(), json!("Forbidden"))
        );
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let reason = format!("{}€", "x".repeat(255));
        let result = json!({"details": {"causes": [{"reason": reason, "message": "m"}]}});
        let status = refusal("w", &serde_json::from_value(result).unwrap());
        assert_eq!(status.details.unwrap().causes[0].reason, "x".repeat(255));
    }
}
