//! Where a webhook is: of admission webhooks and of the conversion of custom resources.

use crate::status::FieldError;
use crate::validation::{Errors, View, names};

/// A `clientConfig`.
pub(super) fn validate(config: View, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => validate_url(url, errors),
        (false, true) => validate_service(service, errors),
        _ => errors.push(config.required("exactly one of url or service is required")),
    }
}

/// `https://host[/path]` and nothing else that a URL can have.
fn validate_url(url: View, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.str();
    if text.bytes().any(|b| b.is_ascii_control()) {
        let why = format!("url must be a valid URL: parse {text:?}: net/url: invalid control character in URL{FORM}");
        errors.push(url.required(&why));
        return;
    }
    let mut fault = |value: &str, detail: String| errors.push(FieldError::invalid(url.path(), value, &detail));
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |scheme: &str| {
        scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        fault(&scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        fault("", format!("host must be provided{FORM}"));
    }
    if let Some(user) = user {
        fault(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        fault(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        fault(query, "query parameters are not permitted in the URL".into());
    }
}

fn validate_service(service: View, errors: &mut Errors) {
    // Upstream hands name and namespace over in the wrong order, and so reports each in place of the other.
    for (value, reported) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(value).is_empty() {
            errors.push(service.get(reported).required(&format!("service {reported} is required")));
        }
    }
    let port = service.get("port");
    if !port.int().is_some_and(|n| (1..=65535).contains(&n)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(port.path(), port.int().unwrap_or(0), detail));
    }
    let path = service.get("path");
    match path.str() {
        "" | "/" => return,
        "//" => {
            errors.push(path.invalid("segment[0] may not be empty"));
            return;
        }
        text if !text.starts_with('/') => errors.push(path.invalid("must start with a '/'")),
        _ => {}
    }
    let mut rest = path.str().chars();
    // Upstream skips the first character whether or not it is a slash.
    rest.next();
    let rest = rest.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(&format!("segment[{i}] may not be empty")));
            continue;
        }
        errors.extend(names::subdomain(step).iter().map(|why| path.invalid(&format!("segment[{i}]: {why}"))));
    }
}
