//! Programs that others start: a node's init, and the CNI plugin that the container runtime calls.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use keelson_cluster::init;

/// `keelson node-init --stage N FILE`, see [`keelson_cluster::init`].
pub(crate) fn node_init(args: &[OsString]) -> ExitCode {
    let result = match args {
        [flag, stage, file] if flag == "--stage" && stage == "1" => init::stage_one(Path::new(file)),
        [flag, stage, file] if flag == "--stage" && stage == "2" => init::stage_two(Path::new(file)),
        _ => {
            eprintln!("error: node-init is started by `keelson up`");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `keelson-cni`: the CNI plugin, configured by its environment and stdin as the CNI specification says.
pub(crate) fn cni() -> ExitCode {
    let mut stdin = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut stdin) {
        eprintln!("reading the network configuration: {error}");
        return ExitCode::FAILURE;
    }
    let (stdout, code) = keelson_cni::main(|name| std::env::var(name).ok(), &stdin);
    let written = std::io::stdout().write_all(stdout.as_bytes());
    if code == 0 && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
