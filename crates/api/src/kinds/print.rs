//! What printer columns are made of: ages, joins, counts, containers and images.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::Column;
use crate::selector::LabelSelector;

#[cfg(test)]
mod tests;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// A duration as upstream's tables show it: two units while they matter, `5m10s`, `3h`, `2d4h`, `1y20d`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks may differ by a little.
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// Time since an RFC 3339 string, or `<unknown>`.
pub(super) fn since(time: &Value, now: Timestamp) -> String {
    match time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(then) => human_duration(now.as_second() - then.as_second()),
        None => UNKNOWN.into(),
    }
}

/// The `Age` column.
pub(super) fn age() -> Column {
    Column::string("Age", "Time since the object was made.", |object, now| {
        since(&object["metadata"]["creationTimestamp"], now).into()
    })
}

/// The `Created At` column.
pub(super) fn created_at() -> Column {
    Column::string("Created At", "When the object was made.", |object, _| {
        object["metadata"]["creationTimestamp"].as_str().unwrap_or(UNKNOWN).into()
    })
    .typed("date")
}

/// The string, or `<none>`.
pub(super) fn or_none(value: &Value) -> Value {
    or(value, NONE)
}

pub(super) fn or(value: &Value, missing: &str) -> Value {
    match value.as_str() {
        None | Some("") => missing.into(),
        Some(text) => text.into(),
    }
}

/// The number, or 0.
pub(super) fn count(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or(0))
}

/// How many entries a map or list has.
pub(super) fn size(value: &Value) -> usize {
    value.as_object().map(serde_json::Map::len).or_else(|| value.as_array().map(Vec::len)).unwrap_or(0)
}

/// A `LabelSelector` as text: `app=web,tier in (a,b)`.
pub(super) fn selector_text(selector: &Value) -> String {
    LabelSelector::from_json(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default()
}

/// A plain label map as text: `app=web,tier=front`.
pub(super) fn labels_text(labels: &Value) -> String {
    LabelSelector::exact(labels).map(|selector| selector.to_string()).unwrap_or_default()
}

/// A label map as text, or `<none>`.
pub(super) fn label_map(value: &Value) -> Value {
    let text = labels_text(value);
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// `field` of each element, with commas.
pub(super) fn join<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for text in texts {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{text}");
    }
    out
}

pub(super) fn items(value: &Value) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// One field of each of a pod spec's containers, with commas.
pub(super) fn containers(spec: &Value, field: &str) -> Value {
    join(items(&spec["containers"]).map(|c| c[field].as_str().unwrap_or_default())).into()
}

/// `Containers`, `Images` and `Selector` of something with a pod template.
pub(super) fn workload_columns() -> [Column; 3] {
    [
        Column::string("Containers", "Names of each container in the template.", |object, _| {
            containers(&object["spec"]["template"]["spec"], "name")
        })
        .wide(),
        Column::string("Images", "Images referenced by each container in the template.", |object, _| {
            containers(&object["spec"]["template"]["spec"], "image")
        })
        .wide(),
        Column::string(
            "Selector",
            "The label selector of the pods that belong to it.",
            |object, _| match selector_text(&object["spec"]["selector"]) {
                text if text.is_empty() => NONE.into(),
                text => text.into(),
            },
        )
        .wide(),
    ]
}

/// At most three of a list, and how many more there are.
pub(super) fn first_three(all: &[String]) -> String {
    let shown = join(all.iter().take(3).map(String::as_str));
    if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown }
}
