//! The cluster's certificate authority and everything it signs. Keys are ECDSA P-256: they are made in a millisecond, so
//! a cluster starts at once. Files follow kubeadm's names where kubeadm has them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;

use crate::layout::{make_private_dir, write_private};
use crate::{Context as _, Result};

/// Days a leaf certificate is good for, as kubeadm's.
const LEAF_DAYS: i64 = 365;
/// Days the authority is good for, as kubeadm's.
const CA_DAYS: i64 = 3650;

/// A PKI directory whose authorities exist.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Signs only the API server, as the front proxy of aggregated ones: nobody else may say who a request is from.
    front_proxy: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct KeyCert {
    pub certificate: String,
    pub key: String,
}

/// Who a client certificate speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The user (CN).
    pub user: &'a str,
    /// Its group (O); rcgen keeps one value for each part of a name, and one is all that Kubernetes' own identities need.
    pub group: Option<&'a str>,
}

impl Pki {
    /// Opens `dir`, making the authorities (`ca.crt`, `ca.key`, `front-proxy-ca.crt`, `front-proxy-ca.key`) and the
    /// service account key (`sa.key`, `sa.pub`) if they are not there.
    pub fn open(dir: &Path) -> Result<Self> {
        make_private_dir(dir)?;
        let (ca_pem, issuer) = authority(dir, "ca", "kubernetes")?;
        let (_, front_proxy) = authority(dir, "front-proxy-ca", "front-proxy-ca")?;
        let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
        if !private.exists() || !public.exists() {
            let key = KeyPair::generate()?;
            write_private(&private, key.serialize_pem().as_bytes())?;
            write_private(&public, key.public_key_pem().as_bytes())?;
        }
        Ok(Self { dir: dir.into(), ca_pem, issuer, front_proxy })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A new client certificate.
    pub fn client(&self, identity: Identity<'_>) -> Result<KeyCert> {
        sign(&self.issuer, client_params(identity))
    }

    /// A new serving certificate for names and addresses.
    pub fn serving(&self, common_name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<KeyCert> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_string()).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.distinguished_name = distinguished_name(common_name, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        sign(&self.issuer, params)
    }

    /// The serving certificates of the API server and of the metrics server beside it, and those that the API server shows to
    /// kubelets and to aggregated servers, written as `apiserver`, `metrics-server`, `apiserver-kubelet-client` and
    /// `front-proxy-client` with `.crt` and `.key`. Made anew at every call: certificates never run out while a cluster is
    /// started now and then.
    pub fn write_apiserver(&self, service_ip: Ipv4Addr, node_ip: Ipv4Addr, node: &str) -> Result<()> {
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            node,
        ];
        let addresses = [Ipv4Addr::LOCALHOST, service_ip, node_ip].map(IpAddr::V4);
        self.write("apiserver", &self.serving("kube-apiserver", &names, &addresses)?)?;
        self.write("metrics-server", &self.serving("keelson-metrics", &["keelson-metrics.kube-system.svc"], &[])?)?;
        // Of no group: a node says where its kubelet is, so what is shown there must be worth nothing elsewhere.
        let kubelet_client = Identity { user: "kube-apiserver-kubelet-client", group: None };
        self.write("apiserver-kubelet-client", &self.client(kubelet_client)?)?;
        let front_proxy = client_params(Identity { user: "front-proxy-client", group: None });
        self.write("front-proxy-client", &sign(&self.front_proxy, front_proxy)?)
    }

    fn write(&self, name: &str, pair: &KeyCert) -> Result<()> {
        write_private(&self.dir.join(format!("{name}.key")), pair.key.as_bytes())?;
        write_private(&self.dir.join(format!("{name}.crt")), pair.certificate.as_bytes())
    }
}

