//! Follows the configuration file: once a minute, as upstream. What cannot be used is reported and leaves things as they are.

use std::sync::Arc;
use std::time::Duration;

use super::EncryptionFile;
use crate::core::Core;

const EVERY: Duration = Duration::from_secs(60);

/// Runs until the server stops.
pub(crate) async fn run(core: Arc<Core>, file: EncryptionFile) {
    // What was read at the start may have been older than what is there now: the first round reads it again.
    let mut used = String::new();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let outcome = match tokio::fs::read_to_string(&file.path).await {
            Ok(text) if text == used => continue,
            Ok(text) => core.encryption.configure(&text).map(|()| used = text),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(path = %file.path.display(), "the encryption configuration was loaded");
                // What could not be read may be readable now.
                if core.cache.all().iter().any(|cache| cache.has_unreadable()) {
                    core.cache.reload();
                }
            }
            Err(why) => tracing::error!(why, path = %file.path.display(), "the encryption configuration is not usable"),
        }
    }
}
