//! Composition of the runtime: recovers what a previous process left, then serves CRI on the socket.

use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// Serves CRI v1 on `config.socket` until `shutdown`. Containers go on running afterwards, under their shims.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    drop(shutdown);
    Err(Error::Unsupported(format!("serving {}: not built yet", config.socket.display())))
}
