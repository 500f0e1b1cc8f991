//! Formats of names and other short strings. Each check answers with complaints in upstream's words; none is fine.

use std::net::IpAddr;

/// Words of the expression language that name nothing: no variable can be called so, and fields of such names are escaped.
pub const RESERVED_IN_EXPRESSIONS: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const HTTP_PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const INVALID_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const INVALID_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn label_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(a, b)| lower_or_digit(*a) && lower_or_digit(*b));
    ends && bytes.iter().all(|b| lower_or_digit(*b) || *b == b'-')
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn qualified_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn judge(text: &str, max: usize, shape: fn(&str) -> bool, complaint: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > max {
        complaints.push(too_long(max));
    }
    if !shape(text) {
        complaints.push(complaint.to_string());
    }
    complaints
}

/// RFC 1123 subdomain, at most 253 bytes.
pub fn subdomain(text: &str) -> Vec<String> {
    judge(text, 253, subdomain_shape, SUBDOMAIN)
}

/// RFC 1123 label, at most 63 bytes.
pub fn label(text: &str) -> Vec<String> {
    judge(text, 63, label_shape, LABEL_1123)
}

/// RFC 1035 label, at most 63 bytes.
pub fn label_1035(text: &str) -> Vec<String> {
    judge(text, 63, |t| label_shape(t) && !t.starts_with(|c: char| c.is_ascii_digit()), LABEL_1035)
}

/// `name` or `prefix/name`, as label keys, annotation keys and resource names are.
pub fn qualified(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".into());
            } else {
                complaints.extend(subdomain(prefix).iter().map(|c| format!("prefix part {c}")));
            }
            name
        }
        Some(_) => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".into());
    }
    complaints.extend(judge(name, 63, qualified_shape, QUALIFIED).iter().map(|c| format!("name part {c}")));
    complaints
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    judge(text, 63, |t| t.is_empty() || qualified_shape(t), LABEL_VALUE)
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let shape = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let mut complaints = judge(text, 253, shape, CONFIG_KEY);
    match text {
        "." => complaints.push("must not be '.'".into()),
        ".." => complaints.push("must not be '..'".into()),
        _ if text.starts_with("..") => complaints.push("must not start with '..'".into()),
        _ => {}
    }
    complaints
}

/// The name of an environment variable (the relaxed rule of v1.34 and later).
pub fn env_var(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// The name of a container port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push("must be no more than 15 characters".into());
    }
    if text.is_empty() || !text.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".into());
    }
    complaints
}

/// An IPv4 or IPv6 address, without leading zeros or zones.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec![INVALID_IP.into()],
    }
}

/// `10.0.0.0/8`
pub fn cidr(text: &str) -> Vec<String> {
    let good = text.split_once('/').is_some_and(|(address, bits)| {
        let max = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
    });
    if good { Vec::new() } else { vec![INVALID_CIDR.into()] }
}

/// An address as upstream's newer fields want it: no leading zeros, not IPv4 in IPv6, written the canonical way.
pub fn canonical_ip(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let why = if sloppy_v4(text) { "must not have leading 0s" } else { INVALID_IP };
        return vec![why.into()];
    };
    if mapped(address) {
        return vec!["must not be an IPv4-mapped IPv6 address".into()];
    }
    canonical(text, &address.to_string())
}

/// A range likewise, without bits beyond the prefix.
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = parse_cidr(text) else {
        let sloppy = text.split_once('/').is_some_and(|(address, bits)| {
            (sloppy_v4(address) || address.parse::<IpAddr>().is_ok())
                && !bits.is_empty()
                && bits.bytes().all(|b| b.is_ascii_digit())
                && bits.parse::<u8>().is_ok_and(|bits| bits <= if address.contains(':') { 128 } else { 32 })
        });
        return vec![if sloppy { "must not have leading 0s in IP or prefix length" } else { INVALID_CIDR }.into()];
    };
    if mapped(address) {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    if address != network(address, bits) {
        return vec!["must not have bits set beyond the prefix length".into()];
    }
    canonical(text, &format!("{address}/{bits}"))
}

fn canonical(text: &str, form: &str) -> Vec<String> {
    if text == form { Vec::new() } else { vec![format!("must be in canonical form ({form:?})")] }
}

fn mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// `010.0.0.1`: an IPv4 address but for leading zeros.
fn sloppy_v4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| {
        let digits = part.trim_start_matches('0');
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (digits.is_empty() || digits.parse::<u8>().is_ok())
    };
    parts.len() == 4 && parts.iter().all(number)
}

/// Address and prefix length of `10.0.0.0/8`, without leading zeros.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok()?;
    (plain && bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// The address with all bits beyond the first `bits` cleared.
pub fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// `*.` and an RFC 1123 subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    judge(text, 253, |t| t.strip_prefix("*.").is_some_and(subdomain_shape), WILDCARD)
}

/// What follows the domain in `acme.io/foo`.
pub fn http_path(text: &str) -> Vec<String> {
    let shape =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
    judge(text, usize::MAX, shape, HTTP_PATH)
}

/// An identifier of C.
pub fn c_identifier(text: &str) -> Vec<String> {
    let shape = |t: &str| {
        t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && t.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    judge(text, usize::MAX, shape, C_IDENTIFIER)
}

/// One segment of a URL's path, as RBAC names are.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    judge(text, usize::MAX, |t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), HEADER)
}

/// `25%`
pub fn percent(text: &str) -> Vec<String> {
    let shape = |t: &str| t.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    judge(text, usize::MAX, shape, PERCENT)
}

/// As `check`, for the fixed part of a generated name: a trailing dash counts as a letter.
pub fn prefix(text: &str, check: fn(&str) -> Vec<String>) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(head) => check(&format!("{head}a")),
        None => check(text),
    }
}
