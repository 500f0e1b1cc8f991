//! What calls cost when they run.

use super::{AUTHORIZATION, CHARACTER, PATTERN_CHARACTER, scaled};
use crate::budget::Budget;
use crate::error::Error;
use crate::functions::{Function, Overload};
use crate::library::opaque::Opaque;
use crate::value::Value;

/// How the cost of a call follows from its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallCost {
    Fixed(u64),
    /// A factor of the first argument's size.
    First(f64),
    /// Of the second argument's size, one unit an item.
    Items,
    /// A tenth of the smaller size.
    Smaller,
    /// A tenth of both sizes.
    Both,
    Matches,
    Contains,
    /// One unit an item, strings by their length.
    Traversal,
    Join,
    /// Sizes multiplied, and by this.
    Sets(u64),
    ContainsIp {
        parse: bool,
    },
    ContainsCidr {
        parse: bool,
    },
    Validate,
}

/// The model for a call of `function` that the checker narrowed to `overloads`.
pub(crate) fn model(function: &Function, overloads: &[&Overload]) -> CallCost {
    let overload = if let [only] = overloads { only.id } else { "" };
    match function.name {
        "check" => CallCost::Fixed(AUTHORIZATION),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => CallCost::Traversal,
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => {
            CallCost::First(CHARACTER)
        }
        "replace" | "split" | "ip.isCanonical" => CallCost::First(2.0 * CHARACTER),
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => CallCost::First(CHARACTER),
        "ip" if overload == "cidr_ip" => CallCost::Fixed(1),
        "ip" => CallCost::First(CHARACTER),
        "fieldSelector" | "labelSelector" => CallCost::First(CHARACTER),
        "join" => CallCost::Join,
        "find" | "findAll" => CallCost::Matches,
        "containsIP" => CallCost::ContainsIp { parse: overload == "cidr_contains_ip_string" },
        "containsCIDR" => CallCost::ContainsCidr { parse: overload == "cidr_contains_cidr_string" },
        "validate" => CallCost::Validate,
        "sets.contains" | "sets.intersects" => CallCost::Sets(1),
        "sets.equivalent" => CallCost::Sets(2),
        "format" => CallCost::First(CHARACTER),
        _ => match overload {
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote" => {
                CallCost::First(CHARACTER)
            }
            "in_list" => CallCost::Items,
            "equals" | "not_equals" => CallCost::Smaller,
            id if (id.starts_with("less_") || id.starts_with("greater_"))
                && (id.ends_with("_string") || id.ends_with("_bytes")) =>
            {
                CallCost::Smaller
            }
            "add_string" | "add_bytes" => CallCost::Both,
            "matches_string" => CallCost::Matches,
            "contains_string" => CallCost::Contains,
            _ => CallCost::Fixed(1),
        },
    }
}

fn size(args: &[Value<'_>], index: usize) -> u64 {
    args.get(index).map_or(1, Value::size)
}

/// What the call costs; found before it runs.
///
/// # Errors
/// [`Error::CostLimit`] when finding it takes more steps than are left.
pub(crate) fn cost(model: CallCost, args: &[Value<'_>], budget: &mut Budget) -> Result<u64, Error> {
    Ok(match model {
        CallCost::Fixed(cost) => cost,
        CallCost::First(factor) => scaled(size(args, 0), factor),
        CallCost::Items => size(args, 1),
        CallCost::Smaller => scaled(size(args, 0).min(size(args, 1)), CHARACTER),
        CallCost::Both => scaled(size(args, 0).saturating_add(size(args, 1)), CHARACTER),
        CallCost::Matches => scaled(size(args, 0) + 1, CHARACTER) * scaled(size(args, 1), PATTERN_CHARACTER),
        CallCost::Contains => scaled(size(args, 0), CHARACTER) * scaled(size(args, 1), CHARACTER),
        CallCost::Traversal => args.first().map_or(Ok(0), |value| traversal(value, budget))?,
        CallCost::Join => {
            let separator = if args.len() > 1 { size(args, 1) } else { 0 };
            let total = match args.first() {
                Some(Value::List(list)) => {
                    budget.step(list.len() as u64)?;
                    list.iter()
                        .map(|item| item.map_or(0, |item| item.size()).saturating_add(separator))
                        .fold(0u64, u64::saturating_add)
                }
                _ => 0,
            };
            scaled(total.saturating_sub(separator), 2.0 * CHARACTER)
        }
        CallCost::Sets(factor) => size(args, 0).saturating_mul(size(args, 1)).saturating_mul(factor).saturating_add(1),
        CallCost::ContainsIp { parse } => {
            scaled(2 * size(args, 0), CHARACTER) + if parse { scaled(size(args, 1), CHARACTER) } else { 0 }
        }
        CallCost::ContainsCidr { parse } => {
            let own = size(args, 0);
            let parsing = if parse { scaled(size(args, 1), CHARACTER) } else { 0 };
            scaled(2 * own, CHARACTER) + scaled(own, CHARACTER) + 1 + parsing
        }
        CallCost::Validate => {
            let pattern = match args.first() {
                Some(Value::Opaque(Opaque::Format(format))) => format.regex_size,
                _ => 1,
            };
            scaled(size(args, 1) + 1, CHARACTER) * scaled(pattern, PATTERN_CHARACTER)
        }
    })
}

/// Of looking at all of a value. Bytes of strings, rounded down.
fn traversal(value: &Value<'_>, budget: &mut Budget) -> Result<u64, Error> {
    budget.step(1)?;
    let mut sum = 0u64;
    match value {
        Value::String(text) => sum = (text.as_str().len() as f64 * CHARACTER) as u64,
        Value::Bytes(bytes) => sum = (bytes.len() as f64 * CHARACTER) as u64,
        Value::List(list) => {
            for item in list.iter() {
                sum = sum.saturating_add(item.map_or(Ok(1), |item| traversal(&item, budget))?);
            }
        }
        Value::Map(map) => {
            for key in map.keys() {
                let value = map.entry(&key).and_then(Result::ok);
                let value = value.map_or(Ok(1), |value| traversal(&value, budget))?;
                sum = sum.saturating_add(traversal(&key.value(), budget)?).saturating_add(value);
            }
        }
        _ => sum = 1,
    }
    Ok(sum)
}
