//! Numbers that may be percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The value as a number of `total`, rounded up or down when it is a percentage; `None` when it is neither.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let scaled = percent.checked_mul(i64::from(total))?;
            let rounded = if round_up { scaled.checked_add(99)?.div_euclid(100) } else { scaled.div_euclid(100) };
            i32::try_from(rounded).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let percent = |text: &str, total, up| scaled(&IntOrString::String(text.into()), total, up);
        assert_eq!(percent("25%", 10, true), Some(3));
        assert_eq!(percent("25%", 10, false), Some(2));
        assert_eq!(percent("0%", 10, true), Some(0));
        assert_eq!(percent("100%", 7, true), Some(7));
        assert_eq!(percent("1%", 1, true), Some(1));
        assert_eq!(percent("x%", 1, true), None);
        assert_eq!(percent("25", 1, true), None);
        assert_eq!(scaled(&IntOrString::Int(4), 1, true), Some(4));
    }
}
