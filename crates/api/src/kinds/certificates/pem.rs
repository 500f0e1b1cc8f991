//! What is inside `spec.request` and `status.certificate`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

/// Why a request cannot be used, in upstream's words where they are its own and not its library's.
pub(super) fn check_request(request: &Value) -> Result<(), String> {
    let der = request_der(request)?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| "x509: malformed certificate request")?;
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

/// The groups (organizations) that a request asks for; none when it cannot be read.
pub fn requested_groups(request: &Value) -> Vec<String> {
    let Ok(der) = request_der(request) else { return Vec::new() };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&der) else { return Vec::new() };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect()
}

fn request_der(request: &Value) -> Result<Vec<u8>, String> {
    let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_string();
    let pem = decoded(request);
    let (block, _) = Pem::read(std::io::Cursor::new(pem)).map_err(|_| wrong())?;
    if block.label == "CERTIFICATE REQUEST" { Ok(block.contents) } else { Err(wrong()) }
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