/// Certificate and signer of the authority in `<name>.crt` and `<name>.key`, made if it is not there.
fn authority(dir: &Path, name: &str, common_name: &str) -> Result<(String, Issuer<'static, KeyPair>)> {
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if !certificate.exists() || !key.exists() {
        let made = make_ca(common_name)?;
        write_private(&key, made.key.as_bytes())?;
        write_private(&certificate, made.certificate.as_bytes())?;
    }
    let pem = read(&certificate)?;
    let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&read(&key)?)?)?;
    Ok((pem, issuer))
}

fn client_params(identity: Identity<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(identity.user, identity.group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn sign(issuer: &Issuer<'static, KeyPair>, mut params: CertificateParams) -> Result<KeyCert> {
    set_validity(&mut params, LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(KeyCert { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The admin's identity, as kubeadm's `admin.conf`; `system:masters` because a local cluster's owner must get in even when
/// the RBAC objects are damaged (kubeadm's `super-admin.conf`).
pub const ADMIN: Identity<'static> = Identity { user: "kubernetes-admin", group: Some("system:masters") };

/// DER of the first certificate in `pem`.
pub fn certificate_der(pem: &str) -> Option<rustls_pki_types::CertificateDer<'static>> {
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn make_ca(common_name: &str) -> Result<KeyCert> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::KeyEncipherment];
    set_validity(&mut params, CA_DAYS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(KeyCert { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Valid from an hour ago (clocks of machines differ) for `days`.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    params.not_before = (now - hour).into();
    params.not_after = (now + hour * 24 * u32::try_from(days).unwrap_or(u32::MAX)).into();
}

fn distinguished_name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(|| format!("reading {}", path.display()))
}

impl KeyCert {
    /// Both in one PEM text.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    #[test]
    fn an_authority_is_made_once_and_signs() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());

        let pair = again.client(Identity { user: "u", group: Some("g") }).unwrap();
        let (ca, leaf) = (certificate_der(first.ca_pem()).unwrap(), certificate_der(&pair.certificate).unwrap());
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        assert!(leaf.validity().is_valid());
        let organizations: Vec<_> = leaf.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(organizations, ["g"]);
    }

    #[test]
    fn the_apiserver_certificate_names_every_way_to_reach_it() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        pki.write_apiserver(Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 89, 0, 1), "demo").unwrap();
        let pem = std::fs::read_to_string(dir.path().join("apiserver.crt")).unwrap();
        let der = certificate_der(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let sans = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(sans.value.general_names.len(), 9);
    }

    #[test]
    fn kubelets_see_no_privileged_group() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        // What earlier versions wrote.
        let old =
            pki.client(Identity { user: "kube-apiserver-kubelet-client", group: Some("system:masters") }).unwrap();
        pki.write("apiserver-kubelet-client", &old).unwrap();
        pki.write_apiserver(Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 89, 0, 1), "demo").unwrap();
        let der = certificate_der(&read(&dir.path().join("apiserver-kubelet-client.crt")).unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=kube-apiserver-kubelet-client");
    }

    #[test]
    fn an_old_directory_gets_a_front_proxy_of_its_own_authority() {
        let dir = tempfile::tempdir().unwrap();
        let ca_pem = Pki::open(dir.path()).unwrap().ca_pem().to_owned();
        for file in ["front-proxy-ca.crt", "front-proxy-ca.key"] {
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        let pki = Pki::open(dir.path()).unwrap();
        assert_eq!(pki.ca_pem(), ca_pem);
        pki.write_apiserver(Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 89, 0, 1), "demo").unwrap();
        let der = |file: &str| certificate_der(&read(&dir.path().join(file)).unwrap()).unwrap();
        let (ca, proxy_ca, leaf) = (der("ca.crt"), der("front-proxy-ca.crt"), der("front-proxy-client.crt"));
        let parse = |der| X509Certificate::from_der(der).unwrap().1;
        let (ca, proxy_ca, leaf) = (parse(&ca), parse(&proxy_ca), parse(&leaf));
        leaf.verify_signature(Some(proxy_ca.public_key())).unwrap();
        leaf.verify_signature(Some(ca.public_key())).unwrap_err();
        assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str().unwrap(), "front-proxy-client");
    }
}
