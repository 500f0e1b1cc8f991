//! What is inside `spec.request` and `status.certificate`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// Why a request cannot be used, in upstream's words where they are its own and not its library's.
pub(super) fn check_request(request: &Value) -> Result<(), String> {
    let der = request_der(&decoded(request))?;
    let parsed = parse_request(&der)?;
    subject_names(&parsed)?;
    parsed.verify_signature().map_err(|_| {
        let algorithm = parsed.certification_request_info.subject_pki.algorithm.algorithm.to_id_string();
        match algorithm.as_str() {
            "1.2.840.10045.2.1" => "x509: ECDSA verification failure",
            "1.3.101.112" => "x509: Ed25519 verification failure",
            _ => "crypto/rsa: verification error",
        }
        .to_string()
    })
}

/// The groups (organizations) that a request asks for; none when it cannot be read, which validation refuses.
pub fn requested_groups(request: &Value) -> Vec<String> {
    let Ok(der) = request_der(&decoded(request)) else { return Vec::new() };
    let Ok(parsed) = parse_request(&der) else { return Vec::new() };
    let names = subject_names(&parsed).unwrap_or_default();
    names.organizations.into_iter().map(str::to_owned).collect()
}

/// The request in `pem`. Readers of PEM differ in what they skip, so whoever judges or signs a request gets it from here.
pub fn request_der(pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_string();
    let (block, _) = Pem::read(std::io::Cursor::new(pem)).map_err(|_| wrong())?;
    if block.label == "CERTIFICATE REQUEST" { Ok(block.contents) } else { Err(wrong()) }
}

/// The request and nothing after it.
pub fn parse_request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], request)) => Ok(request),
        _ => Err("x509: malformed certificate request".into()),
    }
}

/// User and groups of a request's subject.
#[derive(Debug, Default)]
pub struct SubjectNames<'a> {
    /// Empty for none.
    pub common_name: &'a str,
    pub organizations: Vec<&'a str>,
}

/// What a request's subject says to an authenticator. Refused is what two of them could read differently: several common
/// names, and strings in encodings that not everybody knows.
pub fn subject_names<'a>(request: &'a X509CertificationRequest<'a>) -> Result<SubjectNames<'a>, String> {
    let subject = &request.certification_request_info.subject;
    let texts = |found: Vec<&'a AttributeTypeAndValue<'a>>, what: &str| {
        let texts: Result<Vec<&str>, _> = found.into_iter().map(AttributeTypeAndValue::as_str).collect();
        texts.map_err(|_| format!("{what} of the subject must be a UTF8String, PrintableString or IA5String"))
    };
    let common_names = texts(subject.iter_common_name().collect(), "the common name")?;
    let organizations = texts(subject.iter_organization().collect(), "each organization")?;
    match common_names.as_slice() {
        [] => Ok(SubjectNames { common_name: "", organizations }),
        [common_name] => Ok(SubjectNames { common_name, organizations }),
        _ => Err("the subject must have one common name".into()),
    }
}

/// Why `status.certificate` is not a chain of certificates. Nothing at all is fine.
pub(super) fn check_certificate(certificate: &Value) -> Result<(), String> {
    let pem = decoded(certificate);
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(&pem) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        let mut rest = block.contents.as_slice();
        if rest.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        while !rest.is_empty() {
            (rest, _) = x509_parser::parse_x509_certificate(rest).map_err(|_| "x509: malformed certificate")?;
        }
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}
