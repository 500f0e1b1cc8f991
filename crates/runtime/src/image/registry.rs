//! Pulls images from registries: manifest, configuration and layers into the store, digests checked on the way.

mod auth;
mod hosts;
mod http;

use std::sync::Arc;

use futures::{TryStreamExt, stream};
use keelson_cri::v1::AuthConfig;

use self::http::Session;
use super::{
    Image, Reference,
    manifest::{Descriptor, Manifest},
    store::{BlobWriter, MAX_DOCUMENT_BYTES, digest_of, parse},
};
use crate::{Error, core::Core};

/// Layers fetched at once; containerd's default.
const CONCURRENT_DOWNLOADS: usize = 3;
/// How deep an index may nest.
const MAX_INDEX_DEPTH: usize = 4;
/// How often a blob is asked for without a byte of it coming.
const ATTEMPTS: u32 = 3;

/// Pulls `reference`. The error is in containerd's words, the registry's own at the end.
pub(crate) async fn pull(core: &Arc<Core>, reference: &Reference, auth: AuthConfig) -> Result<Arc<Image>, Error> {
    let outcome = try_pull(core, reference, auth).await;
    if let Err(Error::Io { source, .. }) = &outcome
        && source.kind() == std::io::ErrorKind::StorageFull
    {
        // What was fetched in vain would keep the disk full.
        let core = core.clone();
        let reclaim = move || core.images.reclaim(|| core.layers_in_use(), true);
        let _ = tokio::task::spawn_blocking(reclaim).await;
    }
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
    let hosts = hosts::hosts(&core.config, &reference.registry)?;
    let sessions: Vec<Session> =
        hosts.into_iter().map(|host| Session::new(&core.config, host, reference, &auth)).collect();
    let unresolved = |error: Error| match error {
        Error::ImageNotFound(why) => {
            Error::ImageNotFound(format!("failed to resolve reference \"{reference}\": {reference}: not found{why}"))
        }
        Error::Unauthorized(why) => Error::Unauthorized(format!("failed to resolve reference \"{reference}\": {why}")),
        other => Error::Other(format!("failed to resolve reference \"{reference}\": {other}")),
    };
    let by_digest = reference.digest.is_some();
    let resolvers = sessions.iter().filter(|session| if by_digest { session.host.pull } else { session.host.resolve });
    let found = manifest(core, resolvers, reference.manifest_key()).await.map_err(unresolved)?;
    let (top, mut document) = found;
    // Once more: an index of indexes is allowed, if hardly ever seen.
    let mut digest = top.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        if document.manifests.is_empty() {
            break;
        }
        let machine = document.for_this_machine().cloned().ok_or_else(|| {
            Error::ImageNotFound(format!("no match for platform linux/{}: not found", std::env::consts::ARCH))
        })?;
        let pullers = sessions.iter().filter(|session| session.host.pull);
        (digest, document) = manifest(core, pullers, &machine.digest).await?;
    }
    let config =
        document.config.clone().ok_or_else(|| Error::Invalid("the image's manifest is of an old kind".into()))?;
    let blobs: Vec<Descriptor> = std::iter::once(config).chain(document.layers).collect();
    let sessions = &sessions;
    let fetch_one = |blob| async move { fetch(core, sessions, &blob).await };
    stream::iter(blobs.into_iter().map(Ok)).try_for_each_concurrent(CONCURRENT_DOWNLOADS, fetch_one).await?;
    let names: Vec<String> = reference.digest.is_none().then(|| reference.to_string()).into_iter().collect();
    let digests = [format!("{}@{top}", reference.name())];
    let core = core.clone();
    let add = tokio::task::spawn_blocking(move || core.images.add(&digest, &names, &digests));
    add.await.map_err(|error| Error::Other(error.to_string()))?
}

/// Fetches a manifest or index by tag or digest, from the first host that has it, and keeps it; its digest and contents.
async fn manifest<'a>(
    core: &Core,
    sessions: impl Iterator<Item = &'a Session>,
    key: &str,
) -> Result<(String, Manifest), Error> {
    let mut failure = Error::Other("no host is configured that could be asked".into());
    for session in sessions {
        match manifest_from(core, session, key).await {
            Ok(found) => return Ok(found),
            Err(error) => {
                tracing::debug!(host = %session.host.base, key, %error, "a manifest is not to be had");
                failure = error;
            }
        }
    }
    Err(failure)
}

async fn manifest_from(core: &Core, session: &Session, key: &str) -> Result<(String, Manifest), Error> {
    let response = session.manifest(key).await?;
    let bytes = http::body(response, MAX_DOCUMENT_BYTES).await?;
    let digest = digest_of(&bytes);
    if key.contains(':') && key != digest {
        return Err(Error::Other(format!("unexpected content: expected digest {key}, got {digest}")));
    }
    let document = parse("manifest", &digest, &bytes)?;
    core.images.put_blob(&bytes)?;
    Ok((digest, document))
}

/// Fetches one blob unless it is here. Who wants the same one meanwhile waits; a connection that breaks is taken up where it
/// broke, by this call or the next.
async fn fetch(core: &Arc<Core>, sessions: &[Session], blob: &Descriptor) -> Result<(), Error> {
    let _turn = core.images.turn(&blob.digest).await;
    let (store, digest) = (core.clone(), blob.digest.clone());
    let open = tokio::task::spawn_blocking(move || store.images.resume_blob(&digest));
    let Some(mut writer) = open.await.map_err(|error| Error::Other(error.to_string()))?? else { return Ok(()) };
    let mut failure = Error::Other("no host is configured that could be asked".into());
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        attempts += 1;
        for session in sessions.iter().filter(|session| session.host.pull) {
            let before = writer.written();
            match fetch_from(session, &mut writer, blob).await {
                Ok(()) => return writer.finish(Some(blob.size)),
                // Neither the disk nor a blob that is too long changes by asking again.
                Err(error @ (Error::Io { .. } | Error::Invalid(_))) => return Err(error),
                Err(error) => {
                    tracing::debug!(host = %session.host.base, blob = %blob.digest, %error, "a blob did not come");
                    if writer.written() > before {
                        attempts = 0;
                    } else if matches!(error, Error::ImageNotFound(_) | Error::Unauthorized(_)) {
                        // So it will be next time; other hosts may differ.
                        attempts = attempts.max(ATTEMPTS);
                    }
                    failure = error;
                }
            }
        }
    }
    Err(match failure {
        Error::ImageNotFound(why) => Error::ImageNotFound(format!("blob {}: not found{why}", blob.digest)),
        other => other,
    })
}

async fn fetch_from(session: &Session, writer: &mut BlobWriter, blob: &Descriptor) -> Result<(), Error> {
    let too_long = || Error::Invalid(format!("blob {} is longer than its {} bytes", blob.digest, blob.size));
    if writer.written() > blob.size {
        writer.restart()?;
    }
    if writer.written() == blob.size && blob.size > 0 {
        return Ok(());
    }
    let (response, resumed) = session.blob(&blob.digest, writer.written()).await?;
    if !resumed {
        writer.restart()?;
    }
    let mut body = http::Chunks::new(response);
    while let Some(chunk) = body.next().await? {
        if writer.written() + chunk.len() as u64 > blob.size {
            writer.restart()?;
            return Err(too_long());
        }
        writer.write(&chunk)?;
    }
    Ok(())
}
