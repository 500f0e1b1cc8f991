//! How things are shown: tables, JSON and YAML of CRI's messages, ages and sizes, as Go's libraries write them.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use clap::ValueEnum;
use regex::Regex;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Error, Out};

/// Length of shortened IDs.
const SHORT: usize = 13;
/// Narrowest column, and the space after the widest cell of one.
const MIN_WIDTH: usize = 20;
const PADDING: usize = 3;

/// How a list is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Json,
    Yaml,
    #[default]
    Table,
}

/// Rows whose columns line up.
#[derive(Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self, out: Out<'_>) -> Result<(), Error> {
        let mut text = String::new();
        for row in &self.0 {
            for (index, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < row.len() {
                    let column = self.0.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
                    let width = (column.max().unwrap_or(0) + PADDING).max(MIN_WIDTH);
                    text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
                }
            }
            text.push('\n');
        }
        print(out, &text)
    }
}

pub(crate) fn print(out: Out<'_>, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write the output"))
}

pub(crate) fn line(out: Out<'_>, text: &str) -> Result<(), Error> {
    print(out, &format!("{text}\n"))
}

/// Prints `value` as JSON or YAML.
pub(crate) fn document(out: Out<'_>, value: &Value, output: Output) -> Result<(), Error> {
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value).map_err(|error| Error::Words(error.to_string()))?,
        _ => serde_json::to_string_pretty(value).map_err(|error| Error::Words(error.to_string()))? + "\n",
    };
    print(out, &text)
}

/// What the `inspect` commands print: one object, or an array of several.
pub(crate) fn statuses(out: Out<'_>, mut statuses: Vec<Value>, output: Output) -> Result<(), Error> {
    let value = if statuses.len() == 1 { statuses.remove(0) } else { Value::Array(statuses) };
    document(out, &value, output)
}

/// A status with what the runtime says beside it; that is often JSON itself.
pub(crate) fn status(status: Value, info: HashMap<String, String>) -> Value {
    let mut object = Map::new();
    object.insert("status".into(), status);
    for (key, text) in info {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        object.insert(key, value);
    }
    Value::Object(object)
}

/// A message of CRI as protobuf's JSON: names in camel case, 64-bit numbers as strings, enumerations by name.
pub(crate) fn message(message: &impl Serialize) -> Value {
    convert("", serde_json::to_value(message).unwrap_or_default())
}

/// Numbers of 32 bits, which stay numbers.
const SHORT_NUMBERS: [&str; 7] =
    ["attempt", "exit_code", "container_port", "host_port", "host_id", "container_id", "length"];
/// Fields whose keys are data.
const MAPS: [&str; 4] = ["labels", "annotations", "unified", "sysctls"];

fn convert(field: &str, value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let convert = |(key, value): (String, Value)| {
                if MAPS.contains(&field) { (key, value) } else { (camel(&key), convert(&key, value)) }
            };
            Value::Object(fields.into_iter().map(convert).collect())
        }
        Value::Array(items) => items.into_iter().map(|item| convert(field, item)).collect(),
        Value::Number(number) => match enumeration(field, number.as_i64().unwrap_or(-1)) {
            Some(name) => Value::String(name.into()),
            None if SHORT_NUMBERS.contains(&field) => Value::Number(number),
            None => Value::String(number.to_string()),
        },
        other => other,
    }
}

fn camel(name: &str) -> String {
    let mut upper = false;
    name.chars().fold(String::new(), |mut out, c| {
        match (c, upper) {
            ('_', _) => upper = true,
            (c, true) => {
                out.extend(c.to_uppercase());
                upper = false;
            }
            (c, false) => out.push(c),
        }
        out
    })
}

