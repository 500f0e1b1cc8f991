//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who decides on a certificate request or
//! signs it must be allowed to for its signer, and no request makes a `system:masters`.

use keelson_api::kinds::requested_groups;
use keelson_api::status::Status;
use serde_json::Value;

use super::plugin::Plugin;
use super::{Operation, Request};
use crate::authz::Attributes;
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !request.is_any(GROUP, "certificatesigningrequests") {
        return Ok(());
    }
    match (request.subresource, request.operation, request.old) {
        ("approval", Operation::Update, Some(old)) if request.has(Plugin::CertificateApproval) => {
            authorize(request, signer(old), "approve").await
        }
        ("status", Operation::Update, Some(old)) if request.has(Plugin::CertificateSigning) => {
            let part = |object: &Value, field: &str| object.get("status").and_then(|s| s.get(field)).cloned();
            if ["certificate", "conditions"].iter().all(|field| part(object, field) == part(old, field)) {
                return Ok(());
            }
            authorize(request, signer(old), "sign").await
        }
        ("", Operation::Create, _)
            if signer(object) == CLIENT_SIGNER && request.has(Plugin::CertificateSubjectRestriction) =>
        {
            let wanted = object.pointer("/spec/request").map(requested_groups).unwrap_or_default();
            if wanted.iter().any(|group| group == MASTERS) {
                let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
                return Err(request.forbidden(&why));
            }
            Ok(())
        }
        _ => Ok(()),
    }
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
