use base64::Engine;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData, SigningKey};
use x509_parser::pem::Pem;
use yasna::models::ObjectIdentifier;
use yasna::{Tag, construct_der};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];

fn authority_until(ends: Option<i64>) -> (Authority, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    if let Some(ends) = ends {
        params.not_after =
            std::time::SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends.unsigned_abs())).unwrap().into();
    }
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Authority::open(&pem, &key.serialize_pem()).unwrap(), pem)
}

fn authority() -> Authority {
    authority_until(None).0
}

fn wrapped(signer: &str, pem: &str, usages: &[&str]) -> CertificateSigningRequest {
    CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            signer_name: signer.into(),
            username: Some("system:node:n1".into()),
            request: ByteString(pem.into()),
            usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
            expiration_seconds: Some(3600),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    }
}

fn request(signer: &str, subject: (&str, &str), names: &[&str], usages: &[&str]) -> CertificateSigningRequest {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.0);
    params.distinguished_name.push(DnType::OrganizationName, subject.1);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    wrapped(signer, &pem, usages)
}

/// A request that rcgen would not write: each item of `subject` is a set of values (`O=ops`), the key is `key`, the
/// signature claims to be ECDSA with SHA-256, and an extension that nobody knows is asked for.
fn odd(subject: &[&[&str]], key: &KeyPair) -> String {
    let algorithm = |writer: yasna::DERWriter<'_>| {
        writer.write_sequence(|w| w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 4, 3, 2])));
    };
    let info = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_sequence(|writer| {
                for set in subject {
                    writer.next().write_set_of(|writer| {
                        for value in *set {
                            let (kind, text) = value.split_once('=').unwrap();
                            let kind = if kind == "CN" { [2, 5, 4, 3] } else { [2, 5, 4, 10] };
                            writer.next().write_sequence(|writer| {
                                writer.next().write_oid(&ObjectIdentifier::from_slice(&kind));
                                writer.next().write_utf8_string(text);
                            });
                        }
                    });
                }
            });
            writer.next().write_der(&key.subject_public_key_info());
            writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                writer.write_set(|writer| {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 9, 14]));
                        writer.next().write_set(|writer| {
                            writer.next().write_sequence(|writer| {
                                writer.next().write_sequence(|writer| {
                                    writer.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 3, 4]));
                                    writer.next().write_bytes(b"x");
                                });
                            });
                        });
                    });
                });
            });
        });
    });
    let signature = key.sign(&info).unwrap();
    let der = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&info);
            algorithm(writer.next());
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[track_caller]
fn check(signer: &str, subject: (&str, &str), names: &[&str], usages: &[&str], expected: &str) {
    let signed = sign(&request(signer, subject, names, usages), &authority(), DAY);
    let why = signed.err().unwrap_or_default();
    assert!(if expected.is_empty() { why.is_empty() } else { why.contains(expected) }, "{signer} {subject:?}: {why}");
}

fn der(pem: &str) -> Vec<u8> {
    Pem::read(std::io::Cursor::new(pem)).unwrap().0.contents
}

fn end_of(pem: &str) -> i64 {
    x509_parser::parse_x509_certificate(&der(pem)).unwrap().1.validity().not_after.timestamp()
}

/// The subject of what is signed for a client.
fn subject(pem: &str) -> Result<String, String> {
    let signed = sign(&wrapped(CLIENT, pem, &CLIENT_USAGES), &authority(), DAY)?;
    Ok(x509_parser::parse_x509_certificate(&der(&signed)).unwrap().1.subject().to_string())
}

