//! `format` of strings (and of whole numbers), as far as upstream checks them; other formats are annotations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

use crate::time::parse_duration;
use crate::validation::names;

/// A format that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
    Int32,
    Int64,
}

impl Format {
    const ALL: [(&'static str, Self); 30] = [
        ("bsonobjectid", Self::BsonObjectId),
        ("uri", Self::Uri),
        ("email", Self::Email),
        ("hostname", Self::Hostname),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
        ("cidr", Self::Cidr),
        ("mac", Self::Mac),
        ("uuid", Self::Uuid),
        ("uuid3", Self::Uuid3),
        ("uuid4", Self::Uuid4),
        ("uuid5", Self::Uuid5),
        ("isbn", Self::Isbn),
        ("isbn10", Self::Isbn10),
        ("isbn13", Self::Isbn13),
        ("creditcard", Self::CreditCard),
        ("ssn", Self::Ssn),
        ("hexcolor", Self::HexColor),
        ("rgbcolor", Self::RgbColor),
        ("byte", Self::Byte),
        ("date", Self::Date),
        ("duration", Self::Duration),
        ("date-time", Self::DateTime),
        ("datetime", Self::DateTime),
        ("k8s-short-name", Self::ShortName),
        ("k8s-long-name", Self::LongName),
        ("int32", Self::Int32),
        ("int64", Self::Int64),
        ("isbn-10", Self::Isbn10),
        ("isbn-13", Self::Isbn13),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Whether a string has the format. Formats of numbers fit every string.
    pub(super) fn fits(self, text: &str) -> bool {
        let digits = || text.chars().filter(char::is_ascii_digit).filter_map(|c| c.to_digit(10));
        match self {
            Self::Int32 | Self::Int64 => true,
            Self::BsonObjectId => text.len() == 24 && is_hex(text),
            Self::Uri => is_uri(text),
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid => is_uuid(text, None),
            Self::Uuid3 => is_uuid(text, Some('3')),
            Self::Uuid4 => is_uuid(text, Some('4')) && matches!(nth(text, 16), '8' | '9' | 'a' | 'b' | 'A' | 'B'),
            Self::Uuid5 => is_uuid(text, Some('5')) && matches!(nth(text, 16), '8' | '9' | 'a' | 'b' | 'A' | 'B'),
            Self::Isbn => is_isbn10(text) || is_isbn13(text),
            Self::Isbn10 => is_isbn10(text),
            Self::Isbn13 => is_isbn13(text),
            Self::CreditCard => {
                let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-'));
                plain && (13..=19).contains(&digits().count()) && luhn(digits().collect())
            }
            Self::Ssn => {
                let parts: Vec<&str> = text.split(['-', ' ']).collect();
                let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
                text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '))
                    && matches!(lens.as_slice(), [3, 2, 4] | [9] | [5, 4] | [3, 6])
            }
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && is_hex(digits)
            }
            Self::RgbColor => {
                let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
                inner.is_some_and(|inner| {
                    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
                    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
                })
            }
            Self::Byte => base64::prelude::BASE64_STANDARD.decode(text).is_ok(),
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::Duration => is_duration(text),
            Self::DateTime => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
            Self::ShortName => names::label(text).is_empty(),
            Self::LongName => names::subdomain(text).is_empty(),
        }
    }
}

fn nth(uuid: &str, at: usize) -> char {
    uuid.chars().filter(|c| *c != '-').nth(at).unwrap_or_default()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// With or without hyphens; `version` is the digit that says which kind it is.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let hyphens: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    plain.len() == 32
        && is_hex(&plain)
        && (hyphens.is_empty() || hyphens == [8, 13, 18, 23])
        && version.is_none_or(|version| nth(text, 12) == version)
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if text.is_empty() || text.contains(odd) {
        return false;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return text.starts_with('/') };
    if text.starts_with('/') {
        return true;
    }
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !rest.is_empty()
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(at), Some(inner)) => inner.get(at + 1..).unwrap_or_default(),
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let dots = |text: &str| text.split('.').all(|part| !part.is_empty());
    (quoted || (!local.is_empty() && local.chars().all(atom) && dots(local)))
        && !domain.is_empty()
        && domain.chars().all(atom)
        && dots(domain)
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    text.len() <= 255 && text.split('.').all(label)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains(':') {
        ':'
    } else if text.contains('-') {
        '-'
    } else {
        '.'
    };
    let digits = if separator == '.' { 4 } else { 2 };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len() * digits, 12 | 16 | 40) && parts.iter().all(|part| part.len() == digits && is_hex(part))
}

fn is_isbn10(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(i, c): (usize, &char)| match c {
        'X' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = plain.iter().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10 && values.iter().zip((1..=10).rev()).map(|(v, w)| v * w).sum::<u32>() % 11 == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let values: Option<Vec<u32>> = plain.iter().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let weighted = values.iter().enumerate().map(|(i, v)| if i % 2 == 0 { *v } else { v * 3 });
        values.len() == 13 && weighted.sum::<u32>() % 10 == 0
    })
}

fn luhn(digits: Vec<u32>) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| {
            if i % 2 == 0 {
                *d
            } else if d * 2 > 9 {
                d * 2 - 9
            } else {
                d * 2
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Go's `1h2m3.5s`, or words: `2 days`, `1 week`.
fn is_duration(text: &str) -> bool {
    parse_duration(text).is_ok() || is_duration_in_words(text)
}

fn is_duration_in_words(text: &str) -> bool {
    let units = |unit: &str| {
        let known = ["ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "w"];
        let words = [
            "nanosecond",
            "microsecond",
            "millisecond",
            "second",
            "sec",
            "minute",
            "min",
            "hour",
            "hr",
            "day",
            "week",
            "wk",
        ];
        known.contains(&unit) || words.contains(&unit.strip_suffix('s').unwrap_or(unit))
    };
    let mut rest = text.trim().trim_start_matches(['+', '-']);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let after = after.trim_start();
        let unit = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        if digits.parse::<f64>().is_err() || !units(unit) {
            return false;
        }
        rest = after.trim_start();
    }
    true
}
