//! How a command ended, as the `Status` object that the error stream carries since v4.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::StatusWriter;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0, or an attachment that came to its end.
    Success,
    /// The command ran and exited with another code.
    ExitCode(i32),
    /// It could not be run or attached to.
    Failure(String),
}

impl Outcome {
    /// The `Status` as JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Outcome::Success | Outcome::ExitCode(0) => json!({ "metadata": {}, "status": "Success" }),
            Outcome::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Outcome::Failure(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "InternalError",
                "details": { "causes": [{ "message": message }] },
                "code": 500,
            }),
        }
    }

    /// Reads what an error stream carried. Nothing at all is success; what is no `Status` is an error's text, as it was
    /// before v4.
    pub fn from_bytes(bytes: &[u8]) -> Outcome {
        if bytes.is_empty() {
            return Outcome::Success;
        }
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let Ok(status) = serde_json::from_slice::<Value>(bytes) else { return Outcome::Failure(text()) };
        if status.get("status").and_then(Value::as_str) == Some("Success") {
            return Outcome::Success;
        }
        if status.get("reason").and_then(Value::as_str) == Some("NonZeroExitCode") {
            let causes = status.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
            let code = causes
                .filter(|c| c.get("reason").and_then(Value::as_str) == Some("ExitCode"))
                .find_map(|c| c.get("message")?.as_str()?.parse().ok());
            if let Some(code) = code {
                return Outcome::ExitCode(code);
            }
        }
        Outcome::Failure(status.get("message").and_then(Value::as_str).map_or_else(text, str::to_owned))
    }
}

impl StatusWriter {
    /// Sends how it ended.
    pub async fn send(self, outcome: &Outcome) -> std::io::Result<()> {
        self.send_raw(outcome.to_json().to_string().as_bytes()).await
    }

    /// Sends what another server's error stream carried.
    pub async fn send_raw(mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await?;
        self.0.shutdown().await
    }
}
