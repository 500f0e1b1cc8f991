//! Images from archives: an OCI layout (directory or tar) or what `docker save` writes, plain or compressed.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde::Deserialize;

use super::{
    layer,
    manifest::{Descriptor, Manifest},
    store::{MAX_DOCUMENT_BYTES, Store, decompress, digest_of, hex, parse},
};
use crate::Error;

/// How deep an index may nest.
const MAX_INDEX_DEPTH: usize = 4;

/// One image of `docker save`'s `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Imports every image of `source`; returns their names (IDs for those without). `fallback` names an image that has no name
/// in the archive.
pub(crate) fn import(store: &Store, source: &Path, fallback: Option<&str>) -> Result<Vec<String>, Error> {
    let _growing = store.grow_blocking();
    if source.is_dir() {
        return import_dir(store, source, fallback);
    }
    let file = File::open(source).map_err(Error::io("open", source))?;
    let dir = store.temporary();
    std::fs::create_dir(&dir).map_err(Error::io("make", &dir))?;
    let unpacked = decompress(BufReader::new(file)).and_then(|stream| layer::unpack(stream, &dir, &[]));
    let outcome = match unpacked {
        Ok(_) => import_dir(store, &dir, fallback),
        Err(error) => Err(Error::Invalid(format!("not an image archive: {error}"))),
    };
    let _ = layer::remove_tree(&dir);
    outcome
}

fn import_dir(store: &Store, dir: &Path, fallback: Option<&str>) -> Result<Vec<String>, Error> {
    // Docker's newer archives are both; theirs has the full names.
    if let Ok(bytes) = layer::read_file_in(dir, "manifest.json", MAX_DOCUMENT_BYTES) {
        let entries: Vec<DockerEntry> = parse("archive's", "manifest.json", &bytes)?;
        return entries.iter().map(|entry| import_docker(store, dir, entry, fallback)).collect();
    }
    let bytes = layer::read_file_in(dir, "index.json", MAX_DOCUMENT_BYTES).map_err(|_| {
        Error::Invalid("not an image: neither index.json (OCI layout) nor manifest.json (docker save) is there".into())
    })?;
    let index: Manifest = parse("archive's", "index.json", &bytes)?;
    let mut names = Vec::new();
    for descriptor in &index.manifests {
        names.push(import_oci(store, dir, descriptor, fallback)?);
    }
    Ok(names)
}

fn import_oci(store: &Store, dir: &Path, descriptor: &Descriptor, fallback: Option<&str>) -> Result<String, Error> {
    let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
    // A bare tag as `ref.name` is common; only with something else it is a name.
    let name = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])))
        .or(fallback);
    let mut digest = descriptor.digest.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        copy(store, dir, &digest)?;
        let document: Manifest = parse("manifest", &digest, &store.document(&digest)?)?;
        if document.manifests.is_empty() {
            for blob in document.config.iter().chain(&document.layers) {
                copy(store, dir, &blob.digest)?;
            }
            return register(store, &digest, name);
        }
        let Some(next) = document.for_this_machine() else {
            return Err(Error::ImageNotFound(format!("image {digest} has no variant for this machine: not found")));
        };
        digest = next.digest.clone();
    }
    Err(Error::Invalid(format!("image index {} nests too deeply", descriptor.digest)))
}

fn import_docker(store: &Store, dir: &Path, entry: &DockerEntry, fallback: Option<&str>) -> Result<String, Error> {
    let add = |path: &str| {
        let digest = hash_file(dir, path)?;
        let file = open_in(dir, path)?;
        let size = file.metadata().map_err(Error::io("inspect", path))?.len();
        store.copy_blob(&digest, file)?;
        Ok::<_, Error>(Descriptor { digest, size, ..Descriptor::default() })
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        config: Some(add(&entry.config)?),
        layers: entry.layers.iter().map(|path| add(path)).collect::<Result<_, _>>()?,
        manifests: Vec::new(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| Error::Other(error.to_string()))?;
    let digest = store.put_blob(&bytes)?;
    debug_assert_eq!(digest, digest_of(&bytes));
    let tags = entry.repo_tags.as_deref().unwrap_or_default();
    let mut result = None;
    for name in tags.iter().map(String::as_str) {
        result = Some(register(store, &digest, Some(name))?);
    }
    result.map_or_else(|| register(store, &digest, fallback), Ok)
}

fn register(store: &Store, digest: &str, name: Option<&str>) -> Result<String, Error> {
    let Some(name) = name else { return Ok(store.add(digest, &[], &[])?.id.clone()) };
    let reference = store.reference(name)?;
    let digests = [format!("{}@{digest}", reference.name())];
    let name = reference.to_string();
    store.add(digest, std::slice::from_ref(&name), &digests)?;
    Ok(name)
}

fn copy(store: &Store, dir: &Path, digest: &str) -> Result<(), Error> {
    if store.has_blob(digest) {
        return Ok(());
    }
    let path = format!("blobs/{}", digest.replacen(':', "/", 1));
    store.copy_blob(digest, open_in(dir, &path)?)
}

/// Opens a regular file inside the archive's directory; links cannot lead out.
fn open_in(dir: &Path, path: &str) -> Result<File, Error> {
    let open = || {
        let root = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    };
    open().map_err(|error| Error::Invalid(format!("the archive lacks {path}: {error}")))
}

fn hash_file(dir: &Path, path: &str) -> Result<String, Error> {
    use sha2::Digest;
    let mut file = open_in(dir, path)?;
    let (mut hash, mut buffer) = (sha2::Sha256::new(), vec![0; 128 << 10]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(format!("sha256:{}", hex(&hash.finalize()))),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
