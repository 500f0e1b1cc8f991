//! The `jwt` items of an `AuthenticationConfiguration`, and what their `issuer` must be like.

use http::Uri;
use keelson_api::status::FieldError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JwtAuthenticator {
    pub(crate) issuer: IssuerSettings,
    #[serde(default)]
    pub(super) claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    pub(super) claim_mappings: ClaimMappings,
    #[serde(default)]
    pub(super) user_validation_rules: Vec<UserRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IssuerSettings {
    #[serde(default)]
    pub(crate) url: String,
    #[serde(default, rename = "discoveryURL")]
    pub(crate) discovery_url: String,
    #[serde(default)]
    pub(super) certificate_authority: String,
    #[serde(default)]
    pub(super) audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct ClaimRule {
    pub(super) claim: String,
    pub(super) required_value: String,
    pub(super) expression: String,
    pub(super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClaimMappings {
    pub(super) username: Prefixed,
    pub(super) groups: Prefixed,
    pub(super) uid: ClaimOrExpression,
    pub(super) extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Prefixed {
    pub(super) claim: String,
    pub(super) prefix: Option<String>,
    pub(super) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClaimOrExpression {
    pub(super) claim: String,
    pub(super) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Extra {
    pub(super) key: String,
    pub(super) value_expression: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UserRule {
    pub(super) expression: String,
    pub(super) message: String,
}

/// What is wrong with an issuer.
pub(super) fn validate_issuer(issuer: &IssuerSettings, path: &str, own_issuers: &[String]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let url_path = format!("{path}.url");
    if issuer.url.is_empty() {
        errors.push(FieldError::required(&url_path, ""));
    } else {
        if own_issuers.contains(&issuer.url) {
            let mut shown = own_issuers.to_vec();
            shown.sort();
            let why = format!("URL must not overlap with disallowed issuers: [{}]", shown.join(" "));
            errors.push(FieldError::invalid(&url_path, issuer.url.as_str(), &why));
        }
        validate_url(&issuer.url, &url_path, &mut errors);
    }
    if !issuer.discovery_url.is_empty() {
        let path = format!("{path}.discoveryURL");
        if issuer.url.trim_end_matches('/') == issuer.discovery_url.trim_end_matches('/') {
            let why = "discoveryURL must be different from URL";
            errors.push(FieldError::invalid(&path, issuer.discovery_url.as_str(), why));
        }
        validate_url(&issuer.discovery_url, &path, &mut errors);
    }
    validate_audiences(issuer, path, &mut errors);
    let pem = issuer.certificate_authority.as_bytes();
    if !pem.is_empty() && CertificateDer::pem_slice_iter(pem).flatten().next().is_none() {
        let why = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(FieldError::invalid(format!("{path}.certificateAuthority"), "<omitted>", why));
    }
    if !issuer.egress_selector_type.is_empty() {
        let path = format!("{path}.egressSelectorType");
        // There is no egress selector here; upstream's words for that case.
        let why = "egress selector is not supported";
        errors.push(FieldError::invalid(path, issuer.egress_selector_type.as_str(), why));
    }
    errors
}

fn validate_url(url: &str, path: &str, errors: &mut Vec<FieldError>) {
    let mut wrong = |why: &str| errors.push(FieldError::invalid(path, url, why));
    let (plain, fragment) = url.split_once('#').unwrap_or((url, ""));
    let uri: Uri = match plain.parse() {
        Ok(uri) => uri,
        Err(error) => return wrong(&format!("parse {url:?}: {error}")),
    };
    if uri.scheme_str() != Some("https") {
        wrong("URL scheme must be https");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        wrong("URL must not contain a username or password");
    }
    if uri.query().is_some_and(|query| !query.is_empty()) {
        wrong("URL must not contain a query");
    }
    if !fragment.is_empty() {
        wrong("URL must not contain a fragment");
    }
}

fn validate_audiences(issuer: &IssuerSettings, path: &str, errors: &mut Vec<FieldError>) {
    let IssuerSettings { audiences, audience_match_policy: policy, .. } = issuer;
    let at = format!("{path}.audiences");
    if audiences.is_empty() {
        return errors.push(FieldError::required(&at, &format!("at least one {at} is required")));
    }
    for (index, audience) in audiences.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if audience.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        if audiences.iter().take(index).any(|other| other == audience) {
            errors.push(FieldError::duplicate(&at, audience.as_str()));
        }
    }
    let at = format!("{path}.audienceMatchPolicy");
    let any = policy == "MatchAny";
    if audiences.len() > 1 && !any {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        errors.push(FieldError::invalid(at, policy.as_str(), why));
    } else if audiences.len() == 1 && !policy.is_empty() && !any {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.push(FieldError::invalid(at, policy.as_str(), why));
    }
}
