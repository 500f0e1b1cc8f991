//! The runtime alone, for tests and for trying it out: `keelson-runtime serve DIR` keeps everything below `DIR`
//! (`root`, `state`, `runtime.sock`, `net.d`, `cni`, `images/<name>`); `keelson-runtime shim …` is what it starts itself.

#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use keelson_runtime::{Config, LOCAL_IMAGE_DOMAIN, Settings, run, shim_main};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next().as_deref().and_then(|arg| arg.to_str()), args.next()) {
        (Some("shim"), first) => shim_main(first.into_iter().chain(args)),
        (Some("serve"), Some(dir)) => serve(Path::new(&dir)),
        _ => {
            eprintln!("usage: keelson-runtime serve DIR");
            ExitCode::from(2)
        }
    }
}

fn serve(dir: &Path) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => {
            eprintln!("keelson-runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let settings = match Settings::read(&dir.join("runtime.toml")) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("keelson-runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let images = std::fs::read_dir(dir.join("images")).into_iter().flatten().flatten();
    let named = |path: PathBuf| Some((format!("{LOCAL_IMAGE_DOMAIN}/{}", path.file_stem()?.to_str()?), path));
    let config = Config {
        root: dir.join("root"),
        state: dir.join("state"),
        socket: dir.join("runtime.sock"),
        cni_conf_dir: dir.join("net.d"),
        cni_bin_dir: dir.join("cni"),
        registry_config_dir: dir.join("certs.d"),
        handlers: settings.handlers,
        pinned_images: settings.pinned_images,
        builtin_images: images.filter_map(|entry| named(entry.path())).collect(),
        ..Config::new(exe)
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("keelson-runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config, CancellationToken::new())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keelson-runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
