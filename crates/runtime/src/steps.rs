//! Named steps of a pod's life, at which a test can have processes killed (`tests/steps.rs` goes through all of them). In
//! release builds there are none.
//!
//! The environment variable [`VARIABLE`] names a directory. A process that comes to the step `x` takes the file `x` out of
//! it, if there is one, and kills whom its text names, separated by spaces: `parent`, process IDs, and last `self`.

/// Names the directory; handed on to shims and helpers.
pub(crate) const VARIABLE: &str = "KEELSON_TEST_STEPS";

/// Says that this process has come to `step`.
#[cfg(debug_assertions)]
pub(crate) fn reached(step: &str) {
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
pub(crate) fn reached(_step: &str) {}

/// What children that get no other environment need of it.
pub(crate) fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    if cfg!(debug_assertions) { std::env::var_os(VARIABLE).map(|dir| (VARIABLE, dir)) } else { None }
}
