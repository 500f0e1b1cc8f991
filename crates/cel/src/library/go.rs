//! Numbers as Go's `strconv` reads and writes them.

/// `FormatFloat(value, 'g', -1, 64)`: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(super) fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `ParseFloat`
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let trimmed = text.trim_start_matches(['+', '-']);
    let known = trimmed.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || ["inf", "infinity", "nan"].contains(&trimmed.to_ascii_lowercase().as_str());
    let value: f64 = if known { text.parse().ok()? } else { return None };
    // Out of range is an error there.
    (value.is_finite() || !trimmed.starts_with(|c: char| c.is_ascii_digit() || c == '.')).then_some(value)
}
