//! A request as its signer reads it, and the certificate made of it. Subject and public key are copied byte by byte: what was
//! approved is what is signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api::kinds::{parse_request, request_der, subject_names};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::usages::Usages;

const SUBJECT_ALTERNATIVES: [u64; 4] = [2, 5, 29, 17];
const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: [u64; 4] = [2, 5, 29, 35];

/// What of a request matters to its signer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) alternatives: Vec<Alternative>,
    /// DER.
    subject: Vec<u8>,
    /// DER of the SubjectPublicKeyInfo.
    public_key: Vec<u8>,
}

/// A subject alternative name of a kind that is signed; other kinds are left out, as upstream does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Alternative {
    Email(String),
    Dns(String),
    Uri(String),
    /// 4 or 16 bytes.
    Ip(Vec<u8>),
}

impl Asked {
    /// Reads what `spec.request` has. Requested extensions other than alternative names are not looked at.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let der = request_der(pem)?;
        let request = parse_request(&der)?;
        let names = subject_names(&request)?;
        let info = &request.certification_request_info;
        let mut alternatives = Vec::new();
        let requested = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => Some(&request.extensions),
            _ => None,
        });
        for extension in requested.flatten() {
            if extension.oid != x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME {
                continue;
            }
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                return Err("x509: invalid subject alternative names".into());
            };
            for name in &names.general_names {
                alternatives.extend(Alternative::of(name)?);
            }
        }
        Ok(Self {
            common_name: names.common_name.to_owned(),
            organizations: names.organizations.iter().map(|name| (*name).to_owned()).collect(),
            alternatives,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }
}

impl Alternative {
    fn of(name: &GeneralName<'_>) -> Result<Option<Self>, String> {
        let text = |text: &str| {
            if text.is_ascii() { Ok(text.to_owned()) } else { Err(format!("x509: SAN {text:?} is malformed")) }
        };
        Ok(Some(match name {
            GeneralName::RFC822Name(name) => Self::Email(text(name)?),
            GeneralName::DNSName(name) => Self::Dns(text(name)?),
            GeneralName::URI(name) => Self::Uri(text(name)?),
            GeneralName::IPAddress(address) if matches!(address.len(), 4 | 16) => Self::Ip(address.to_vec()),
            GeneralName::IPAddress(address) => {
                return Err(format!("x509: cannot parse IP address of length {}", address.len()));
            }
            GeneralName::Invalid(..) => return Err("x509: invalid subject alternative names".into()),
            _ => return Ok(None),
        }))
    }

    fn write(&self, writer: DERWriter<'_>) {
        let (tag, bytes) = match self {
            Self::Email(name) => (1, name.as_bytes()),
            Self::Dns(name) => (2, name.as_bytes()),
            Self::Uri(name) => (6, name.as_bytes()),
            Self::Ip(address) => (7, address.as_slice()),
        };
        writer.write_tagged_implicit(Tag::context(tag), |writer| writer.write_bytes(bytes));
    }
}

