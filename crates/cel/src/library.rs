//! The code behind functions and operators. Each takes its arguments with the target first and decides by their values,
//! since `dyn` leaves types to run time.

mod arithmetic;
pub(crate) mod authorizer;
mod convert;
mod formats;
mod go;
pub(crate) mod lists;
mod network;
pub(crate) mod opaque;
mod optional;
pub(crate) mod regexes;
mod semver;
mod strings;
pub(crate) mod time;
mod url;

pub(crate) use formats::MAX_FORMAT_REGEX;

use crate::budget::Budget;
use crate::error::Error;
use crate::value::Value;

/// The arguments of a call, the target first.
pub(crate) type Args<'x, 'a> = &'x [Value<'a>];
/// The code of a function whose work is in proportion to what it costs.
pub(crate) type Builtin = for<'x, 'a> fn(Args<'x, 'a>) -> Result<Value<'a>, Error>;
/// The code of a function that looks at all of a value, or makes more than it was given.
pub(crate) type Measured = for<'x, 'a> fn(Args<'x, 'a>, &mut Budget) -> Result<Value<'a>, Error>;

/// The code of a function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Code {
    Plain(Builtin),
    Measured(Measured),
}

impl Code {
    pub(crate) fn run<'a>(self, args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
        match self {
            Self::Plain(run) => run(args),
            Self::Measured(run) => run(args, budget),
        }
    }
}

fn no_overload<T>() -> Result<T, Error> {
    Err(Error::NoSuchOverload)
}

fn string_arg<'x>(value: &'x Value<'_>) -> Result<&'x str, Error> {
    value.as_str().ok_or(Error::NoSuchOverload)
}

/// The code of a function; `None` for what the evaluator does itself: what does not evaluate all arguments, and patterns,
/// which it keeps compiled.
pub(crate) fn implementation(name: &str) -> Option<Code> {
    measured(name).map(Code::Measured).or_else(|| plain(name).map(Code::Plain))
}

fn measured(name: &str) -> Option<Measured> {
    Some(match name {
        "_==_" => |args, budget| arithmetic::equal(args, true, budget),
        "_!=_" => |args, budget| arithmetic::equal(args, false, budget),
        "_+_" => arithmetic::add,
        "@in" => lists::contained,
        "format" => strings::format::format,
        "indexOf" => lists::index_of,
        "lastIndexOf" => lists::last_index_of,
        "join" => strings::join,
        "replace" => strings::replace,
        "split" => strings::split,
        "sets.contains" => lists::sets_contains,
        "sets.equivalent" => lists::sets_equivalent,
        "sets.intersects" => lists::sets_intersects,
        "sum" => lists::sum,
        _ => return None,
    })
}

