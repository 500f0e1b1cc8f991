//! The processes the runtime starts from its own binary, all single-threaded:
//!
//! * `shim serve <dir>`: one per pod sandbox, in its own session. Parent (subreaper) of the sandbox's containers, keeper of
//!   their stdio, logs and exit codes. Outlives the runtime; a successor adopts the containers when it is killed.
//! * `shim create <container dir>`, `shim exec <container dir> <exec dir>`: call `libcontainer`, which must not run in a
//!   threaded process, and leave `result.json` behind.
//! * `shim pause [<namespaces>]`: process 1 of a pod-wide PID namespace, in the other namespaces of that directory, too;
//!   `shim pause-in <namespaces>` starts one that belongs to the user namespace there, and prints its PID.
//! * `shim enter <descriptor> [<descriptor>]`: becomes a process in a container with a user namespace.
//! * `shim late-mounts <JSON>`: a hook of containers whose mounts `libcontainer` does not make.
//! * `shim userns`: makes a pod's user namespace, and waits.

mod connection;
mod containers;
mod devices;
mod enter;
mod executor;
mod external;
mod files;
mod helper;
pub(crate) mod late;
mod log;
mod pause;
mod pidfd;
mod process;
pub(crate) mod protocol;
mod reactor;
pub(crate) mod seccomp;
pub(crate) mod sys;
mod userns;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

pub(crate) use executor::{SECCOMP_ANNOTATION, SECCOMP_PROFILE_ANNOTATION};
pub(crate) use files::{
    EXIT_FILE, Exit, Launch, LaunchResult, process_start_time, read_json, write_json, write_json_synced, write_synced,
};
pub(crate) use pause::end as end_pause;
pub(crate) use pidfd::exit_code as pidfd_exit_code;
pub(crate) use process::PIPES as STDIO_PIPES;

/// Runs `keelson shim …` with the arguments after `shim`. To be called before any thread or async runtime exists.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let path = |index: usize| args.get(index).map(PathBuf::from);
    let outcome = match (args.first().and_then(|arg| arg.to_str()), path(1), path(2)) {
        (Some("serve"), Some(dir), share_pid) => reactor::serve(dir, share_pid.is_some()),
        (Some("create"), Some(dir), None) => helper::create(&dir),
        (Some("exec"), Some(dir), Some(exec_dir)) => helper::exec(&dir, &exec_dir),
        (Some("pause"), namespaces, None) => pause::pause(namespaces.as_deref()),
        (Some("pause-in"), Some(namespaces), None) => pause::pause_in(&namespaces),
        (Some("late-mounts"), Some(text), None) => late::mount_all(&text),
        (Some("userns"), None, None) => userns::make(),
        (Some("enter"), Some(spec), keeper) => enter::enter(&spec, keeper.as_deref()),
        _ => Err("usage: shim serve DIR [share-pid] | create DIR | exec DIR EXEC_DIR | pause [NAMESPACES] | pause-in NAMESPACES | late-mounts JSON | userns | enter FD [FD]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("shim: {message}");
            ExitCode::FAILURE
        }
    }
}
