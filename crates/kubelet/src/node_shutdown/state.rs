//! When the last graceful shutdown began and ended, told by metrics after the machine is back. Upstream's file.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::managers::state_file::write_whole;

const NAME: &str = "graceful_node_shutdown_state";
/// How Go writes a time that is none.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The longest file that is read, bytes.
const LIMIT: u64 = 4096;

/// Times in RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    start_time: String,
    end_time: String,
}

impl State {
    pub(super) fn new(start: Timestamp, end: Option<Timestamp>) -> State {
        State { start_time: start.to_string(), end_time: end.map_or(NEVER.into(), |end| end.to_string()) }
    }

    /// Seconds since 1970; 0 when there was none.
    pub(super) fn start_seconds(&self) -> i64 {
        seconds(&self.start_time)
    }

    /// Seconds since 1970; 0 when it has not ended.
    pub(super) fn end_seconds(&self) -> i64 {
        seconds(&self.end_time)
    }
}

fn seconds(time: &str) -> i64 {
    time.parse().map_or(0, |time: Timestamp| time.as_second().max(0))
}

/// Writes the file of `dir` anew.
pub(super) fn store(dir: &Path, state: &State) -> Result<(), Error> {
    let text = serde_json::to_vec(state).map_err(|error| Error::message(error.to_string()))?;
    write_whole(&dir.join(NAME), &text)
}

/// What the file of `dir` says; without one, that there was none.
pub(super) fn load(dir: &Path) -> Result<State, Error> {
    use std::io::Read;
    let path = dir.join(NAME);
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(State { start_time: NEVER.into(), end_time: NEVER.into() });
        }
        file => file.map_err(Error::file("open", &path))?,
    };
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text).map_err(Error::file("read", &path))?;
    serde_json::from_str(&text).map_err(|error| Error::message(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let none = load(dir.path()).unwrap();
        assert_eq!((none.start_seconds(), none.end_seconds()), (0, 0));
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        store(dir.path(), &State::new(start, None)).unwrap();
        let begun = load(dir.path()).unwrap();
        assert_eq!((begun.start_seconds(), begun.end_seconds()), (1_700_000_000, 0));
        store(dir.path(), &State::new(start, Timestamp::from_second(1_700_000_030).ok())).unwrap();
        assert_eq!(load(dir.path()).unwrap().end_seconds(), 1_700_000_030);
        // As Go writes it.
        let text = r#"{"startTime":"2026-01-02T03:04:05.123456789+01:00","endTime":"0001-01-01T00:00:00Z"}"#;
        std::fs::write(dir.path().join(NAME), text).unwrap();
        let read = load(dir.path()).unwrap();
        assert_eq!((read.start_seconds(), read.end_seconds()), (1_767_319_445, 0));
        std::fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(load(dir.path()).is_err());
    }
}
