//! Calls to a running runtime that CRI has no words for: loading images from archives.

use std::path::Path;

use crate::Error;

/// Loads the images of `source` (an OCI layout directory or tar, or a `docker save` tar, plain or gzip) into the runtime
/// behind `socket`; returns their names. The bytes travel over the socket, so client and runtime need not share a mount
/// namespace.
pub async fn import_images(socket: &Path, source: &Path) -> Result<Vec<String>, Error> {
    Err(Error::Unsupported(format!("loading {} into {}: not built yet", source.display(), socket.display())))
}
