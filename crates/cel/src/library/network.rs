//! IP addresses and CIDRs.

use std::fmt;
use std::net::IpAddr;

use super::opaque::Opaque;
use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::value::Value;

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub addr: IpAddr,
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl Cidr {
    fn contains(self, ip: IpAddr) -> bool {
        self.addr.is_ipv4() == ip.is_ipv4() && mask(self.addr, self.prefix) == mask(ip, self.prefix)
    }
}

fn mask(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into()),
        IpAddr::V6(ip) => {
            IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into())
        }
    }
}

/// No zones, and no IPv4 addresses in IPv6 form.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let fail = |why: &str| format!("IP Address {text:?} parse error during conversion from string: {why}");
    let ip: IpAddr = text.parse().map_err(|_| fail("unable to parse IP"))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(fail("IPv4-mapped IPv6 address is not allowed")),
        _ => Ok(ip),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let fail = |why: &str| format!("network address parse error during conversion from string: {why}");
    let (addr, prefix) = text.split_once('/').ok_or_else(|| fail("no '/'"))?;
    let addr = parse_ip(addr).map_err(|why| fail(&why))?;
    let digits =
        !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
    let most = if addr.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if digits && prefix <= most => Ok(Cidr { addr, prefix }),
        _ => Err(fail("bad prefix length")),
    }
}

pub(super) fn to_ip<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::Opaque(Opaque::Cidr(cidr))] => Ok(Value::Opaque(Opaque::Ip(cidr.addr))),
        [text] => Ok(Value::Opaque(Opaque::Ip(parse_ip(string_arg(text)?).map_err(Error::new)?))),
        _ => no_overload(),
    }
}

pub(super) fn is_ip<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Bool(parse_ip(string_arg(text)?).is_ok()))
}

pub(super) fn is_canonical<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    let text = string_arg(text)?;
    Ok(Value::Bool(parse_ip(text).map_err(Error::new)?.to_string() == text))
}

fn one(args: Args<'_, '_>) -> Result<IpAddr, Error> {
    match args {
        [Value::Opaque(Opaque::Ip(ip))] => Ok(*ip),
        _ => no_overload(),
    }
}

pub(super) fn family<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Int(if one(args)?.is_ipv4() { 4 } else { 6 }))
}

pub(super) fn test<'a>(args: Args<'_, 'a>, holds: fn(&IpAddr) -> bool) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(holds(&one(args)?)))
}

/// 224.0.0.0/24, ff02::/16
pub(super) fn link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

/// 169.254.0.0/16, fe80::/10
pub(super) fn link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

pub(super) fn global_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip))
}

pub(super) fn to_cidr<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Opaque(Opaque::Cidr(parse_cidr(string_arg(text)?).map_err(Error::new)?)))
}

pub(super) fn is_cidr<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [text] = args else { return no_overload() };
    Ok(Value::Bool(parse_cidr(string_arg(text)?).is_ok()))
}

pub(super) fn contains_ip<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (cidr, ip) = match args {
        [Value::Opaque(Opaque::Cidr(cidr)), Value::Opaque(Opaque::Ip(ip))] => (cidr, *ip),
        [Value::Opaque(Opaque::Cidr(cidr)), text] => (cidr, parse_ip(string_arg(text)?).map_err(Error::new)?),
        _ => return no_overload(),
    };
    Ok(Value::Bool(cidr.contains(ip)))
}

pub(super) fn contains_cidr<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (cidr, other) = match args {
        [Value::Opaque(Opaque::Cidr(cidr)), Value::Opaque(Opaque::Cidr(other))] => (cidr, *other),
        [Value::Opaque(Opaque::Cidr(cidr)), text] => (cidr, parse_cidr(string_arg(text)?).map_err(Error::new)?),
        _ => return no_overload(),
    };
    Ok(Value::Bool(other.prefix >= cidr.prefix && cidr.contains(other.addr)))
}

fn network(args: Args<'_, '_>) -> Result<Cidr, Error> {
    match args {
        [Value::Opaque(Opaque::Cidr(cidr))] => Ok(*cidr),
        _ => no_overload(),
    }
}

pub(super) fn masked<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let cidr = network(args)?;
    Ok(Value::Opaque(Opaque::Cidr(Cidr { addr: mask(cidr.addr, cidr.prefix), prefix: cidr.prefix })))
}

pub(super) fn prefix_length<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Int(i64::from(network(args)?.prefix)))
}
