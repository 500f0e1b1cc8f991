//! `certificatesigningrequest-signing-controller`: signs what is approved, with the cluster's key, as long as the request is
//! what its signer is for. What is not gets the condition `Failed`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::{Key, SharedInformer, WorkQueue, run_workers};
use kube::api::Api;
use rcgen::{
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, add, certificate, has, write};
use crate::context::{Context, objects};

/// For clocks that go slow.
const BACKDATE: Duration = Duration::from_secs(300);
/// The shortest life that a request may ask for.
const MIN_LIFE: Duration = Duration::from_secs(600);

/// The `certificatesigningrequest-signing-controller`. Without a key it has nothing to do.
pub async fn run(context: Context) {
    let (certificate, key) = (&context.config.cluster_signing_cert_pem, &context.config.cluster_signing_key_pem);
    if certificate.is_empty() || key.0.is_empty() {
        return;
    }
    let issuer = KeyPair::from_pem(&key.0).and_then(|key| Issuer::from_ca_cert_pem(certificate, key));
    let issuer = match issuer {
        Ok(issuer) => issuer,
        Err(error) => return tracing::error!(%error, "certificates cannot be signed: the cluster's key is none"),
    };
    let requests = context.informers.get::<CertificateSigningRequest>();
    if !context.synced(&requests).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_request =
        context.each(&requests, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let ends = authority_ends(certificate);
    let signer = Arc::new(Signer { context: context.clone(), requests: requests.clone(), issuer, ends });
    let work = run_workers("csrsigning", queue.clone(), 5, context.shutdown.clone(), move |key: Key| {
        let signer = signer.clone();
        async move { signer.sync(&key).await }
    });
    tokio::join!(on_request, work);
}

struct Signer {
    context: Context,
    requests: SharedInformer<CertificateSigningRequest>,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own end: nothing it signs outlives it.
    ends: Option<i64>,
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
        match sign(&request, &self.issuer, self.context.config.cluster_signing_duration, self.ends) {
            Ok(pem) => {
                new.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
            }
            Err(why) => add(&mut new, "Failed", "SignerValidationFailure", why),
        }
        write(&Api::all(self.context.client.clone()), "status", &new).await
    }
}

fn authority_ends(pem: &str) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

/// The certificate, in PEM. The error says what about the request its signer is not for.
fn sign(
    request: &CertificateSigningRequest,
    issuer: &Issuer<'static, KeyPair>,
    longest: Duration,
    ends: Option<i64>,
) -> Result<String, String> {
    let pem = std::str::from_utf8(&request.spec.request.0).map_err(|e| format!("unable to parse csr: {e}"))?;
    let mut csr = CertificateSigningRequestParams::from_pem(pem).map_err(|e| format!("unable to parse csr: {e}"))?;
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let user = request.spec.username.as_deref().unwrap_or_default();
    judge(&request.spec.signer_name, user, &usages, &csr)?;
    let (mut key_usages, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match purpose(usage).ok_or_else(|| format!("unrecognized usage {usage:?}"))? {
            Purpose::Key(usage) => key_usages.push(usage),
            Purpose::Extended(usage) => extended.push(usage),
        }
    }
    let asked = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let life = asked.map_or(longest, |seconds| Duration::from_secs(seconds).clamp(MIN_LIFE, longest));
    let now = keelson_client::clock::now().as_second();
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let start = now.saturating_sub(seconds(BACKDATE));
    let end = ends.map_or(i64::MAX, |end| end).min(now.saturating_add(seconds(life)).saturating_sub(seconds(BACKDATE)));
    if end <= now {
        return Err("refusing to sign a certificate that expired in the past".into());
    }
    let params = &mut csr.params;
    let time = |seconds: i64| {
        let timestamp = jiff::Timestamp::from_second(seconds).map_err(|e| e.to_string())?;
        let day = timestamp.to_zoned(jiff::tz::TimeZone::UTC);
        let midnight = rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs());
        let past = timestamp.as_second().rem_euclid(86_400).unsigned_abs();
        Ok::<_, String>(midnight + Duration::from_secs(past))
    };
    (params.not_before, params.not_after) = (time(start)?, time(end)?);
    (params.key_usages, params.extended_key_usages) = (key_usages, extended);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(csr.signed_by(issuer).map_err(|e| format!("error signing csr: {e}"))?.pem())
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn purpose(usage: &str) -> Option<Purpose> {
    use ExtendedKeyUsagePurpose as E;
    use KeyUsagePurpose as K;
    Some(match usage {
        "signing" | "digital signature" => Purpose::Key(K::DigitalSignature),
        "content commitment" => Purpose::Key(K::ContentCommitment),
        "key encipherment" => Purpose::Key(K::KeyEncipherment),
        "key agreement" => Purpose::Key(K::KeyAgreement),
        "data encipherment" => Purpose::Key(K::DataEncipherment),
        "encipher only" => Purpose::Key(K::EncipherOnly),
        "decipher only" => Purpose::Key(K::DecipherOnly),
        "any" => Purpose::Extended(E::Any),
        "server auth" => Purpose::Extended(E::ServerAuth),
        "client auth" => Purpose::Extended(E::ClientAuth),
        "code signing" => Purpose::Extended(E::CodeSigning),
        "email protection" => Purpose::Extended(E::EmailProtection),
        "timestamping" => Purpose::Extended(E::TimeStamping),
        "ocsp signing" => Purpose::Extended(E::OcspSigning),
        _ => return None,
    })
}

