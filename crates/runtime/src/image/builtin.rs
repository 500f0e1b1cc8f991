//! Puts the images of `keelson.local` into the store when they are asked for: those that hold nothing but this very
//! binary ([`super::local`]), and archives that the configuration names.

use std::{io, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use super::{
    archive, local,
    reference::Reference,
    store::{Image, Store, hex},
};
use crate::{Config, Error, LOCAL_IMAGE_DOMAIN};

/// The image `reference` of the local domain, made or imported if need be.
pub(crate) fn provide(store: &Store, config: &Config, reference: &Reference) -> Result<Arc<Image>, Error> {
    let name = reference.to_string();
    if reference.digest.is_none()
        && let Some(program) = local::program(&reference.repository)
    {
        return own(store, &config.exe, reference, program);
    }
    if let Some(image) = store.find(&name) {
        return Ok(image);
    }
    if let Some(source) = config.builtin_images.get(&reference.name()) {
        archive::import(store, source, Some(&name))?;
        // The archive may carry a name of its own; the image answers to the one asked for as well.
        let imported =
            store.list().into_iter().find(|image| image.names.iter().any(|n| n.starts_with(&reference.name())));
        if let Some(image) = store.find(&name).or(imported) {
            return store.insert(image.as_ref().clone(), &[name], &[]);
        }
    }
    let own = local::PROGRAMS.iter().map(|program| format!("{LOCAL_IMAGE_DOMAIN}/{program}"));
    let names: Vec<String> = config.builtin_images.keys().cloned().chain(own).collect();
    Err(Error::ImageNotFound(format!("{name}: not found: this runtime itself provides {}", names.join(", "))))
}

/// An image of our own binary. Its identity follows the binary's, so a new binary is a new image.
fn own(store: &Store, exe: &Path, reference: &Reference, program: &str) -> Result<Arc<Image>, Error> {
    let binary = std::fs::metadata(exe).map_err(Error::io("inspect", exe))?;
    let fingerprint = format!("{}:{}:{}:{}", binary.ino(), binary.len(), binary.mtime(), binary.mtime_nsec());
    let layer = hex(&Sha256::digest(format!("{LOCAL_IMAGE_DOMAIN} {fingerprint}")));
    let tag = reference.tag.as_deref().unwrap_or("latest");
    // The layer is never packed, only laid out; the digest stands for what it would be.
    let documents = local::Documents::new(program, tag, &format!("sha256:{layer}"), binary.len())?;
    let name = reference.to_string();
    if let Some(image) = store.find(&documents.config_digest).filter(|image| image.names.contains(&name)) {
        return Ok(image);
    }
    let _growing = store.grow_blocking();
    if !store.layer_dir(&layer).exists() {
        make_layer(store, exe, &layer).map_err(Error::io("make the file system of", &name))?;
    }
    let config_blob = store.put_blob(&documents.config)?;
    let manifest = store.put_blob(&documents.manifest)?;
    let digests = [format!("{}@{manifest}", reference.name())];
    let image = Image {
        id: documents.config_digest,
        names: Default::default(),
        digests: Default::default(),
        blobs: vec![manifest.clone(), config_blob],
        manifest,
        layers: vec![layer],
        size_bytes: binary.len(),
        config: documents.run,
    };
    store.insert(image, &[name], &digests)
}

fn make_layer(store: &Store, exe: &Path, layer: &str) -> io::Result<()> {
    let dir = store.temporary();
    local::lay_out(exe, &dir)?;
    match std::fs::rename(&dir, store.layer_dir(layer)) {
        Err(_) if store.layer_dir(layer).exists() => super::layer::remove_tree(&dir),
        other => other,
    }
}
