//! Where tokens are in a request: the `Authorization` header, or, for browsers' WebSockets, which cannot send one, a
//! subprotocol.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

/// Begins the subprotocol that is a token.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of a request. A subprotocol that is one is taken out of the headers.
pub(super) fn token(headers: &mut HeaderMap) -> Option<String> {
    let from_header = headers.get(AUTHORIZATION).and_then(in_header).map(str::to_owned);
    if from_header.is_some() {
        return from_header;
    }
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) || !is_websocket(headers) {
        return None;
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    let mut others = Vec::new();
    for protocol in offered.flat_map(|value| value.split(',')).map(str::trim) {
        match protocol.strip_prefix(SUBPROTOCOL) {
            Some(encoded) if found.is_none() => {
                let decoded = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok();
                found =
                    Some(decoded.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|token| !token.is_empty())?);
            }
            Some(_) => return None,
            None => others.push(protocol),
        }
    }
    let token = found?;
    // The server must choose one of the others, so there must be one.
    let others = HeaderValue::from_str(&others.join(", ")).ok().filter(|rest| !rest.is_empty())?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    Some(token)
}

/// The second word, when the first is `bearer`. Other schemes are nobody's: upstream treats such a request as anonymous.
fn in_header(header: &HeaderValue) -> Option<&str> {
    let mut words = header.to_str().ok()?.trim().split(' ');
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_token_is_the_second_word() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc def", Some("abc")),
            (" BEARER abc ", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            assert_eq!(token(&mut request(&[("authorization", header)])).as_deref(), expected, "{header:?}");
        }
    }

    #[test]
    fn a_websocket_brings_its_token_as_a_subprotocol() {
        let of = |protocols: &str, upgrade: &str| {
            let mut headers = request(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", upgrade),
                ("sec-websocket-protocol", protocols),
            ]);
            let token = token(&mut headers);
            (token, headers["sec-websocket-protocol"].to_str().unwrap().to_owned())
        };
        let protocol = "base64url.bearer.authorization.k8s.io.YWJj";
        let both = format!("v5.channel.k8s.io,{protocol}");
        assert_eq!(of(&both, "websocket"), (Some("abc".into()), "v5.channel.k8s.io".into()));
        assert_eq!(of(&both, "SPDY/3.1"), (None, both.clone()));
        assert_eq!(of(protocol, "websocket").0, None, "there is no protocol to choose");
        assert_eq!(of(&format!("a,{protocol},{protocol}"), "websocket").0, None);
    }
}
