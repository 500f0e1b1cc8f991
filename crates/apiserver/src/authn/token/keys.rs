//! Public keys out of PEM files: as such, in certificates, or with their private halves.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use x509_parser::pem::Pem;

/// All of a file, with the algorithms that they verify. At least one.
pub(super) fn public_keys(pem: &[u8]) -> Result<Vec<(Algorithm, DecodingKey)>, String> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|e| e.to_string())?;
        let text = encode(&block.label, &block.contents);
        keys.push(match block.label.as_str() {
            "CERTIFICATE" => {
                let certificate = block.parse_x509().map_err(|e| e.to_string())?;
                public_key(encode("PUBLIC KEY", certificate.public_key().raw).as_bytes())?
            }
            label if label.ends_with("PRIVATE KEY") => private_half(text.as_bytes())?,
            label if label.ends_with("PUBLIC KEY") => public_key(text.as_bytes())?,
            _ => continue,
        });
    }
    if keys.is_empty() { Err("data does not contain any valid RSA or ECDSA public keys".into()) } else { Ok(keys) }
}

fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Ok((Algorithm::RS256, key));
    }
    let key = DecodingKey::from_ec_pem(pem).map_err(|e| e.to_string())?;
    // An uncompressed point: a byte and two coordinates.
    match key.try_get_as_bytes().map_err(|e| e.to_string())?.len() {
        65 => Ok((Algorithm::ES256, key)),
        97 => Ok((Algorithm::ES384, key)),
        _ => Err("only the curves P-256 and P-384 are supported".into()),
    }
}

fn private_half(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    let of = |algorithm, key: EncodingKey| {
        let jwk = Jwk::from_encoding_key(&key, algorithm)?;
        Ok((algorithm, DecodingKey::from_jwk(&jwk)?))
    };
    let found: Result<_, jsonwebtoken::errors::Error> = match EncodingKey::from_rsa_pem(pem) {
        Ok(key) => of(Algorithm::RS256, key),
        Err(_) => EncodingKey::from_ec_pem(pem).and_then(|key| of(Algorithm::ES256, key)),
    };
    found.map_err(|e| e.to_string())
}

fn encode(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).filter_map(|at| body.get(at..body.len().min(at + 64))).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn keys_come_in_several_wrappings() {
        let (a, b) = (KeyPair::generate().unwrap(), KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&a).unwrap();
        let file = format!("{}{}{}{}", a.public_key_pem(), certificate.pem(), a.serialize_pem(), b.public_key_pem());
        let keys = public_keys(file.as_bytes()).unwrap();
        let algorithms: Vec<Algorithm> = keys.iter().map(|(algorithm, _)| *algorithm).collect();
        assert_eq!(algorithms, [Algorithm::ES256, Algorithm::ES256, Algorithm::ES256, Algorithm::ES384]);
        let bytes = |i: usize| keys[i].1.try_get_as_bytes().unwrap().to_vec();
        assert_eq!((bytes(0), bytes(0)), (bytes(1), bytes(2)), "one key in three wrappings");
        public_keys(b"nothing").unwrap_err();
    }
}
