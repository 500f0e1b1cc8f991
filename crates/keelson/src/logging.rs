//! Where components' log lines go: to stderr, filtered by `KEELSON_LOG` (as `tracing`'s `EnvFilter` reads it).

use tracing_subscriber::EnvFilter;

/// Sets up logging for a component that runs until it is stopped.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env("KEELSON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
