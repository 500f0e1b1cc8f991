//! Kubernetes quantities of typed objects as integers, and back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::quantity::Quantity as Exact;

/// A list of resources, as in `requests`.
pub(crate) type ResourceList = BTreeMap<String, Quantity>;

/// The exact amount; nothing when it is not one (the API server has validated it).
fn parse(quantity: &Quantity) -> Exact {
    quantity.0.trim().parse().unwrap_or(Exact::ZERO)
}

/// The quantity in whole units, rounded up; 0 when it is not one (the API server has validated it).
pub(crate) fn value(quantity: &Quantity) -> i64 {
    parse(quantity).value()
}

/// The quantity in thousandths, rounded up.
pub(crate) fn milli(quantity: &Quantity) -> i64 {
    parse(quantity).milli_value()
}

/// `list[name]` in whole units.
pub(crate) fn value_of(list: Option<&ResourceList>, name: &str) -> Option<i64> {
    list?.get(name).map(value)
}

/// `list[name]` in thousandths.
pub(crate) fn milli_of(list: Option<&ResourceList>, name: &str) -> Option<i64> {
    list?.get(name).map(milli)
}

/// `milli` thousandths as upstream prints CPU: `2` or `1500m`.
pub(crate) fn from_milli(milli: i64) -> Quantity {
    Quantity(Exact::from_millis(milli).to_string())
}

/// Bytes as upstream prints a binary quantity: in the largest unit that divides it.
pub(crate) fn from_bytes(bytes: i64) -> Quantity {
    Quantity(Exact::from_bytes(bytes).to_string())
}

/// A plain number.
pub(crate) fn from_count(count: i64) -> Quantity {
    Quantity(count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_rounds_up() {
        for (text, whole, thousandths) in [
            ("500m", 1, 500),
            ("2", 2, 2000),
            ("1.5", 2, 1500),
            ("0.1", 1, 100),
            ("1500u", 1, 2),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1e3", 1000, 1_000_000),
            ("1E2", 100, 100_000),
            ("nonsense", 0, 0),
            ("", 0, 0),
        ] {
            let quantity = Quantity(text.into());
            assert_eq!((value(&quantity), milli(&quantity)), (whole, thousandths), "{text}");
        }
    }

    #[test]
    fn prints_canonically() {
        assert_eq!(from_milli(2000).0, "2");
        assert_eq!(from_milli(1950).0, "1950m");
        assert_eq!(from_bytes(24_685_952_000).0, "24107375Ki");
        assert_eq!(from_bytes(1 << 30).0, "1Gi");
        assert_eq!(from_bytes(0).0, "0");
        assert_eq!(from_bytes(1001).0, "1001");
    }
}
