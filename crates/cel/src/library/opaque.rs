//! Values of the libraries' own types, and quantities.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use keelson_api::quantity::{Format as QuantityFormat, Quantity};

use super::authorizer::{Authorization, Check, Decision};
use super::formats::NamedFormat;
use super::network::Cidr;
use super::semver::Version;
use super::url::Url;
use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::types::OpaqueType;
use crate::value::Value;

/// A value of a library's type.
#[derive(Clone)]
pub enum Opaque<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Format(&'static NamedFormat),
    Semver(Arc<Version>),
    Authorizer(Authorization<'a>),
    PathCheck(Arc<Check<'a>>),
    GroupCheck(Arc<Check<'a>>),
    ResourceCheck(Arc<Check<'a>>),
    Decision(Arc<Decision>),
}

impl Opaque<'_> {
    pub(crate) fn ty(&self) -> OpaqueType {
        match self {
            Self::Quantity(_) => OpaqueType::Quantity,
            Self::Ip(_) => OpaqueType::Ip,
            Self::Cidr(_) => OpaqueType::Cidr,
            Self::Url(_) => OpaqueType::Url,
            Self::Format(_) => OpaqueType::Format,
            Self::Semver(_) => OpaqueType::Semver,
            Self::Authorizer(_) => OpaqueType::Authorizer,
            Self::PathCheck(_) => OpaqueType::PathCheck,
            Self::GroupCheck(_) => OpaqueType::GroupCheck,
            Self::ResourceCheck(_) => OpaqueType::ResourceCheck,
            Self::Decision(_) => OpaqueType::Decision,
        }
    }

    /// What `string()` and `%s` make of it, where they can.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Ip(ip) => ip.to_string(),
            Self::Cidr(cidr) => cidr.to_string(),
            Self::Url(url) => url.source.clone(),
            Self::Format(format) => format.name.into(),
            Self::Semver(version) => version.to_string(),
            _ => return None,
        })
    }

    /// Bytes of an address; 1 for the rest.
    pub(crate) fn size(&self) -> u64 {
        let bytes = |ip: &IpAddr| if ip.is_ipv4() { 4 } else { 16 };
        match self {
            Self::Ip(ip) => bytes(ip),
            Self::Cidr(cidr) => u64::from(cidr.prefix).div_ceil(8),
            _ => 1,
        }
    }
}

impl fmt::Debug for Opaque<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.ty().name(), self.text().unwrap_or_default())
    }
}

impl PartialEq for Opaque<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            _ => self.ty() == other.ty() && self.text().is_some() && self.text() == other.text(),
        }
    }
}

fn quantity(text: &str) -> Option<Quantity> {
    text.parse().ok()
}

pub(super) fn to_quantity<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    let parsed = string_arg(text)?.parse::<Quantity>().map_err(|error| Error::new(error.to_string()))?;
    Ok(Value::Opaque(Opaque::Quantity(parsed)))
}

pub(super) fn is_quantity<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Bool(quantity(string_arg(text)?).is_some()))
}

fn one(args: Args<'_, '_>) -> Result<Quantity, Error> {
    match args {
        [Value::Opaque(Opaque::Quantity(quantity))] => Ok(*quantity),
        _ => no_overload(),
    }
}

pub(super) fn sign<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Int(one(args)?.nanos().signum() as i64))
}

pub(super) fn as_float<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Double(one(args)?.as_f64()))
}

pub(super) fn is_integer<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(one(args)?.is_integer()))
}

pub(super) fn as_integer<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let quantity = one(args)?;
    if !quantity.is_integer() {
        return Err(Error::new("cannot convert value to integer"));
    }
    Ok(Value::Int(quantity.value()))
}

/// Quantities and versions have an order.
fn order(args: Args<'_, '_>) -> Result<Ordering, Error> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok(a.cmp(b)),
        [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))] => Ok(a.cmp(b)),
        _ => no_overload(),
    }
}

pub(super) fn test<'a>(args: Args<'_, 'a>, holds: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(holds(order(args)?)))
}

pub(super) fn compare_to<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Int(order(args)? as i64))
}

pub(super) fn add<'a>(args: Args<'_, 'a>, negate: bool) -> Result<Value<'a>, Error> {
    let (a, b) = match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => (*a, *b),
        [Value::Opaque(Opaque::Quantity(a)), Value::Int(b)] => (*a, Quantity::new(*b, QuantityFormat::DecimalSi)),
        _ => return no_overload(),
    };
    Ok(Value::Opaque(Opaque::Quantity(if negate { a - b } else { a + b })))
}
