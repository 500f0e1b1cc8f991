//! The two helpers that call `libcontainer`. Their standard streams are the container's; they say how it went in
//! `result.json`, and their children outlive them under the shim, which is the subreaper.

use std::path::{Path, PathBuf};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};

use keelson_cri::steps;

use crate::huge_pages;

use super::{
    Launch, LaunchResult, devices, enter, executor::Filtering, external, late, process_start_time, read_json, sys,
    write_json,
};

/// Directory of the OCI runtime's own state inside a container's directory.
pub(super) const STATE: &str = "lc";
/// Socket on which the shim awaits a terminal's master end.
pub(super) const CONSOLE_SOCKET: &str = "console.sock";

/// Creates and starts the container whose bundle is `dir`.
pub(super) fn create(dir: &Path) -> Result<(), String> {
    let outcome = launch(dir).and_then(|launch| match launch.runtime {
        Some(runtime) => external::create(&runtime, dir),
        None => own_keyring().and_then(|()| create_container(dir, &launch.cgroup)),
    });
    // `libcontainer` only says that a hook failed.
    let outcome = outcome.map_err(|error| late::complaint(dir).map_or(error.clone(), |why| format!("{error}: {why}")));
    finish(dir, outcome)
}

/// Starts the process described by `exec_dir/process.json` in the container of `dir`.
pub(super) fn exec(dir: &Path, exec_dir: &Path) -> Result<(), String> {
    let launch = launch(dir).and_then(|launch| match launch.runtime {
        Some(_) => Ok(launch),
        None => own_keyring().map(|()| launch),
    });
    if let Ok(Launch { runtime: None, first_uid: 1.., cgroup, .. }) = &launch {
        return enter::exec(dir, exec_dir, cgroup);
    }
    let outcome = launch.and_then(|launch| match launch.runtime {
        Some(runtime) => external::exec(&runtime, dir, exec_dir),
        // What is started inherits the group that `libcontainer` does not know.
        None => huge_pages::join(&launch.cgroup).and_then(|()| exec_process(dir, exec_dir)),
    });
    finish(exec_dir, outcome)
}

/// Keys that whoever started the node's processes holds are not the container's.
fn own_keyring() -> Result<(), String> {
    sys::join_session_keyring().map_err(|error| format!("join a session keyring: {error}"))
}

/// How the container of `dir` was started.
fn launch(dir: &Path) -> Result<Launch, String> {
    let launch = read_json::<Launch>(&dir.join(Launch::FILE)).map_err(|error| format!("read the launch: {error}"))?;
    launch.ok_or_else(|| format!("{} is no container's", dir.display()))
}

fn finish(dir: &Path, outcome: Result<Option<LaunchResult>, String>) -> Result<(), String> {
    let result = match outcome {
        Ok(None) => return Ok(()),
        Ok(Some(result)) => result,
        Err(message) => LaunchResult::Failed { message },
    };
    write_json(&dir.join(LaunchResult::FILE), &result).map_err(|error| format!("write the result: {error}"))
}

fn create_container(dir: &Path, group: &Path) -> Result<Option<LaunchResult>, String> {
    steps::reached("helper-began");
    let state = dir.join(STATE);
    std::fs::create_dir_all(&state).map_err(|error| format!("make {}: {error}", state.display()))?;
    let mut container = ContainerBuilder::new(container_id(dir)?, SyscallType::default())
        .with_root_path(state)
        .and_then(ContainerBuilder::validate_id)
        .map_err(words)?
        .with_console_socket(console(dir))
        .with_executor(Filtering)
        .as_init(dir)
        .with_systemd(false)
        .build()
        .map_err(words)?;
    let pid = container.pid().ok_or("the container has no process")?.as_raw();
    steps::reached("helper-created");
    devices::confine(dir, group)?;
    let spec: serde_json::Value = read_json(&dir.join("config.json"))
        .map_err(|error| format!("read the specification: {error}"))?
        .unwrap_or_default();
    if let Some(limits) = spec.pointer("/annotations").and_then(|all| all.get(huge_pages::ANNOTATION)?.as_str()) {
        huge_pages::confine(group, limits, pid)?;
    }
    // Noted before it starts: who ends what was half started finds the process from here on.
    let note = |result: &LaunchResult| {
        write_json(&dir.join(LaunchResult::FILE), result).map_err(|error| format!("write the result: {error}"))
    };
    let mut result = started(pid)?;
    note(&result)?;
    steps::reached("helper-noted");
    container.start().map_err(words)?;
    steps::reached("helper-started");
    if let LaunchResult::Started { begun, .. } = &mut result {
        *begun = true;
    }
    // From here on a successor of a killed shim takes the process over.
    note(&result)?;
    steps::reached("helper-done");
    Ok(None)
}

fn exec_process(dir: &Path, exec_dir: &Path) -> Result<Option<LaunchResult>, String> {
    let id = container_id(dir)?;
    // A root of its own keeps the sockets `libcontainer` leaves behind in a directory that goes away with the exec.
    let root = exec_dir.join(STATE);
    let container = root.join(&id);
    std::fs::create_dir_all(&container).map_err(|error| format!("make {}: {error}", container.display()))?;
    std::os::unix::fs::symlink(dir.join(STATE).join(&id).join("state.json"), container.join("state.json"))
        .map_err(|error| format!("link the container's state: {error}"))?;
    let console = console(exec_dir);
    let pid = ContainerBuilder::new(id, SyscallType::default())
        .with_root_path(root)
        .map_err(words)?
        .with_console_socket(console.clone())
        .with_executor(Filtering)
        .as_tenant()
        .with_process(Some(exec_dir.join("process.json")))
        .with_detach(console.is_some())
        .build()
        .map_err(words)?;
    // The process may be over already; then its start time does not matter either.
    Ok(Some(started(pid.as_raw()).unwrap_or(LaunchResult::Started {
        pid: pid.as_raw(),
        start_time: 0,
        started_at_ns: 0,
        begun: true,
    })))
}

pub(super) fn started(pid: i32) -> Result<LaunchResult, String> {
    let start_time = process_start_time(pid).ok_or("the container's first process ended before it was started")?;
    let started_at_ns = jiff::Timestamp::now().as_nanosecond() as i64;
    Ok(LaunchResult::Started { pid, start_time, started_at_ns, begun: false })
}

pub(super) fn container_id(dir: &Path) -> Result<String, String> {
    let name = dir.file_name().and_then(|name| name.to_str());
    name.map(String::from).ok_or_else(|| format!("{} names no container", dir.display()))
}

/// The console socket, which exists only for a process with a terminal.
pub(super) fn console(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(CONSOLE_SOCKET)).filter(|path| path.exists())
}

/// An error with all its causes, outermost first, without saying anything twice.
fn words(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}