#[test]
fn signers_sign_what_they_are_for() {
    let (client, server) = (CLIENT_USAGES, ["digital signature", "server auth"]);
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
    let asked = request(CLIENT, ("alice", "devs"), &[], &["client auth"]);
    let forever = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec { expiration_seconds: None, ..asked.spec.clone() },
        ..CertificateSigningRequest::default()
    };
    let now = keelson_client::clock::now().as_second();
    let end = |asked: &CertificateSigningRequest, longest: u64, ends: Option<i64>| {
        end_of(&sign(asked, &authority_until(ends).0, Duration::from_secs(longest)).unwrap()) - now
    };
    let close = |seconds: i64, wanted: i64| assert!((seconds - wanted).abs() < 30, "{seconds} {wanted}");
    close(end(&asked, 86_400, None), 3600);
    close(end(&asked, 1800, None), 1800);
    close(end(&forever, 86_400, None), 86_400 - 300);
    // Shorter than the shortest that may be asked for.
    close(end(&asked, 300, None), 300);
    close(end(&asked, 86_400, Some(now + 100)), 100);
    assert!(sign(&asked, &authority_until(Some(now - 1)).0, DAY).is_err());
}

#[test]
fn what_was_approved_is_signed() {
    let key = KeyPair::generate().unwrap();
    assert_eq!(subject(&odd(&[&["O=dev"], &["O=ops"], &["CN=jane"]], &key)).unwrap(), "O=dev, O=ops, CN=jane");
    assert_eq!(subject(&odd(&[&["O=dev", "O=ops"], &["CN=jane"]], &key)).unwrap(), "O=dev + O=ops, CN=jane");
    let why = subject(&odd(&[&["CN=jane"], &["CN=root"]], &key)).unwrap_err();
    assert!(why.contains("one common name"), "{why}");

    // Readers of PEM that look for a header anywhere would take the first.
    let hidden = odd(&[&["O=system:masters"], &["CN=root"]], &key);
    let seen = odd(&[&["O=dev"], &["CN=alice"]], &key);
    assert_eq!(subject(&format!("x{hidden}{seen}")).unwrap(), "O=dev, CN=alice");

    let two = odd(&[&["O=x"], &["O=system:nodes"], &["CN=system:node:n1"]], &key);
    let why = sign(&wrapped(KUBELET_CLIENT, &two, &CLIENT_USAGES), &authority(), DAY).unwrap_err();
    assert!(why.contains("organization"), "{why}");
}

#[test]
fn organizations_are_text_that_everybody_reads() {
    let odd: [rcgen::DnValue; 3] = [
        rcgen::DnValue::TeletexString("system:masters".try_into().unwrap()),
        rcgen::DnValue::BmpString("system:masters".try_into().unwrap()),
        rcgen::DnValue::UniversalString("system:masters".try_into().unwrap()),
    ];
    for value in odd {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, value.clone());
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let why = subject(&pem).unwrap_err();
        assert!(why.contains("each organization of the subject must be"), "{value:?}: {why}");
    }
}

#[test]
fn certificates_are_whole() {
    let (authority, ca) = authority_until(None);
    let ca = der(&ca);
    let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let asked =
        wrapped(LEGACY, &odd(&[&["CN=a"]], &key), &["digital signature", "decipher only", "cert sign", "s/mime"]);
    let signed = der(&sign(&asked, &authority, DAY).unwrap());
    let (rest, certificate) = x509_parser::parse_x509_certificate(&signed).unwrap();
    assert!(rest.is_empty());
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.issuer(), ca.subject());
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1 | 1 << 5 | 1 << 8);
    assert!(certificate.extended_key_usage().unwrap().unwrap().value.email_protection);
    assert!(!certificate.is_ca());
    assert!(certificate.basic_constraints().unwrap().unwrap().critical);
    assert!(certificate.extensions().iter().all(|extension| extension.oid.to_id_string() != "1.2.3.4"));

    let node = ("system:node:n1", "system:nodes");
    let serving = request(KUBELET_SERVING, node, &["10.0.0.1", "n1.example"], &["digital signature", "server auth"]);
    let signed = der(&sign(&serving, &authority, DAY).unwrap());
    let (_, certificate) = x509_parser::parse_x509_certificate(&signed).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["IPAddress(0a:00:00:01)", "DNSName(n1.example)"]);

    let other = KeyPair::generate().unwrap().serialize_pem();
    let (_, pem) = authority_until(None);
    assert!(Authority::open(&pem, &other).is_err_and(|why| why.contains("not the certificate's")));
}
