//! The `jwt` items of an `AuthenticationConfiguration`, and what their `issuer` must be like.

use http::Uri;
use jsonwebtoken::Algorithm;
use keelson_api::status::FieldError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::provider::ALGORITHMS;
use crate::Error;
use crate::config::Oidc;

#[derive(Default, Deserialize)]
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

#[derive(Default, Deserialize)]
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
    /// Only flags narrow them down; empty means all that there are.
    #[serde(skip)]
    pub(super) algorithms: Vec<Algorithm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
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

impl JwtAuthenticator {
    /// The issuer that flags describe.
    pub(crate) fn of_flags(oidc: &Oidc) -> Result<Self, Error> {
        let bad = |flag: &str, why: String| Error::Configuration { path: format!("--oidc-{flag}"), why };
        let mut issuer = IssuerSettings {
            url: oidc.issuer_url.clone(),
            audiences: vec![oidc.client_id.clone()],
            ..IssuerSettings::default()
        };
        if let Some(ca) = &oidc.ca {
            let pem = String::from_utf8(ca.load()?).map_err(|error| bad("ca-file", error.to_string()))?;
            issuer.certificate_authority = pem;
        }
        for name in &oidc.signing_algorithms {
            let known = serde_json::from_value(name.as_str().into()).ok().filter(|known| ALGORITHMS.contains(known));
            let algorithm = known.ok_or_else(|| bad("signing-algs", format!("unsupported signing alg: {name:?}")))?;
            issuer.algorithms.push(algorithm);
        }
        let prefix = match oidc.username_prefix.as_str() {
            // So that names of an issuer are no names of the cluster's own, unless somebody wants them to be.
            "" if oidc.username_claim != "email" => format!("{}#", oidc.issuer_url),
            "-" => String::new(),
            prefix => prefix.to_owned(),
        };
        let claim = |claim: &str, prefix: String| Prefixed {
            claim: claim.to_owned(),
            prefix: Some(prefix),
            ..Prefixed::default()
        };
        let mut mappings = ClaimMappings { username: claim(&oidc.username_claim, prefix), ..ClaimMappings::default() };
        if !oidc.groups_claim.is_empty() {
            mappings.groups = claim(&oidc.groups_claim, oidc.groups_prefix.clone());
        }
        let rule = |(claim, value): (&String, &String)| ClaimRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimRule::default()
        };
        Ok(Self {
            issuer,
            claim_mappings: mappings,
            claim_validation_rules: oidc.required_claims.iter().map(rule).collect(),
            ..Self::default()
        })
    }
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
