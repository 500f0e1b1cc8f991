//! Looks at the sizes of running containers' logs now and then, and has the large ones rotated.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::logs::rotate;
use crate::pod::observed::State;

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ctx.config.container_log_monitor_interval) => {}
            () = shutdown.cancelled() => return,
        }
        for (_, handle) in ctx.pods.all() {
            let observed = handle.observed.borrow().clone();
            for record in observed.containers.iter().filter(|record| record.state == State::Running) {
                let rotated = rotate::rotate_if_large(
                    &ctx.runtime,
                    &record.id,
                    Path::new(&record.log_path),
                    ctx.config.container_log_max_size_bytes,
                    ctx.config.container_log_max_files,
                    keelson_client::clock::now(),
                );
                if let Err(error) = rotated.await {
                    tracing::warn!(container = record.id, %error, "the log is not rotated");
                }
            }
        }
    }
}