/// What of a request matters to its signer.
pub(super) struct Asked<'a> {
    pub(super) common_name: &'a str,
    pub(super) organizations: Vec<&'a str>,
    pub(super) alternatives: &'a [SanType],
}

impl<'a> Asked<'a> {
    pub(super) fn of(csr: &'a CertificateSigningRequestParams) -> Self {
        let all = |kind: DnType| {
            let names = csr.params.distinguished_name.iter().filter(move |(found, _)| **found == kind);
            names.filter_map(|(_, value)| match value {
                rcgen::DnValue::Utf8String(text) => Some(text.as_str()),
                rcgen::DnValue::PrintableString(text) => Some(text.as_str()),
                rcgen::DnValue::Ia5String(text) => Some(text.as_str()),
                _ => None,
            })
        };
        Self {
            common_name: all(DnType::CommonName).last().unwrap_or_default(),
            organizations: all(DnType::OrganizationName).collect(),
            alternatives: &csr.params.subject_alt_names,
        }
    }
}

fn judge(signer: &str, user: &str, usages: &[&str], csr: &CertificateSigningRequestParams) -> Result<(), String> {
    let asked = Asked::of(csr);
    let only = |allowed: &[&str]| usages.iter().all(|usage| allowed.contains(usage));
    match signer {
        CLIENT if !only(&["signing", "digital signature", "key encipherment", "client auth"]) => {
            Err("usages did not match expected".into())
        }
        CLIENT if !usages.contains(&"client auth") => Err("usages did not match expected".into()),
        KUBELET_CLIENT => kubelet_client(&asked, usages),
        KUBELET_SERVING => kubelet_serving(&asked, usages, user),
        _ => Ok(()),
    }
}

/// Whether these are exactly the usages of a kubelet's certificate; RSA keys encipher, others need not.
fn are(usages: &[&str], auth: &str) -> bool {
    let allowed = ["digital signature", "key encipherment", auth];
    let must = usages.contains(&"digital signature") && usages.contains(&auth);
    must && usages.iter().all(|usage| allowed.contains(usage))
}

pub(super) fn kubelet_client(asked: &Asked<'_>, usages: &[&str]) -> Result<(), String> {
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

fn kubelet_serving(asked: &Asked<'_>, usages: &[&str], user: &str) -> Result<(), String> {
    let addresses = |san: &SanType| matches!(san, SanType::DnsName(_) | SanType::IpAddress(_));
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
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use rcgen::{BasicConstraints, CertificateParams};

    use super::*;

    fn issuer() -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        Issuer::new(params, KeyPair::generate().unwrap())
    }

    fn request(signer: &str, subject: (&str, &str), names: &[&str], usages: &[&str]) -> CertificateSigningRequest {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.0);
        params.distinguished_name.push(DnType::OrganizationName, subject.1);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: signer.into(),
                username: Some("system:node:n1".into()),
                request: ByteString(pem.into_bytes()),
                usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
                expiration_seconds: Some(3600),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    #[track_caller]
    fn check(signer: &str, subject: (&str, &str), names: &[&str], usages: &[&str], expected: &str) {
        let signed = sign(&request(signer, subject, names, usages), &issuer(), Duration::from_secs(86_400), None);
        let why = signed.err().unwrap_or_default();
        assert!(
            if expected.is_empty() { why.is_empty() } else { why.contains(expected) },
            "{signer} {subject:?}: {why}"
        );
    }

    #[test]
    fn signers_sign_what_they_are_for() {
        let (client, server) = (["digital signature", "client auth"], ["digital signature", "server auth"]);
        let node = ("system:node:n1", "system:nodes");
        check(CLIENT, ("alice", "devs"), &[], &client, "");
        check(CLIENT, ("alice", "devs"), &[], &server, "usages did not match");
        check(CLIENT, ("alice", "devs"), &[], &["digital signature"], "usages did not match");
        check(KUBELET_CLIENT, node, &[], &client, "");
        check(KUBELET_CLIENT, ("system:node:n1", "system:masters"), &[], &client, "organization");
        check(KUBELET_CLIENT, ("n1", "system:nodes"), &[], &client, "common name");
        check(KUBELET_CLIENT, node, &["a.example"], &client, "subjectAltNames are not allowed");
        check(KUBELET_CLIENT, node, &[], &server, "usages did not match");
        check(KUBELET_SERVING, node, &["10.0.0.1"], &server, "");
        check(KUBELET_SERVING, ("system:node:n2", "system:nodes"), &["10.0.0.1"], &server, "requesting user");
        check(KUBELET_SERVING, node, &[], &server, "is required");
        check(KUBELET_SERVING, node, &["10.0.0.1"], &client, "usages did not match");
    }

    #[test]
    fn certificates_end_in_time() {
        let (asked, issuer) = (request(CLIENT, ("alice", "devs"), &[], &["client auth"]), issuer());
        let end = |longest: Duration, ends: Option<i64>| {
            authority_ends(&sign(&asked, &issuer, longest, ends).unwrap()).unwrap()
                - keelson_client::clock::now().as_second()
        };
        let close = |seconds: i64, wanted: i64| (seconds - wanted).abs() < 30;
        assert!(close(end(Duration::from_secs(86_400), None), 3600 - 300));
        assert!(close(end(Duration::from_secs(1800), None), 1800 - 300));
        let now = keelson_client::clock::now().as_second();
        assert!(close(end(Duration::from_secs(86_400), Some(now + 100)), 100));
        assert!(sign(&asked, &issuer, Duration::from_secs(86_400), Some(now - 1)).is_err());
    }
}
