//! Pulls images from registries: manifest, configuration and layers into the store, digests checked on the way.

mod auth;
mod http;

use std::sync::Arc;

use futures::{TryStreamExt, stream};
use keelson_cri::v1::AuthConfig;

use self::http::Session;
use super::{
    Image, Reference,
    manifest::{Descriptor, Manifest},
    store::{MAX_DOCUMENT_BYTES, digest_of, parse},
};
use crate::{Error, core::Core};

/// Layers fetched at once; containerd's default.
const CONCURRENT_DOWNLOADS: usize = 3;

/// Pulls `reference`. The error is in containerd's words, the registry's own at the end.
pub(crate) async fn pull(core: &Arc<Core>, reference: &Reference, auth: AuthConfig) -> Result<Arc<Image>, Error> {
    let outcome = try_pull(core, reference, auth).await;
    let words = |why: String| format!("failed to pull and unpack image \"{reference}\": {why}");
    outcome.map_err(|error| match error {
        Error::ImageNotFound(why) => Error::ImageNotFound(words(why)),
        Error::Unauthorized(why) => Error::Unauthorized(words(why)),
        Error::Invalid(why) => Error::Invalid(words(why)),
        other => Error::Other(words(other.to_string())),
    })
}

async fn try_pull(core: &Arc<Core>, reference: &Reference, auth: AuthConfig) -> Result<Arc<Image>, Error> {
    if reference.registry.is_empty() {
        return Err(Error::ImageNotFound(format!(
            "failed to resolve reference \"{reference}\": the name has no registry and no default one is configured: not found"
        )));
    }
    let _growing = core.images.grow().await;
    let session = Session::new(&core.config, reference, auth);
    let unresolved = |error: Error| match error {
        Error::ImageNotFound(why) => {
            Error::ImageNotFound(format!("failed to resolve reference \"{reference}\": {reference}: not found{why}"))
        }
        Error::Unauthorized(why) => Error::Unauthorized(format!("failed to resolve reference \"{reference}\": {why}")),
        other => Error::Other(format!("failed to resolve reference \"{reference}\": {other}")),
    };
    let (top, mut document) = manifest(core, &session, reference.manifest_key()).await.map_err(unresolved)?;
    let mut digest = top.clone();
    if !document.manifests.is_empty() {
        let machine = document.for_this_machine().cloned().ok_or_else(|| {
            Error::ImageNotFound(format!("no match for platform linux/{}: not found", std::env::consts::ARCH))
        })?;
        (digest, document) = manifest(core, &session, &machine.digest).await?;
    }
    let config =
        document.config.clone().ok_or_else(|| Error::Invalid("the image's manifest is of an old kind".into()))?;
    let blobs: Vec<Descriptor> = std::iter::once(config).chain(document.layers).collect();
    let session = &session;
    let fetch_one = |blob| async move { fetch(core, session, &blob).await };
    stream::iter(blobs.into_iter().map(Ok)).try_for_each_concurrent(CONCURRENT_DOWNLOADS, fetch_one).await?;
    let names: Vec<String> = reference.digest.is_none().then(|| reference.to_string()).into_iter().collect();
    let digests = [format!("{}@{top}", reference.name())];
    let core = core.clone();
    let add = tokio::task::spawn_blocking(move || core.images.add(&digest, &names, &digests));
    add.await.map_err(|error| Error::Other(error.to_string()))?
}

/// Fetches a manifest or index by tag or digest and keeps it; its digest and contents.
async fn manifest(core: &Core, session: &Session, key: &str) -> Result<(String, Manifest), Error> {
    let response = session.get(&format!("manifests/{key}"), true).await?;
    let bytes = http::body(response, MAX_DOCUMENT_BYTES).await?;
    let digest = digest_of(&bytes);
    if key.contains(':') && key != digest {
        return Err(Error::Other(format!("unexpected content: expected digest {key}, got {digest}")));
    }
    let document = parse("manifest", &digest, &bytes)?;
    core.images.put_blob(&bytes)?;
    Ok((digest, document))
}

/// Fetches one blob unless it is here.
async fn fetch(core: &Core, session: &Session, blob: &Descriptor) -> Result<(), Error> {
    let Some(mut writer) = core.images.blob_writer(&blob.digest)? else { return Ok(()) };
    let response = session.get(&format!("blobs/{}", blob.digest), false).await.map_err(|error| match error {
        Error::ImageNotFound(why) => Error::ImageNotFound(format!("blob {}: not found{why}", blob.digest)),
        other => other,
    })?;
    let mut body = http::Chunks::new(response);
    while let Some(chunk) = body.next().await? {
        writer.write(&chunk)?;
        if writer.written() > blob.size {
            return Err(Error::Other(format!("blob {} is longer than its {} bytes", blob.digest, blob.size)));
        }
    }
    writer.finish()
}
