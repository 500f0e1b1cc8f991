//! Images of `keelson.local`, which the runtime makes itself: `hello` holds nothing but this very binary.

use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    archive,
    manifest::{ConfigFile, Descriptor, ImageConfig, Manifest, RootFs},
    reference::Reference,
    store::{Image, Store, digest_of, hex},
};
use crate::{Config, Error, LOCAL_IMAGE_DOMAIN};

/// The image that is always there.
pub(crate) const HELLO: &str = "hello";

/// The image `reference` of the local domain, made or imported if need be.
pub(crate) fn provide(store: &Store, config: &Config, reference: &Reference) -> Result<Arc<Image>, Error> {
    let name = reference.to_string();
    if reference.repository == HELLO && reference.digest.is_none() {
        return hello(store, &config.exe, reference);
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
    let mut names: Vec<&str> = config.builtin_images.keys().map(String::as_str).collect();
    let hello = format!("{LOCAL_IMAGE_DOMAIN}/{HELLO}");
    names.push(&hello);
    Err(Error::ImageNotFound(format!("{name}: not found: this runtime itself provides {}", names.join(", "))))
}

/// The hello image with the reference's tag as its version. Its identity follows the binary's, so a new binary is a new
/// image.
fn hello(store: &Store, exe: &Path, reference: &Reference) -> Result<Arc<Image>, Error> {
    let binary = std::fs::metadata(exe).map_err(Error::io("inspect", exe))?;
    let fingerprint = format!("{}:{}:{}:{}", binary.ino(), binary.len(), binary.mtime(), binary.mtime_nsec());
    let layer = hex(&Sha256::digest(format!("{LOCAL_IMAGE_DOMAIN}/{HELLO} {fingerprint}")));
    let tag = reference.tag.as_deref().unwrap_or("latest");
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = ConfigFile {
        architecture: if cfg!(target_arch = "x86_64") { "amd64".into() } else { std::env::consts::ARCH.into() },
        os: "linux".into(),
        config: ImageConfig {
            env: vec!["PATH=/".to_owned(), format!("VERSION={tag}")],
            entrypoint: text(&["/keelson", "hello"]),
            working_dir: "/".into(),
            stop_signal: "SIGTERM".into(),
            ..ImageConfig::default()
        },
        rootfs: RootFs { diff_ids: vec![format!("sha256:{layer}")] },
    };
    let config = serde_json::to_vec(&file).map_err(|error| Error::Other(error.to_string()))?;
    let id = digest_of(&config);
    let name = reference.to_string();
    if let Some(image) = store.find(&id).filter(|image| image.names.contains(&name)) {
        return Ok(image);
    }
    let _growing = store.grow_blocking();
    if !store.layer_dir(&layer).exists() {
        make_layer(store, exe, &layer).map_err(Error::io("make the file system of", &name))?;
    }
    let config_blob = store.put_blob(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        config: Some(Descriptor { digest: config_blob.clone(), size: config.len() as u64, ..Descriptor::default() }),
        layers: vec![Descriptor { digest: format!("sha256:{layer}"), size: binary.len(), ..Descriptor::default() }],
        manifests: Vec::new(),
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|error| Error::Other(error.to_string()))?;
    let manifest = store.put_blob(&manifest)?;
    let digests = [format!("{}@{manifest}", reference.name())];
    let image = Image {
        id,
        names: BTreeSet::new(),
        digests: BTreeSet::new(),
        blobs: vec![manifest.clone(), config_blob],
        manifest,
        layers: vec![layer],
        size_bytes: binary.len(),
        config: file.config,
    };
    store.insert(image, &[name], &digests)
}

fn make_layer(store: &Store, exe: &Path, layer: &str) -> io::Result<()> {
    let dir = store.temporary();
    std::fs::create_dir(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    // Containers never write through a lower layer, so sharing the binary's own inode is safe.
    if std::fs::hard_link(exe, dir.join("keelson")).is_err() {
        std::fs::copy(exe, dir.join("keelson"))?;
    }
    std::fs::create_dir(dir.join("tmp"))?;
    std::fs::set_permissions(dir.join("tmp"), std::fs::Permissions::from_mode(0o1777))?;
    std::fs::create_dir(dir.join("etc"))?;
    std::fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/:/keelson\nnobody:x:65534:65534:nobody:/:/keelson\n")?;
    std::fs::write(dir.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    match std::fs::rename(&dir, store.layer_dir(layer)) {
        Err(_) if store.layer_dir(layer).exists() => super::layer::remove_tree(&dir),
        other => other,
    }
}
