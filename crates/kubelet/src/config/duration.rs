//! Durations as `KubeletConfiguration` has them: Go's text, `1m30s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nanos = keelson_api::time::parse_duration(&text).map_err(serde::de::Error::custom)?;
        let nanos = u64::try_from(nanos).map_err(|_| serde::de::Error::custom("must not be negative"))?;
        Ok(GoDuration(Duration::from_nanos(nanos)))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

/// As Go prints it: `1m30s`, `500ms`.
pub(crate) fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        return "0s".into();
    }
    if seconds == 0 {
        let micros = duration.as_nanos() as f64 / 1e3;
        return if micros >= 1e3 { format!("{}ms", micros / 1e3) } else { format!("{micros}µs") };
    }
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    let rest = (seconds % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (read, written) in
            [("90s", "1m30s"), ("1h", "1h0m0s"), ("250ms", "250ms"), ("0s", "0s"), ("1.5s", "1.5s"), ("10us", "10µs")]
        {
            let parsed: GoDuration = serde_json::from_value(read.into()).unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), written, "{read}");
        }
        for bad in ["-1s", "5", "x"] {
            assert!(serde_json::from_value::<GoDuration>(bad.into()).is_err(), "{bad}");
        }
    }
}
