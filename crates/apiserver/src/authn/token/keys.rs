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

/// The libraries of this server have neither the curve nor the algorithm.
const UNSUPPORTED: &str = "the key is of the curve P-521: tokens signed by ES512 are not supported; use RS256, ES256 (P-256) or \
                           ES384 (P-384)";

fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Ok((Algorithm::RS256, key));
    }
    let mut blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    if blocks.any(|block| matches!(curve_of(&block.contents), Some(Curve::P521))) {
        return Err(UNSUPPORTED.into());
    }
    let key = DecodingKey::from_ec_pem(pem).map_err(|e| e.to_string())?;
    // An uncompressed point: a byte and two coordinates.
    match key.try_get_as_bytes().map_err(|e| e.to_string())?.len() {
        65 => Ok((Algorithm::ES256, key)),
        97 => Ok((Algorithm::ES384, key)),
        _ => Err("only the curves P-256 and P-384 are supported".into()),
    }
}

/// A private key, with the algorithm that it signs by.
pub(super) fn signing_key(pem: &[u8]) -> Result<(Algorithm, EncodingKey), String> {
    if let Ok(key) = EncodingKey::from_rsa_pem(pem) {
        return Ok((Algorithm::RS256, key));
    }
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let curve = blocks.filter(|block| block.label.ends_with("PRIVATE KEY")).find_map(|block| curve_of(&block.contents));
    let algorithm = match curve {
        None | Some(Curve::P256) => Algorithm::ES256,
        Some(Curve::P384) => Algorithm::ES384,
        Some(Curve::P521) => return Err(UNSUPPORTED.into()),
    };
    Ok((algorithm, EncodingKey::from_ec_pem(pem).map_err(|error| error.to_string())?))
}

fn private_half(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    let (algorithm, key) = signing_key(pem)?;
    let public = Jwk::from_encoding_key(&key, algorithm).and_then(|jwk| DecodingKey::from_jwk(&jwk));
    Ok((algorithm, public.map_err(|error| error.to_string())?))
}

enum Curve {
    P256,
    P384,
    P521,
}

/// The curve that a key names, by its object identifier in DER.
fn curve_of(der: &[u8]) -> Option<Curve> {
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
    let has = |identifier: &[u8]| der.windows(identifier.len()).any(|window| window == identifier);
    match () {
        () if has(P256) => Some(Curve::P256),
        () if has(P384) => Some(Curve::P384),
        () if has(P521) => Some(Curve::P521),
        () => None,
    }
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

    #[test]
    fn the_curve_of_a_key_says_by_what_it_signs() {
        let claims = serde_json::json!({"sub": "a"});
        for (scheme, expected) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256), (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384)]
        {
            let pair = KeyPair::generate_for(scheme).unwrap();
            let (algorithm, key) = signing_key(pair.serialize_pem().as_bytes()).unwrap();
            assert_eq!(algorithm, expected);
            let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), &claims, &key).unwrap();
            let mut validation = jsonwebtoken::Validation::new(algorithm);
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            for wrapping in [pair.public_key_pem(), pair.serialize_pem()] {
                let (algorithm, public) = public_keys(wrapping.as_bytes()).unwrap().remove(0);
                assert_eq!(algorithm, expected);
                jsonwebtoken::decode::<serde_json::Value>(&token, &public, &validation).unwrap();
            }
        }
        // As much of a key of P-521 as says what it is.
        let public = "-----BEGIN PUBLIC KEY-----\nMBAGByqGSM49AgEGBSuBBAAjAwEE\n-----END PUBLIC KEY-----\n";
        let why = public_keys(public.as_bytes()).err().unwrap();
        assert!(why.contains("P-521") && why.contains("ES512"), "{why}");
    }
}