/// The name of an enumeration's value, by the field's.
fn enumeration(field: &str, value: i64) -> Option<&'static str> {
    use keelson_cri::v1 as cri;
    let value = i32::try_from(value).ok()?;
    Some(match field {
        "network" | "pid" | "ipc" | "mode" => cri::NamespaceMode::try_from(value).ok()?.as_str_name(),
        "propagation" => cri::MountPropagation::try_from(value).ok()?.as_str_name(),
        "supplemental_groups_policy" => cri::SupplementalGroupsPolicy::try_from(value).ok()?.as_str_name(),
        "container_event_type" => cri::ContainerEventType::try_from(value).ok()?.as_str_name(),
        "cgroup_driver" => cri::CgroupDriver::try_from(value).ok()?.as_str_name(),
        "profile_type" => cri::security_profile::ProfileType::try_from(value).ok()?.as_str_name(),
        _ => return None,
    })
}

/// Puts the name of a state into a message, whose type alone says which enumeration it is of.
pub(crate) fn set(value: &mut Value, key: &str, text: impl Into<String>) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.into(), Value::String(text.into()));
    }
}

/// Nanoseconds since the epoch in RFC 3339; zero is Go's zero time.
pub(crate) fn time(ns: i64) -> String {
    match ns {
        0 => "0001-01-01T00:00:00Z".into(),
        _ => jiff::Timestamp::from_nanosecond(ns.into()).map(|time| time.to_string()).unwrap_or_default(),
    }
}

/// How long ago `ns` (since the epoch) was, in words.
pub(crate) fn ago(ns: i64) -> String {
    let now = jiff::Timestamp::now().as_nanosecond() as i64;
    format!("{} ago", human_duration(now.saturating_sub(ns).max(0) / 1_000_000_000))
}

fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        (.., hours) if hours < 24 * 14 => format!("{} days", hours / 24),
        (.., hours) if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        (.., hours) if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        (.., hours) => format!("{} years", hours / 24 / 365),
    }
}

/// A size in units of 1000 bytes, with so many significant digits.
pub(crate) fn human_size(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = format!("{}", value as u64).len();
    let mut text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    let _ = write!(text, "{}", UNITS.get(unit).unwrap_or(&"B"));
    text
}

/// The first characters of an ID, without its algorithm.
pub(crate) fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(SHORT).collect()
}

/// [`short`], unless it is to stay whole.
pub(crate) fn short_unless(whole: bool, id: &str) -> String {
    if whole { id.to_owned() } else { short(id) }
}

/// A duration as Go writes it (`1m30s`, `500ms`), or seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration like 10s or 1m30s");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let units = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(units);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return Err(wrong()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        rest = next;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// `key=value` pairs as a selector.
pub(crate) fn labels(pairs: &[String]) -> Result<HashMap<String, String>, Error> {
    let pair = |pair: &String| {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::Words(format!("{pair:?} is not key=value")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.iter().map(pair).collect()
}

/// A regular expression that nothing is a match for everything.
pub(crate) fn pattern(text: Option<&String>) -> Result<Regex, Error> {
    Regex::new(text.map_or("", String::as_str)).map_err(|error| Error::Words(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("2s", Some(2000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("7", Some(7000)),
            ("", None),
            ("5x", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), words);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, digits, text) in
            [(0, 4, "0B"), (999, 4, "999B"), (1234, 4, "1.234kB"), (2_162_688, 4, "2.163MB"), (1_500_000, 3, "1.5MB")]
        {
            assert_eq!(human_size(bytes, digits), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["a long cell, longer than most".into(), "x".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, format!("A{}B\na long cell, longer than most   x\n", " ".repeat(31)));
    }

    #[test]
    fn messages_are_protobufs_json() {
        use keelson_cri::v1::*;
        let status = ContainerStatus {
            created_at: 5,
            exit_code: 7,
            labels: [("some_key".to_owned(), "v".to_owned())].into(),
            mounts: vec![Mount { host_path: "/p".into(), propagation: 1, ..Default::default() }],
            ..Default::default()
        };
        let value = message(&status);
        assert_eq!(
            (&value["createdAt"], &value["exitCode"], &value["labels"]["some_key"]),
            (&"5".into(), &7.into(), &"v".into())
        );
        assert_eq!(value["mounts"][0]["propagation"], "PROPAGATION_HOST_TO_CONTAINER");
        assert_eq!((&value["mounts"][0]["hostPath"], &value["metadata"]), (&"/p".into(), &Value::Null));
    }
}
