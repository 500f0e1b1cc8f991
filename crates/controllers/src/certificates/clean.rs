//! `certificatesigningrequest-cleaner-controller`: requests that are over are removed: decided ones after an hour, others
//! after a day, signed ones whose certificate has expired at once.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::is_not_found;
use kube::api::{Api, DeleteParams};

use super::{certificate, conditions, has};
use crate::context::Context;

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(3600);
const DECIDED_SECONDS: i64 = 3600;
const PENDING_SECONDS: i64 = 24 * 3600;

/// The `certificatesigningrequest-cleaner-controller`.
pub async fn run(context: Context) {
    let requests = context.informers.get::<CertificateSigningRequest>();
    if !context.synced(&requests).await {
        return;
    }
    let api = Api::<CertificateSigningRequest>::all(context.client.clone());
    loop {
        let now = keelson_client::clock::now().as_second();
        for request in requests.list().iter().filter(|request| is_over(request, now)) {
            let name = request.metadata.name.as_deref().unwrap_or_default();
            if let Err(error) = api.delete(name, &DeleteParams::default()).await
                && !is_not_found(&error)
            {
                tracing::warn!(%error, name, "an old CertificateSigningRequest could not be removed");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = context.shutdown.cancelled() => return,
        }
    }
}

fn is_over(request: &CertificateSigningRequest, now: i64) -> bool {
    let decided = |kind: &str, seconds: i64| {
        let mut found = conditions(request).iter().filter(|condition| condition.type_ == kind);
        found.any(|c| c.last_update_time.as_ref().is_some_and(|at| at.0.as_second() + seconds < now))
    };
    let pending = !["Approved", "Denied", "Failed"].iter().any(|kind| has(request, kind));
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0.as_second());
    let expired = certificate(request).is_some_and(|pem| {
        let parsed = x509_parser::pem::parse_x509_pem(pem).ok();
        let ends = parsed.and_then(|(_, pem)| Some(pem.parse_x509().ok()?.validity().not_after.timestamp()));
        ends.is_some_and(|ends| ends < now)
    });
    // One that is approved waits a day for its signer.
    let signed = certificate(request).is_some();
    expired
        || (signed && decided("Approved", DECIDED_SECONDS))
        || decided("Approved", PENDING_SECONDS)
        || decided("Denied", DECIDED_SECONDS)
        || decided("Failed", DECIDED_SECONDS)
        || (pending && created + PENDING_SECONDS < now)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn requests_grow_old() {
        let at = |second: i64| Time(jiff::Timestamp::from_second(second).unwrap());
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(at(1000));
        assert!(!is_over(&request, 1000 + 24 * 3600));
        assert!(is_over(&request, 1001 + 24 * 3600));
        let decided = |kind: &str| {
            let mut request = request.clone();
            super::super::add(&mut request, kind, "x", String::new());
            request.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_update_time = Some(at(1000));
            request
        };
        assert!(!is_over(&decided("Denied"), 1000 + 3600) && is_over(&decided("Denied"), 1001 + 3600));
        assert!(!is_over(&decided("Approved"), 1001 + 3600) && is_over(&decided("Approved"), 1001 + 24 * 3600));
    }
}