/// What signs: the cluster's certificate and key.
pub(super) struct Authority {
    /// DER.
    subject: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    key: KeyPair,
    /// The signature's algorithm, and whether its parameters are NULL and not absent.
    algorithm: (&'static [u64], bool),
    /// When its certificate ends, in seconds since 1970: nothing it signs outlives it.
    pub(super) ends: i64,
}

impl Authority {
    /// The error says which part is not what it should be.
    pub(super) fn open(certificate: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|e| format!("the key: {e}"))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|e| e.to_string())?;
        let parsed = pem.parse_x509().map_err(|e| e.to_string())?;
        if *parsed.public_key().subject_public_key.data != *key.der_bytes() {
            return Err("the key is not the certificate's".into());
        }
        let key_identifier = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            subject: parsed.subject().as_raw().to_vec(),
            key_identifier,
            algorithm: algorithm(&key).ok_or("keys of this kind do not sign certificates")?,
            ends: parsed.validity().not_after.timestamp(),
            key,
        })
    }

    /// A certificate, in PEM, for what was asked, good from `start` to `end`: seconds since 1970.
    pub(super) fn sign(&self, asked: &Asked, usages: &Usages, start: i64, end: i64) -> Result<String, String> {
        let (start, end) = (time(start)?, time(end)?);
        let serial: [u8; 16] =
            ring::rand::generate(&ring::rand::SystemRandom::new()).map_err(|_| "no random number to be had")?.expose();
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                self.write_algorithm(writer.next());
                writer.next().write_der(&self.subject);
                writer.next().write_sequence(|writer| {
                    for (tag, text) in [&start, &end] {
                        writer.next().write_tagged_implicit(*tag, |writer| writer.write_bytes(text.as_bytes()));
                    }
                });
                writer.next().write_der(&asked.subject);
                writer.next().write_der(&asked.public_key);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| self.write_extensions(writer, asked, usages));
                });
            });
        });
        let signature = self.key.sign(&body).map_err(|e| format!("error signing csr: {e}"))?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                self.write_algorithm(writer.next());
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&der))
    }

    fn write_algorithm(&self, writer: DERWriter<'_>) {
        let (oid, null) = self.algorithm;
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if null {
                writer.next().write_null();
            }
        });
    }

    fn write_extensions(&self, writer: &mut DERWriterSeq<'_>, asked: &Asked, usages: &Usages) {
        if let Some((bytes, bits)) = usages.key() {
            extension(writer, &KEY_USAGE, true, |writer| writer.write_bitvec_bytes(&bytes, bits));
        }
        if !usages.extended.is_empty() {
            extension(writer, &EXTENDED_KEY_USAGE, false, |writer| {
                writer.write_sequence(|writer| {
                    for usage in &usages.extended {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(usage));
                    }
                });
            });
        }
        // No authority: the field's default, so nothing is written.
        extension(writer, &BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| ()));
        if let Some(id) = &self.key_identifier {
            extension(writer, &AUTHORITY_KEY_IDENTIFIER, false, |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
                });
            });
        }
        if !asked.alternatives.is_empty() {
            // A name that is nowhere else must be understood: RFC 5280, 4.2.1.6.
            let nameless = asked.subject == [0x30, 0];
            extension(writer, &SUBJECT_ALTERNATIVES, nameless, |writer| {
                writer.write_sequence(|writer| asked.alternatives.iter().for_each(|name| name.write(writer.next())));
            });
        }
    }
}

fn extension(writer: &mut DERWriterSeq<'_>, oid: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(value));
    });
}

fn algorithm(key: &KeyPair) -> Option<(&'static [u64], bool)> {
    let algorithms: [(_, &'static [u64], bool); 6] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
        (&rcgen::PKCS_RSA_SHA384, &[1, 2, 840, 113_549, 1, 1, 12], true),
        (&rcgen::PKCS_RSA_SHA512, &[1, 2, 840, 113_549, 1, 1, 13], true),
    ];
    algorithms.iter().find(|(own, ..)| *key.algorithm() == **own).map(|(_, oid, null)| (*oid, *null))
}

/// RFC 5280, 4.1.2.5: two digits of the year before 2050, four from then on.
fn time(seconds: i64) -> Result<(Tag, String), String> {
    let time = jiff::Timestamp::from_second(seconds).map_err(|e| e.to_string())?;
    let text = time.strftime("%Y%m%d%H%M%SZ").to_string();
    let two = text.strip_prefix("19").filter(|_| text.as_str() >= "1950");
    Ok(match two.or_else(|| text.strip_prefix("20").filter(|_| text.as_str() < "2050")) {
        Some(short) => (TAG_UTCTIME, short.to_owned()),
        None => (TAG_GENERALIZEDTIME, text),
    })
}

fn pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = STANDARD.encode(der);
    while !rest.is_empty() {
        let after = rest.split_off(rest.len().min(64));
        pem.push_str(&rest);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