fn plain(name: &str) -> Option<Builtin> {
    Some(match name {
        "!_" => arithmetic::not,
        "_-_" => arithmetic::subtract,
        "_*_" => arithmetic::multiply,
        "_/_" => arithmetic::divide,
        "_%_" => arithmetic::modulo,
        "-_" => arithmetic::negate,
        "_<_" => |args| arithmetic::compare(args, |order| order.is_lt()),
        "_<=_" => |args| arithmetic::compare(args, |order| order.is_le()),
        "_>_" => |args| arithmetic::compare(args, |order| order.is_gt()),
        "_>=_" => |args| arithmetic::compare(args, |order| order.is_ge()),
        "size" => lists::size,
        "type" => convert::type_of,
        "dyn" => convert::same,
        "bool" => convert::to_bool,
        "bytes" => convert::to_bytes,
        "double" => convert::to_double,
        "int" => convert::to_int,
        "uint" => convert::to_uint,
        "string" => convert::to_string,
        "duration" => time::to_duration,
        "timestamp" => time::to_timestamp,
        "getDate" => time::date,
        "getDayOfMonth" => time::day_of_month,
        "getDayOfWeek" => time::day_of_week,
        "getDayOfYear" => time::day_of_year,
        "getFullYear" => time::full_year,
        "getHours" => time::hours,
        "getMilliseconds" => time::milliseconds,
        "getMinutes" => time::minutes,
        "getMonth" => time::month,
        "getSeconds" => time::seconds,
        "contains" => |args| strings::test(args, |text, part| text.contains(part)),
        "endsWith" => |args| strings::test(args, |text, part| text.ends_with(part)),
        "startsWith" => |args| strings::test(args, |text, part| text.starts_with(part)),
        "charAt" => strings::char_at,
        "lowerAscii" => strings::lower_ascii,
        "upperAscii" => strings::upper_ascii,
        "substring" => strings::substring,
        "trim" => strings::trim,
        "strings.quote" => strings::quote,
        "isSorted" => lists::is_sorted,
        "max" => |args| lists::extreme(args, "max", |order| order.is_gt()),
        "min" => |args| lists::extreme(args, "min", |order| order.is_lt()),
        "url" => url::to_url,
        "isURL" => url::is_url,
        "getScheme" => |args| url::part(args, |url| url.scheme.clone()),
        "getHost" => |args| url::part(args, |url| url.host.clone()),
        "getHostname" => |args| url::part(args, url::Url::hostname),
        "getPort" => |args| url::part(args, url::Url::port),
        "getEscapedPath" => |args| url::part(args, |url| url.path.clone()),
        "getQuery" => url::query,
        "quantity" => opaque::to_quantity,
        "isQuantity" => opaque::is_quantity,
        "sign" => opaque::sign,
        "isGreaterThan" => |args| opaque::test(args, |order| order.is_gt()),
        "isLessThan" => |args| opaque::test(args, |order| order.is_lt()),
        "compareTo" => opaque::compare_to,
        "asApproximateFloat" => opaque::as_float,
        "asInteger" => opaque::as_integer,
        "isInteger" => opaque::is_integer,
        "add" => |args| opaque::add(args, false),
        "sub" => |args| opaque::add(args, true),
        "ip" => network::to_ip,
        "isIP" => network::is_ip,
        "ip.isCanonical" => network::is_canonical,
        "family" => network::family,
        "isUnspecified" => |args| network::test(args, |ip| ip.is_unspecified()),
        "isLoopback" => |args| network::test(args, |ip| ip.is_loopback()),
        "isLinkLocalMulticast" => |args| network::test(args, network::link_local_multicast),
        "isLinkLocalUnicast" => |args| network::test(args, network::link_local_unicast),
        "isGlobalUnicast" => |args| network::test(args, network::global_unicast),
        "cidr" => network::to_cidr,
        "isCIDR" => network::is_cidr,
        "containsIP" => network::contains_ip,
        "containsCIDR" => network::contains_cidr,
        "masked" => network::masked,
        "prefixLength" => network::prefix_length,
        "format.named" => formats::named,
        "validate" => formats::validate,
        "semver" => semver::to_semver,
        "isSemver" => semver::is_semver,
        "major" => |args| semver::part(args, |version| version.major),
        "minor" => |args| semver::part(args, |version| version.minor),
        "patch" => |args| semver::part(args, |version| version.patch),
        "optional.of" => optional::of,
        "optional.ofNonZeroValue" => optional::of_non_zero,
        "optional.none" => optional::none,
        "value" => optional::value,
        "hasValue" => optional::has_value,
        "jsonpatch.escapeKey" => strings::escape_key,
        "path" => authorizer::path,
        "group" => authorizer::group,
        "serviceAccount" => authorizer::service_account,
        "resource" => |args| authorizer::set(args, |check, value| check.resource = value),
        "subresource" => |args| authorizer::set(args, |check, value| check.subresource = value),
        "namespace" => |args| authorizer::set(args, |check, value| check.namespace = value),
        "name" => |args| authorizer::set(args, |check, value| check.name = value),
        "fieldSelector" => |args| authorizer::set(args, |check, value| check.field_selector = value),
        "labelSelector" => |args| authorizer::set(args, |check, value| check.label_selector = value),
        "check" => authorizer::check,
        "allowed" => authorizer::allowed,
        "reason" => authorizer::reason,
        "errored" => authorizer::errored,
        "error" => authorizer::error,
        // All that is left of this prefix is one of the named formats.
        _ => return name.strip_prefix("format.").and_then(formats::constructor),
    })
}
