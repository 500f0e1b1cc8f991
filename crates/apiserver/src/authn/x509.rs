//! Client certificates. The handshake takes any (its holder has the key); whether it is worth something is judged here, as
//! upstream does: a bad one is 401, not a broken connection, and it is judged again when the authorities change.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust::Trust;
use crate::UserInfo;
use crate::user::CREDENTIAL_ID;

/// Upstream's attribute of a subject that holds a user's UID.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";

/// Takes every certificate whose key the client has.
#[derive(Debug)]
pub(crate) struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    names: Vec<DistinguishedName>,
}

impl AnyCertificate {
    /// Asks for one of these authorities.
    pub(crate) fn new(provider: Arc<CryptoProvider>, names: Vec<DistinguishedName>) -> Self {
        Self { provider, names }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The other end of a connection that showed a certificate.
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    name: String,
    judged: Mutex<Option<Judged>>,
}

struct Judged {
    by: Arc<Trust>,
    /// Seconds since the epoch: the first of the chain's certificates ends then.
    until: i64,
    verdict: Verdict,
}

/// What a certificate is worth.
#[derive(Clone)]
pub(crate) struct Verdict {
    /// It is signed for front proxies. Its name is still to be compared with those allowed.
    pub(crate) front_proxy: bool,
    /// The user it names, or why it names none; neither, where no authority signs users.
    pub(crate) user: Result<Option<Arc<UserInfo>>, String>,
}

impl Peer {
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let name = common_name(chain.first()?).unwrap_or_default();
        Some(Self { chain, name, judged: Mutex::new(None) })
    }

    /// The common name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The verdict by today's authorities. Found once for a connection, and again when they change or time has passed.
    pub(crate) fn judge(&self, trust: &Arc<Trust>) -> Verdict {
        let now = keelson_client::clock::now().as_second();
        let mut judged = self.judged.lock();
        if let Some(known) = &*judged
            && Arc::ptr_eq(&known.by, trust)
            && now <= known.until
        {
            return known.verdict.clone();
        }
        let verdict = self.verdict(trust, now);
        *judged = Some(Judged { by: trust.clone(), until: self.next_change(now), verdict: verdict.clone() });
        verdict
    }

    fn verdict(&self, trust: &Trust, now: i64) -> Verdict {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
        let verify = |authority: &super::trust::Authority| authority.verify(&self.chain, time);
        let front_proxy = trust.request_header_ca.as_ref().is_some_and(|ca| verify(ca).is_ok());
        let user = match trust.client_ca.as_ref().map(verify) {
            None => Ok(None),
            Some(Ok(())) => self.chain.first().map_or(Ok(None), user_of).map(|user| user.map(Arc::new)),
            Some(Err(why)) => Err(why),
        };
        Verdict { front_proxy, user }
    }

    /// When a certificate of the chain begins or ends to be valid next.
    fn next_change(&self, now: i64) -> i64 {
        let times = self.chain.iter().filter_map(|certificate| {
            let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
            let validity = certificate.validity();
            let (from, to) = (validity.not_before.timestamp() - 1, validity.not_after.timestamp());
            [from, to].into_iter().find(|at| *at >= now)
        });
        times.min().unwrap_or(i64::MAX)
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    // Of several, the last one counts, as for Go's `pkix.Name`.
    certificate.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
}

/// The user that a verified certificate names: the common name, organizations as groups; `None` when it names nobody.
fn user_of(der: &CertificateDer<'_>) -> Result<Option<UserInfo>, String> {
    let Some(name) = common_name(der).filter(|name| !name.is_empty()) else { return Ok(None) };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let subject = certificate.subject();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut uids = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID_ATTRIBUTE);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => String::new(),
        (Some(uid), None) => match uid.as_str() {
            Ok(uid) if !uid.is_empty() => uid.to_owned(),
            _ => return Err("UID cannot be an empty string".into()),
        },
        (Some(_), Some(_)) => return Err("expected 1 UID, but found multiple".into()),
    };
    let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut user = UserInfo { uid, ..UserInfo::new(name, groups) };
    user.extra.insert(CREDENTIAL_ID.into(), vec![format!("X509SHA256={fingerprint}")]);
    Ok(Some(user))
}
