//! `certificatesigningrequest-signing-controller`: signs what is approved, with the cluster's key, as long as the request is
//! what its signer is for. What is not gets the condition `Failed`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::{Key, SharedInformer, WorkQueue, run_workers};
use kube::api::Api;

use super::usages::Usages;
use super::x509::{Alternative, Asked, Authority};
use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, add, certificate, has, write};
use crate::context::{Context, objects};

/// For clocks that go slow.
const BACKDATE: Duration = Duration::from_secs(300);
/// The shortest life that a request may ask for.
const MIN_LIFE: Duration = Duration::from_secs(600);
/// Of certificates that live shorter, [`BACKDATE`] takes nothing from the end.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// The `certificatesigningrequest-signing-controller`. Without a key it has nothing to do.
pub async fn run(context: Context) {
    let (certificate, key) = (&context.config.cluster_signing_cert_pem, &context.config.cluster_signing_key_pem);
    if certificate.is_empty() || key.0.is_empty() {
        return;
    }
    let authority = match Authority::open(certificate, &key.0) {
        Ok(authority) => authority,
        Err(error) => return tracing::error!(error, "certificates cannot be signed: the cluster's key is none"),
    };
    let requests = context.informers.get::<CertificateSigningRequest>();
    if !context.synced(&requests).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_request =
        context.each(&requests, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let signer = Arc::new(Signer { context: context.clone(), requests: requests.clone(), authority });
    let work = run_workers("csrsigning", queue.clone(), 5, context.shutdown.clone(), move |key: Key| {
        let signer = signer.clone();
        async move { signer.sync(&key).await }
    });
    tokio::join!(on_request, work);
}

struct Signer {
    context: Context,
    requests: SharedInformer<CertificateSigningRequest>,
    authority: Authority,
}

impl Signer {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(request) = self.requests.get_key(key) else { return Ok(None) };
        let known = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&request.spec.signer_name.as_str());
        let approved = has(&request, "Approved") && !has(&request, "Denied");
        if !known || !approved || has(&request, "Failed") || certificate(&request).is_some() {
            return Ok(None);
        }
        let mut new = (*request).clone();
        match sign(&request, &self.authority, self.context.config.cluster_signing_duration) {
            Ok(pem) => {
                new.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
            }
            Err(why) => add(&mut new, "Failed", "SignerValidationFailure", why),
        }
        write(&Api::all(self.context.client.clone()), "status", &new).await
    }
}

/// The certificate, in PEM. The error says what about the request its signer is not for.
fn sign(request: &CertificateSigningRequest, authority: &Authority, longest: Duration) -> Result<String, String> {
    let asked = Asked::read(&request.spec.request.0).map_err(|e| format!("unable to parse csr: {e}"))?;
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let user = request.spec.username.as_deref().unwrap_or_default();
    judge(&request.spec.signer_name, user, &usages, &asked)?;
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let wanted = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let life = wanted.map_or(longest, |seconds| Duration::from_secs(seconds).max(MIN_LIFE).min(longest));
    let now = keelson_client::clock::now().as_second();
    let taken = if life < SHORT { 0 } else { seconds(BACKDATE) };
    let end = now.saturating_add(seconds(life)).saturating_sub(taken).min(authority.ends);
    if end <= now {
        return Err("refusing to sign a certificate that expired in the past".into());
    }
    authority.sign(&asked, &Usages::of(&usages)?, now.saturating_sub(seconds(BACKDATE)), end)
}

fn judge(signer: &str, user: &str, usages: &[&str], asked: &Asked) -> Result<(), String> {
    let only = |allowed: &[&str]| usages.iter().all(|usage| allowed.contains(usage));
    match signer {
        CLIENT if !only(&["signing", "digital signature", "key encipherment", "client auth"]) => {
            Err("usages did not match expected".into())
        }
        CLIENT if !usages.contains(&"client auth") => Err("usages did not match expected".into()),
        KUBELET_CLIENT => kubelet_client(asked, usages),
        KUBELET_SERVING => kubelet_serving(asked, usages, user),
        _ => Ok(()),
    }
}

/// Whether these are exactly the usages of a kubelet's certificate; RSA keys encipher, others need not.
fn are(usages: &[&str], auth: &str) -> bool {
    let allowed = ["digital signature", "key encipherment", auth];
    let must = usages.contains(&"digital signature") && usages.contains(&auth);
    must && usages.iter().all(|usage| allowed.contains(usage))
}

pub(super) fn kubelet_client(asked: &Asked, usages: &[&str]) -> Result<(), String> {
    if asked.organizations != ["system:nodes"] {
        Err("subject organization is not system:nodes".into())
    } else if !asked.alternatives.is_empty() {
        Err("DNS, IP, email and URI subjectAltNames are not allowed".into())
    } else if !asked.common_name.starts_with("system:node:") {
        Err("subject common name does not begin with system:node:".into())
    } else if !are(usages, "client auth") {
        Err("usages did not match expected".into())
    } else {
        Ok(())
    }
}

fn kubelet_serving(asked: &Asked, usages: &[&str], user: &str) -> Result<(), String> {
    let addresses = |name: &Alternative| matches!(name, Alternative::Dns(_) | Alternative::Ip(_));
    if asked.organizations != ["system:nodes"] {
        Err("subject organization is not system:nodes".into())
    } else if !asked.common_name.starts_with("system:node:") || asked.common_name != user {
        Err("subject common name does not begin with system:node:, or is not the requesting user".into())
    } else if !asked.alternatives.iter().any(addresses) {
        Err("DNS or IP subjectAltName is required".into())
    } else if !asked.alternatives.iter().all(addresses) {
        Err("email and URI subjectAltNames are not allowed".into())
    } else if !are(usages, "server auth") {
        Err("usages did not match expected".into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
