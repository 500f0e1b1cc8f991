//! CertificateSigningRequests: kubelets' own are approved, what is approved is signed, what is old is removed. Each is a
//! controller of its own, under upstream's name.

mod approve;
mod clean;
mod sign;
mod usages;
mod x509;

use std::time::Duration;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::{is_conflict, is_not_found};
use kube::api::{Api, PostParams};

pub use approve::run as run_approving;
pub use clean::run as run_cleaning;
pub use sign::run as run_signing;

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(&certificate.0).filter(|pem| !pem.is_empty()).map(Vec::as_slice)
}

fn add(request: &mut CertificateSigningRequest, kind: &str, reason: &str, message: String) {
    let now = Time(keelson_client::clock::now());
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: kind.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        },
    );
}

/// Writes `approval` or `status`. What changed meanwhile comes back by itself.
async fn write(
    api: &Api<CertificateSigningRequest>,
    subresource: &str,
    request: &CertificateSigningRequest,
) -> Result<Option<Duration>, kube::Error> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    match api.replace_subresource(subresource, name, &PostParams::default(), request).await {
        Ok(_) => Ok(None),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
