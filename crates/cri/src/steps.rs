//! Named steps of a pod's life in kubelet and runtime, at which a test can have processes killed (the runtime's
//! `tests/steps.rs` and the end-to-end test `faults` go through all of them). In release builds there are none.
//!
//! The environment variable `KEELSON_TEST_STEPS` names a directory. A process that comes to the step `x` takes the file `x` out of
//! it, if there is one, and kills whom its text names, separated by spaces: `parent`, process IDs, and last `self`.

#[cfg(debug_assertions)]
const VARIABLE: &str = "KEELSON_TEST_STEPS";

/// Says that this process has come to `step`.
#[cfg(debug_assertions)]
pub fn reached(step: &str) {
    use std::{path::PathBuf, sync::OnceLock};
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(dir) = DIR.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) else { return };
    let taken = dir.join(format!("{step}.reached"));
    if std::fs::rename(dir.join(step), &taken).is_err() {
        return;
    }
    let text = std::fs::read_to_string(&taken).unwrap_or_default();
    for victim in text.split_whitespace() {
        let pid = match victim {
            "self" => Some(rustix::process::getpid()),
            "parent" => rustix::process::getppid(),
            number => number.parse().ok().and_then(rustix::process::Pid::from_raw),
        };
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }
}

#[cfg(not(debug_assertions))]
/// Says that this process has come to `step`.
pub fn reached(_step: &str) {}

/// What children that get no other environment need of it.
#[cfg(debug_assertions)]
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os(VARIABLE).map(|dir| (VARIABLE, dir))
}

#[cfg(not(debug_assertions))]
/// What children that get no other environment need of it.
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    None
}
