//! The format of a cron job's schedule: five fields, or a descriptor such as `@daily`. Errors are in the words of the
//! parser that upstream uses.

use crate::time::{parse_duration, time_zone};

#[cfg(test)]
mod tests;

/// A field's least and greatest value, and names for values from the least on.
struct Bounds(i64, i64, &'static [&'static str]);

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] =
    [Bounds(0, 59, &[]), Bounds(0, 23, &[]), Bounds(1, 31, &[]), Bounds(1, 12, &MONTHS), Bounds(0, 6, &DAYS)];

/// Whether the schedule can be read.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (zone, after) = text.split_once(' ').ok_or("no schedule after the time zone")?;
        let name = zone.split_once('=').map_or("", |(_, name)| name);
        if !name.is_empty() && name != "Local" && time_zone(name).is_none() {
            return Err(format!("provided bad location {name}: unknown time zone {name}"));
        }
        rest = after.trim();
    }
    if rest.is_empty() {
        return Err("empty spec string".into());
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<_> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(()),
        _ => match text.strip_prefix("@every ") {
            Some(every) => match parse_duration(every) {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("failed to parse duration {text}: {error}")),
            },
            None => Err(format!("unrecognized descriptor: {text}")),
        },
    }
}

fn range(text: &str, Bounds(min, max, names): &Bounds) -> Result<(), String> {
    let number = |text: &str| match names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        Some(index) => Ok(min + index as i64),
        None => integer(text),
    };
    let parts: Vec<_> = text.split('/').collect();
    let ends: Vec<_> = parts.first().copied().unwrap_or_default().split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (*min, *max),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            // `5/15` is `5-max/15`.
            if ends.len() == 1 {
                end = *max;
            }
            integer(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < *min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > *max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 { Err(format!("step of range should be a positive number: {text}")) } else { Ok(()) }
}

fn integer(text: &str) -> Result<i64, String> {
    let failed = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => Ok(n),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => Err(failed("value out of range")),
        Err(_) => Err(failed("invalid syntax")),
    }
}
