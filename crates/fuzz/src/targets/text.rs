//! Small languages: what is accepted prints as something that means the same.

use keelson_api::quantity::Quantity;
use keelson_api::selector::{FieldSelector, LabelSelector};

pub(super) fn label_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = LabelSelector::parse(text) else { return };
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed).unwrap_or_else(|e| panic!("{printed:?} cannot be read back: {e}"));
    assert_eq!(again, selector, "{printed:?}");
}

pub(super) fn field_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let printed = selector.to_string();
    let again = FieldSelector::parse(&printed).unwrap_or_else(|e| panic!("{printed:?} cannot be read back: {e}"));
    assert_eq!(again, selector, "{printed:?}");
}

pub(super) fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let printed = quantity.to_string();
    let again: Quantity = printed.parse().unwrap_or_else(|e| panic!("{text:?} prints as {printed:?}: {e}"));
    assert_eq!(again.nanos(), quantity.nanos(), "{text:?} prints as {printed:?}");
    assert_eq!(again.to_string(), printed, "{text:?}");
    let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64());
}
