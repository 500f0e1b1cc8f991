//! Entry of the processes the runtime starts from its own binary.

use std::{ffi::OsString, process::ExitCode};

/// Runs `keelson shim …` with the arguments after `shim`. To be called before any thread or async runtime exists.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = args.into_iter().count();
    eprintln!("keelson shim: not built yet");
    ExitCode::from(2)
}
