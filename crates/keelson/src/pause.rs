//! `keelson pause`, the program in `keelson.local/pause`: keeps a pod's namespaces while its containers come and go. As
//! PID 1 of a shared PID namespace it reaps orphans, and it ends when it is asked to. No threads, no heap to speak of.

use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Waits for SIGTERM or SIGINT.
pub(crate) fn main() -> ExitCode {
    match pause() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pause: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pause() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGCHLD {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
    Ok(())
}
