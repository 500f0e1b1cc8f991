//! The `keelson` binary: which program it is (by the name it is called by, or by its first argument), and nothing else.
//! Programs that must run without threads come first, before any async runtime exists.

#![forbid(unsafe_code)]

mod agent;
mod bench;
mod cli;
mod containerd;
mod hello;
mod logging;
mod pause;
mod server;
mod signals;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let called_as = args.first().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str()).unwrap_or_default();
    let command = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    match (called_as, command) {
        ("keelson-cni" | "loopback", _) | (_, "cni") => cli::cni(),
        ("crictl", _) => cli::crictl_main(),
        (_, "shim") => keelson_runtime::shim_main(args.into_iter().skip(2)),
        (_, "node-init") => cli::node_init(args.get(2..).unwrap_or_default()),
        (_, containerd::CHILD) => containerd::child(args.get(2..).unwrap_or_default()),
        (_, "pause") => pause::main(),
        (_, "hello") => {
            let args: Vec<String> = args.iter().skip(2).map(|a| a.to_string_lossy().into_owned()).collect();
            hello::main(&args)
        }
        _ => cli::main(),
    }
}
