//! Durations as Go writes them, timestamps, and their parts in a time zone.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::value::Value;

/// `1h2m3.5s` in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    keelson_api::time::parse_duration(text).ok()
}

const SECOND: i64 = 1_000_000_000;

/// Seconds with as many decimals as needed: `3723.004s`
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / SECOND as u64, nanos.unsigned_abs() % SECOND as u64);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // jiff also reads a space for the T, and more.
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !matches!(bytes.get(10), Some(b'T' | b't')) || text.contains('[') {
        return None;
    }
    in_range(text.parse().ok()?)
}

/// `2006-01-02`
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let date: Date = if text.len() == 10 { text.parse().ok()? } else { return parse_timestamp(text) };
    in_range(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Years 1 to 9999.
pub(crate) fn in_range(timestamp: Timestamp) -> Option<Timestamp> {
    (-62_135_596_800..=253_402_300_799).contains(&timestamp.as_second()).then_some(timestamp)
}

pub(crate) fn format_timestamp(timestamp: Timestamp) -> String {
    timestamp.to_string()
}

pub(super) fn to_duration<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Duration(match args {
        [Value::Duration(nanos)] | [Value::Int(nanos)] => *nanos,
        [Value::String(text)] => parse_duration(text.as_str())
            .ok_or_else(|| Error::new(format!("invalid duration string {:?}", text.as_str())))?,
        _ => return no_overload(),
    }))
}

pub(super) fn to_timestamp<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Timestamp(match args {
        [Value::Timestamp(timestamp)] => *timestamp,
        [Value::Int(seconds)] => {
            Timestamp::from_second(*seconds).ok().and_then(in_range).ok_or_else(|| Error::new("timestamp overflow"))?
        }
        [Value::String(text)] => parse_timestamp(text.as_str())
            .ok_or_else(|| Error::new(format!("invalid timestamp string {:?}", text.as_str())))?,
        _ => return no_overload(),
    }))
}

/// `timestamp + duration`
pub(super) fn shift(timestamp: Timestamp, nanos: i64) -> Result<Timestamp, Error> {
    let shifted = timestamp.checked_add(SignedDuration::from_nanos(nanos)).ok();
    shifted.and_then(in_range).ok_or_else(|| Error::new("timestamp overflow"))
}

/// `timestamp - timestamp`
pub(super) fn between(a: Timestamp, b: Timestamp) -> Result<i64, Error> {
    i64::try_from(a.as_nanosecond() - b.as_nanosecond()).map_err(|_| Error::new("duration overflow"))
}

/// A time zone of the program's own database, read once.
fn named_zone(name: &str) -> Option<TimeZone> {
    static READ: LazyLock<RwLock<HashMap<String, TimeZone>>> = LazyLock::new(Default::default);
    if let Some(zone) = READ.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Some(zone.clone());
    }
    let zone = TimeZone::tzif(name, keelson_api::time::time_zone(name)?).ok()?;
    READ.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), zone.clone());
    Some(zone)
}

fn zone(name: &str) -> Result<TimeZone, Error> {
    let unknown = || Error::new(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return if name.is_empty() || name == "UTC" { Ok(TimeZone::UTC) } else { named_zone(name).ok_or_else(unknown) };
    };
    let hours: i32 = hours.parse().map_err(|_| unknown())?;
    let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
    if hours.abs() > 24 || !(0..60).contains(&minutes) {
        return Err(unknown());
    }
    let minutes = if name.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes };
    Offset::from_seconds(minutes * 60).map(TimeZone::fixed).map_err(|_| unknown())
}

fn civil(args: Args<'_, '_>) -> Result<DateTime, Error> {
    match args {
        [Value::Timestamp(timestamp)] => Ok(TimeZone::UTC.to_datetime(*timestamp)),
        [Value::Timestamp(timestamp), name] => Ok(zone(string_arg(name)?)?.to_datetime(*timestamp)),
        _ => no_overload(),
    }
}

/// A getter of a timestamp, or of a duration when `unit` (nanoseconds) says how to divide it.
macro_rules! getter {
    ($name:ident, $unit:expr, |$time:ident| $part:expr) => {
        pub(super) fn $name<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
            let unit: Option<i64> = $unit;
            if let ([Value::Duration(nanos)], Some(unit)) = (args, unit) {
                return Ok(Value::Int(nanos / unit));
            }
            let $time = civil(args)?;
            Ok(Value::Int(i64::from($part)))
        }
    };
}

getter!(full_year, None, |time| time.year());
getter!(month, None, |time| time.month() - 1);
getter!(day_of_year, None, |time| time.day_of_year() - 1);
getter!(day_of_month, None, |time| time.day() - 1);
getter!(date, None, |time| time.day());
getter!(day_of_week, None, |time| time.weekday().to_sunday_zero_offset());
getter!(hours, Some(3600 * SECOND), |time| time.hour());
getter!(minutes, Some(60 * SECOND), |time| time.minute());
getter!(seconds, Some(SECOND), |time| time.second());

/// Of a duration, only what is below a second.
pub(super) fn milliseconds<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Int(nanos % SECOND / 1_000_000));
    }
    Ok(Value::Int(i64::from(civil(args)?.millisecond())))
}
