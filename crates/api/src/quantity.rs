//! `Quantity`: amounts of resources (`500m`, `1Gi`, `2e3`), parsed, compared and written as upstream does. Exact: a whole
//! number of nano-units in an `i128`. Knows nothing about JSON beyond reading a string or a number.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

#[cfg(test)]
mod tests;

const NANO: i128 = 1_000_000_000;
/// The largest magnitude: 2^63-1 whole units. Parsing and arithmetic stop there.
const MAX: i128 = i64::MAX as i128 * NANO;

/// An amount of a resource. Equality and order go by amount: `1` = `1000m`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `1k`, `100m`
    #[default]
    DecimalSi,
    /// `1Ki`
    BinarySi,
    /// `1e3`
    DecimalExponent,
}

/// Why a string is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the shape number-and-suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is not one (`1.2.3`, `.`).
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is none of those known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing at all.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// `units` whole units.
    pub const fn new(units: i64, format: Format) -> Self {
        Self { nanos: units as i128 * NANO, format }
    }

    /// Thousandths, as CPU is counted.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Bytes, written as `Ki`, `Mi`, …
    pub const fn from_bytes(bytes: i64) -> Self {
        Self::new(bytes, Format::BinarySi)
    }

    /// Reads a JSON string or number.
    pub fn from_value(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            Value::Null => Ok(Self::ZERO),
            _ => Err(ParseError::Format),
        }
    }

    /// The quantity under `key` of a resource list, if there is one that parses.
    pub fn lookup(list: &Value, key: &str) -> Option<Self> {
        list.get(key).and_then(|value| Self::from_value(value).ok())
    }

    /// Whole units, rounded up (away from zero).
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded up; stops at the largest `i64`.
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// Exact amount in billionths of a unit.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub const fn format(self) -> Format {
        self.format
    }

    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub const fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it is a whole number of thousandths.
    pub const fn is_whole_millis(self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }

    fn scaled(self, unit: i128) -> i64 {
        let up = div_away(self.nanos, unit);
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }

    fn clamped(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-MAX, MAX), format }
    }
}

/// Division that rounds away from zero.
fn div_away(n: i128, d: i128) -> i128 {
    let quotient = n / d;
    if n % d == 0 { quotient } else { quotient + n.signum() }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let number_end = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = unsigned.split_at(number_end);
        if number.is_empty() || !suffix_shape(suffix) {
            return Err(ParseError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Numeric);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let magnitude = match scale {
            Scale::Ten(exponent) => decimal(whole, fraction, exponent),
            Scale::Two(bits) => binary(whole, fraction, bits),
        };
        let quantity = Self::clamped(if negative { -magnitude } else { magnitude }, format);
        // Below one unit the binary suffixes have nothing to say.
        let small = quantity.nanos != 0 && quantity.nanos.abs() < NANO;
        Ok(if small && format == Format::BinarySi { Self { format: Format::DecimalSi, ..quantity } } else { quantity })
    }
}

enum Scale {
    Ten(i64),
    Two(u32),
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), ParseError> {
    let ten = |exponent| Ok((Scale::Ten(exponent), Format::DecimalSi));
    let two = |bits| Ok((Scale::Two(bits), Format::BinarySi));
    match suffix {
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "" => ten(0),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
            let exponent: i64 = exponent.parse().map_err(|_| ParseError::Suffix)?;
            Ok((Scale::Ten(exponent), Format::DecimalExponent))
        }
    }
}

/// Nano-units of `whole.fraction × 10^exponent`, rounded up, never above [`MAX`].
fn decimal(whole: &str, fraction: &str, exponent: i64) -> i128 {
    let point = (whole.len() as i64).saturating_add(exponent).saturating_add(9);
    let mut total: i128 = 0;
    let mut rest = false;
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = i128::from(digit - b'0');
        if (index as i64) < point {
            total = total.saturating_mul(10).saturating_add(digit);
        } else {
            rest |= digit != 0;
        }
        if total > MAX {
            return MAX;
        }
    }
    let digits = (whole.len() + fraction.len()) as i64;
    if total != 0 {
        for _ in digits..point {
            total = total.saturating_mul(10);
            if total > MAX {
                return MAX;
            }
        }
    }
    total + i128::from(rest)
}

/// Nano-units of `whole.fraction × 2^bits`, rounded up, never above [`MAX`].
fn binary(whole: &str, fraction: &str, bits: u32) -> i128 {
    let whole = decimal(whole, "", 0);
    let mut total = whole.checked_mul(1 << bits).unwrap_or(MAX).min(MAX);
    // A fraction digit's worth is 2^bits × 10^-place; 27 places are exact in i128 with 60 bits to spare for none,
    // so long tails round up as one unit in the last place.
    let places = fraction.len().min(18);
    let (head, tail) = fraction.split_at(places);
    if places > 0 {
        let numerator = head.bytes().fold(0i128, |n, digit| n * 10 + i128::from(digit - b'0'));
        let denominator = 10i128.pow(places as u32);
        let sticky = i128::from(tail.bytes().any(|b| b != b'0'));
        // numerator < 10^18 < 2^60 and 2^bits ≤ 2^60, so the product fits; nano scaling is done on quotient and remainder.
        let scaled = (numerator + sticky) << bits;
        let (quotient, remainder) = (scaled / denominator, scaled % denominator);
        total += quotient * NANO + div_away(remainder * NANO, denominator);
    }
    total.min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let big = self.nanos.abs() >= 1024 * NANO;
        if self.format == Format::BinarySi && big && self.is_integer() {
            let mut mantissa = self.nanos / NANO;
            let mut power = 0;
            while mantissa % 1024 == 0 && power < 6 {
                mantissa /= 1024;
                power += 1;
            }
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(power).copied().unwrap_or_default();
            return write!(f, "{mantissa}{suffix}");
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        write!(f, "{mantissa}")?;
        match (self.format, exponent) {
            (_, 0) => Ok(()),
            (Format::DecimalExponent, _) => write!(f, "e{exponent}"),
            (_, -9) => f.write_str("n"),
            (_, -6) => f.write_str("u"),
            (_, -3) => f.write_str("m"),
            (_, 3) => f.write_str("k"),
            (_, 6) => f.write_str("M"),
            (_, 9) => f.write_str("G"),
            (_, 12) => f.write_str("T"),
            (_, 15) => f.write_str("P"),
            _ => f.write_str("E"),
        }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Stops at the largest quantity; a zero takes the other's format, as upstream.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::clamped(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
