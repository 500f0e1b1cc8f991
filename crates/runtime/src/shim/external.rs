//! Containers of another OCI runtime: its command line instead of calls to `libcontainer`. The runtime's own standard streams
//! are the container's, so what it has to say goes to a log file.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::Command,
};

use super::{
    LaunchResult,
    helper::{STATE, console, container_id, started},
    write_json,
};
use crate::handlers::Handler;

const LOG: &str = "oci.log";
const PID_FILE: &str = "pid";
/// Most of the end of a log that is read for an error, in bytes.
const MAX_LOG_BYTES: u64 = 64 << 10;

/// Creates and starts the container whose bundle is `dir`.
pub(super) fn create(runtime: &Handler, dir: &Path) -> Result<Option<LaunchResult>, String> {
    let id = container_id(dir)?;
    let mut command = command(runtime, dir, dir);
    command.arg("create").arg("--bundle").arg(dir).arg("--pid-file").arg(dir.join(PID_FILE));
    if let Some(console) = console(dir) {
        command.arg("--console-socket").arg(console);
    }
    run(command.arg(&id), dir)?;
    // Noted before it starts: who ends what was half started finds the process from here on.
    let note = |result: &LaunchResult| {
        write_json(&dir.join(LaunchResult::FILE), result).map_err(|error| format!("write the result: {error}"))
    };
    let mut result = started(pid(dir)?)?;
    note(&result)?;
    let mut command = self::command(runtime, dir, dir);
    run(command.arg("start").arg(&id), dir)?;
    if let LaunchResult::Started { begun, .. } = &mut result {
        *begun = true;
    }
    Ok(Some(result))
}

/// Starts the process described by `exec_dir/process.json` in the container of `dir`.
pub(super) fn exec(runtime: &Handler, dir: &Path, exec_dir: &Path) -> Result<Option<LaunchResult>, String> {
    let mut command = command(runtime, dir, exec_dir);
    command.arg("exec").arg("--detach").arg("--process").arg(exec_dir.join("process.json"));
    command.arg("--pid-file").arg(exec_dir.join(PID_FILE));
    if let Some(console) = console(exec_dir) {
        command.arg("--console-socket").arg(console);
    }
    run(command.arg(container_id(dir)?), exec_dir)?;
    let pid = pid(exec_dir)?;
    // The process may be over already; then its start time does not matter either.
    Ok(Some(started(pid).unwrap_or(LaunchResult::Started { pid, start_time: 0, started_at_ns: 0, begun: true })))
}

fn command(runtime: &Handler, dir: &Path, log_dir: &Path) -> Command {
    let mut command = Command::new(&runtime.path);
    command.args(&runtime.args).arg("--root").arg(dir.join(STATE));
    command.arg("--log").arg(log_dir.join(LOG)).args(["--log-format", "json"]);
    // runc looks up helpers, and refuses to start without a place for temporary files.
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn run(command: &mut Command, log_dir: &Path) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("start {:?}: {error}", command.get_program()))?;
    if status.success() {
        return Ok(());
    }
    let words = last_error(&log_dir.join(LOG));
    Err(words.unwrap_or_else(|| format!("{} {status}", Path::new(command.get_program()).display())))
}

/// The message of the log's last error.
fn last_error(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_BYTES))).ok()?;
    let mut text = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = entry.get("level")?.as_str()?;
        matches!(level, "error" | "fatal").then(|| entry.get("msg")?.as_str().map(String::from))?
    })
}

fn pid(dir: &Path) -> Result<i32, String> {
    let path = dir.join(PID_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} holds no PID", path.display()))
}
