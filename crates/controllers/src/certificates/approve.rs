//! `certificatesigningrequest-approving-controller`: kubelets' requests for client certificates are approved when whoever asks
//! may have one, which an access review tells.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::{Key, SharedInformer, WorkQueue, run_workers};
use kube::api::{Api, PostParams};

use super::sign::kubelet_client;
use super::x509::Asked;
use super::{KUBELET_CLIENT, add, has, write};
use crate::context::{Context, objects};

/// The `certificatesigningrequest-approving-controller`.
pub async fn run(context: Context) {
    let requests = context.informers.get::<CertificateSigningRequest>();
    if !context.synced(&requests).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_request =
        context.each(&requests, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let approver = Arc::new(Approver { context: context.clone(), requests: requests.clone() });
    let work = run_workers("csrapproving", queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
        let approver = approver.clone();
        async move { approver.sync(&key).await }
    });
    tokio::join!(on_request, work);
}

struct Approver {
    context: Context,
    requests: SharedInformer<CertificateSigningRequest>,
}

impl Approver {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(request) = self.requests.get_key(key) else { return Ok(None) };
        if has(&request, "Approved") || has(&request, "Denied") || super::certificate(&request).is_some() {
            return Ok(None);
        }
        let Some(own) = recognized(&request) else { return Ok(None) };
        let mut kinds = vec![("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")];
        if own {
            kinds.insert(
                0,
                ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
            );
        }
        for (kind, message) in kinds {
            if self.may(&request, kind).await? {
                let mut approved = (*request).clone();
                add(&mut approved, "Approved", "AutoApproved", message.into());
                return write(&Api::all(self.context.client.clone()), "approval", &approved).await;
            }
        }
        Ok(None)
    }

    async fn may(&self, request: &CertificateSigningRequest, kind: &str) -> Result<bool, kube::Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(spec.username.clone().unwrap_or_default()),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    verb: Some("create".into()),
                    subresource: Some(kind.into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.context.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// Whether this is a kubelet's request for a client certificate, and if so, whether the kubelet asks for itself.
fn recognized(request: &CertificateSigningRequest) -> Option<bool> {
    if request.spec.signer_name != KUBELET_CLIENT {
        return None;
    }
    let asked = Asked::read(&request.spec.request.0).ok()?;
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    kubelet_client(&asked, &usages).ok()?;
    Some(request.spec.username.as_deref() == Some(asked.common_name.as_str()))
}
