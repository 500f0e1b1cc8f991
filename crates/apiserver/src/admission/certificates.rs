//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who decides on a certificate request or
//! signs it must be allowed to for its signer, and no request makes a `system:masters`.

use keelson_api::kinds::requested_groups;
use keelson_api::status::Status;
use serde_json::Value;

use super::{Operation, Request};
use crate::authz::Attributes;
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

const RESOURCE: &str = "certificatesigningrequests";

fn is_update<'a>(request: &Request<'a>, subresource: &str) -> Option<&'a Value> {
    let updates = request.operation == Operation::Update && request.subresource == subresource;
    request.old.filter(|_| updates && request.is_any(GROUP, RESOURCE))
}

/// CertificateApproval
pub(super) async fn approval(request: &Request<'_>) -> Result<(), Status> {
    match is_update(request, "approval") {
        Some(old) => authorize(request, signer(old), "approve").await,
        None => Ok(()),
    }
}

/// CertificateSigning
pub(super) async fn signing(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(old) = is_update(request, "status") else { return Ok(()) };
    let part = |object: &Value, field: &str| object.get("status").and_then(|s| s.get(field)).cloned();
    if ["certificate", "conditions"].iter().all(|field| part(object, field) == part(old, field)) {
        return Ok(());
    }
    authorize(request, signer(old), "sign").await
}

/// CertificateSubjectRestriction
pub(super) fn subject(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let creates = request.operation == Operation::Create && request.is(GROUP, RESOURCE);
    if !creates || signer(object) != CLIENT_SIGNER {
        return Ok(());
    }
    let wanted = object.pointer("/spec/request").map(requested_groups).unwrap_or_default();
    if wanted.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(request.forbidden(&why));
    }
    Ok(())
}

fn signer(object: &Value) -> &str {
    object.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or_default()
}

/// `verb` on the signer, or on all of its domain (`example.com/*`).
async fn authorize(request: &Request<'_>, signer: &str, verb: &str) -> Result<(), Status> {
    let domain = signer.split('/').next().unwrap_or_default();
    let may = async |name: &str| {
        let attributes = Attributes::on(verb, GROUP, "signers", "", name);
        request.core.authorizer.decide(request.user, &attributes).await.allowed
    };
    if may(signer).await || may(&format!("{domain}/*")).await {
        return Ok(());
    }
    Err(request.forbidden(&format!("user not permitted to {verb} requests with signerName {signer:?}")))
}
