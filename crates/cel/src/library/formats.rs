//! Named formats of strings (`format.dns1123Label().validate(…)`).

use base64::Engine as _;
use keelson_api::validation::names;

use super::opaque::Opaque;
use super::{Args, Builtin, no_overload, string_arg, time};
use crate::error::Error;
use crate::value::Value;

/// A format with its check, which answers with complaints.
pub struct NamedFormat {
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
    /// Length of upstream's pattern, which the cost goes by.
    pub(crate) regex_size: u64,
}

/// The longest of those patterns.
pub(crate) const MAX_FORMAT_REGEX: u64 = 128;

const fn format(name: &'static str, check: fn(&str) -> Vec<String>, regex_size: u64) -> NamedFormat {
    NamedFormat { name, check, regex_size }
}

static FORMATS: [NamedFormat; 13] = [
    format("dns1123Label", names::label, 30),
    format("dns1123Subdomain", names::subdomain, 60),
    format("dns1035Label", names::label_1035, 30),
    format("qualifiedName", names::qualified, 60),
    format("dns1123LabelPrefix", |text| names::prefix(text, names::label), 30),
    format("dns1123SubdomainPrefix", |text| names::prefix(text, names::subdomain), 60),
    format("dns1035LabelPrefix", |text| names::prefix(text, names::label_1035), 30),
    format("labelValue", names::label_value, 40),
    format("uri", uri, 0),
    format("uuid", uuid, 65),
    format("byte", byte, 0),
    format("date", date, 41),
    format("datetime", datetime, 0),
];

fn verdict(fine: bool, complaint: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![complaint.to_owned()] }
}

fn uri(text: &str) -> Vec<String> {
    verdict(matches!(super::url::is_url(&[Value::borrowed(text)]), Ok(Value::Bool(true))), "invalid URI")
}

/// Eight, four, four, four and twelve hexadecimal digits.
fn uuid(text: &str) -> Vec<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    let fine = lengths && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
    verdict(fine, "does not match the UUID format")
}

fn byte(text: &str) -> Vec<String> {
    verdict(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")
}

fn date(text: &str) -> Vec<String> {
    verdict(text.len() == 10 && time::parse_date(text).is_some(), "invalid date")
}

fn datetime(text: &str) -> Vec<String> {
    verdict(time::parse_timestamp(text).is_some(), "invalid datetime")
}

pub(super) fn named<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [name] = args else { return no_overload() };
    let name = string_arg(name)?;
    Ok(match FORMATS.iter().find(|format| format.name == name) {
        Some(format) => Value::Opaque(Opaque::Format(format)).some(),
        None => Value::Optional(None),
    })
}

/// No value when the text fits, else the complaints.
pub(super) fn validate<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::Opaque(Opaque::Format(format)), text] = args else { return no_overload() };
    let complaints = (format.check)(string_arg(text)?);
    Ok(if complaints.is_empty() {
        Value::Optional(None)
    } else {
        Value::list(complaints.into_iter().map(Value::text).collect()).some()
    })
}

/// The function of no arguments that gives a format.
pub(super) fn constructor(name: &str) -> Option<Builtin> {
    fn at<'a, const INDEX: usize>(_: Args<'_, 'a>) -> Result<Value<'a>, Error> {
        FORMATS.get(INDEX).map(|format| Value::Opaque(Opaque::Format(format))).ok_or(Error::NoSuchOverload)
    }
    const ALL: [Builtin; 13] = [
        at::<0>, at::<1>, at::<2>, at::<3>, at::<4>, at::<5>, at::<6>, at::<7>, at::<8>, at::<9>, at::<10>, at::<11>,
        at::<12>,
    ];
    ALL.get(FORMATS.iter().position(|format| format.name == name)?).copied()
}
