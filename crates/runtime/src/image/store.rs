//! The image store on disk: blobs by digest, layers unpacked once by chain ID, and an index of images by ID (the digest of
//! their configuration). All methods block; callers run them where that is allowed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::{
    layer,
    manifest::{ConfigFile, Descriptor, ImageConfig, Manifest},
    reference::{Reference, is_digest},
    turns::Turns,
};
use crate::Error;

/// Largest manifest or configuration, in bytes.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// Most layers of an image; overlayfs itself stops at 500.
const MAX_LAYERS: usize = 127;
/// Fewest digits of an image's ID that stand for it.
const SHORT_ID_DIGITS: usize = 12;
/// How long an interrupted fetch is kept for another try.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// An image that can be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Digest of the configuration.
    pub id: String,
    /// Canonical names with tags.
    pub names: BTreeSet<String>,
    /// Canonical `name@digest`s.
    pub digests: BTreeSet<String>,
    /// Digest of the manifest.
    pub manifest: String,
    /// Chain IDs of the layers (hexadecimal), bottom first.
    pub layers: Vec<String>,
    /// Digests of every blob the image needs.
    pub blobs: Vec<String>,
    /// Bytes on disk as registries count: blobs' sizes.
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// The store below one directory.
pub(crate) struct Store {
    root: PathBuf,
    default_registry: Option<String>,
    images: Mutex<BTreeMap<String, Arc<Image>>>,
    /// Held while the index is changed: readers of `images` do not wait for a disk.
    saving: Mutex<()>,
    /// Held for reading while blobs and layers are added that no image names yet, for writing by the collector.
    growing: Arc<RwLock<()>>,
    turns: Turns,
}

impl Store {
    /// Opens or makes the store below `root`; what a killed process left half-made goes away.
    pub(crate) fn open(root: &Path, default_registry: Option<String>) -> Result<Self, Error> {
        let temporary = root.join("tmp");
        layer::remove_tree(&temporary).map_err(Error::io("clean up", &temporary))?;
        for dir in ["tmp", "partial", "blobs/sha256", "layers"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
        }
        let index = root.join("index.json");
        let images: Vec<Image> = match std::fs::read(&index) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::Other(format!("the image index {} is damaged: {error}", index.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io("read", index)(error)),
        };
        let images = images.into_iter().map(|image| (image.id.clone(), Arc::new(image))).collect();
        Ok(Self {
            root: root.into(),
            default_registry,
            images: Mutex::new(images),
            saving: Mutex::default(),
            growing: Arc::default(),
            turns: Turns::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `name` made canonical.
    pub(crate) fn reference(&self, name: &str) -> Result<Reference, Error> {
        Reference::parse(name, self.default_registry.as_deref())
    }

    /// The image called `name`: an ID, a canonical or short name, or a name with a digest.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Image>> {
        let images = self.images.lock();
        let id = if is_digest(name) { name.to_owned() } else { format!("sha256:{name}") };
        if let Some(image) = images.get(&id) {
            return Some(image.clone());
        }
        let canonical = self.reference(name).ok().map(|reference| reference.to_string());
        let named = |image: &&Arc<Image>| {
            canonical.as_ref().is_some_and(|name| image.names.contains(name) || image.digests.contains(name))
        };
        if let Some(image) = images.values().find(named) {
            return Some(image.clone());
        }
        // As lists of images shorten them.
        let short = name.strip_prefix("sha256:").unwrap_or(name);
        if short.len() < SHORT_ID_DIGITS || !short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let id = format!("sha256:{short}");
        let mut matches = images.range(id.clone()..).map(|(_, image)| image).take_while(|i| i.id.starts_with(&id));
        matches.next().filter(|_| matches.next().is_none()).cloned()
    }

    /// All images, by ID.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.images.lock().values().cloned().collect()
    }

    /// Directories of an image's layers, topmost first, as overlayfs wants them.
    pub(crate) fn layer_dirs(&self, layers: &[String]) -> Vec<PathBuf> {
        layers.iter().rev().map(|chain| self.layer_dir(chain)).collect()
    }

    pub(crate) fn layer_dir(&self, chain: &str) -> PathBuf {
        self.root.join("layers").join(chain)
    }

    /// To be held while blobs and layers are added, until the image is [`Self::add`]ed.
    pub(crate) async fn grow(&self) -> OwnedRwLockReadGuard<()> {
        self.growing.clone().read_owned().await
    }

    /// [`Self::grow`] for threads that may block.
    pub(crate) fn grow_blocking(&self) -> impl Drop + use<'_> {
        self.growing.blocking_read()
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, Error> {
        match digest.strip_prefix("sha256:").filter(|_| is_digest(digest)) {
            Some(hex) => Ok(self.root.join("blobs/sha256").join(hex)),
            None => Err(Error::Invalid(format!("unsupported digest {digest:?}"))),
        }
    }

    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.blob_path(digest).is_ok_and(|path| path.exists())
    }

    /// A new empty path in the store's own file system, removed at the next start if nobody moves it.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Starts writing the blob `digest`; `None` if it is here already.
    pub(crate) fn blob_writer(&self, digest: &str) -> Result<Option<BlobWriter>, Error> {
        let target = self.blob_path(digest)?;
        if target.exists() {
            return Ok(None);
        }
        let path = self.temporary();
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        Ok(Some(BlobWriter { file, path, target, digest: digest.into(), hash: Sha256::new(), written: 0, keep: false }))
    }

    /// Like [`Self::blob_writer`], going on from what an interrupted writer of this kind left; this one leaves it too. Reads
    /// what is there.
    pub(crate) fn resume_blob(&self, digest: &str) -> Result<Option<BlobWriter>, Error> {
        let target = self.blob_path(digest)?;
        if target.exists() {
            return Ok(None);
        }
        let path = self.root.join("partial").join(digest.replace(':', "-"));
        let file = File::options().read(true).append(true).create(true).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        let (mut hash, mut written, mut buffer) = (Sha256::new(), 0, vec![0; 128 << 10]);
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", &path))? {
                0 => break,
                count => {
                    hash.update(buffer.get(..count).unwrap_or_default());
                    written += count as u64;
                }
            }
        }
        Ok(Some(BlobWriter { file, path, target, digest: digest.into(), hash, written, keep: true }))
    }

    /// Waits until nobody else fetches the blob `digest`.
    pub(crate) async fn turn(&self, digest: &str) -> impl Drop + use<> {
        self.turns.take(digest).await
    }

    /// Stores `bytes` as a blob and returns its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<String, Error> {
        let digest = digest_of(bytes);
        if let Some(mut writer) = self.blob_writer(&digest)? {
            writer.write(bytes)?;
            writer.finish(None)?;
        }
        Ok(digest)
    }

    /// Copies the blob `digest` from `source`.
    pub(crate) fn copy_blob(&self, digest: &str, mut source: impl Read) -> Result<(), Error> {
        let Some(mut writer) = self.blob_writer(digest)? else { return Ok(()) };
        let mut buffer = vec![0; 128 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return writer.finish(None),
                Ok(count) => writer.write(buffer.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Other(format!("read blob {digest}: {error}"))),
            }
        }
    }

    /// A manifest or configuration.
    pub(crate) fn document(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest)?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        Ok(bytes)
    }

    /// Unpacks the layers of the manifest `digest` and makes it an image called `names` (and `digests`). Every blob must be
    /// here. Call under [`Self::grow`].
    pub(crate) fn add(&self, digest: &str, names: &[String], digests: &[String]) -> Result<Arc<Image>, Error> {
        let manifest: Manifest = parse("manifest", digest, &self.document(digest)?)?;
        let config_blob = manifest.config.clone().unwrap_or_default();
        let config: ConfigFile = parse("configuration", &config_blob.digest, &self.document(&config_blob.digest)?)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() || manifest.layers.len() > MAX_LAYERS {
            return Err(Error::Invalid(format!(
                "image {digest} has {} layers in its manifest and {} in its configuration; at most {MAX_LAYERS} are allowed",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let mut layers: Vec<String> = Vec::new();
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let chain = chain_id(layers.last().map(String::as_str), diff_id);
            let below: Vec<PathBuf> = self.layer_dirs(&layers);
            self.unpack(blob, diff_id, &chain, &below)?;
            layers.push(chain);
        }
        let size_bytes = manifest.layers.iter().map(|layer| layer.size).sum::<u64>() + config_blob.size;
        let mut blobs = vec![digest.to_owned(), config_blob.digest.clone()];
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        self.insert(
            Image {
                id: config_blob.digest,
                names: BTreeSet::new(),
                digests: BTreeSet::new(),
                manifest: digest.into(),
                layers,
                blobs,
                size_bytes,
                config: config.config,
            },
            names,
            digests,
        )
    }

    /// Puts `image` into the index under further names; a name moves from the image that had it.
    pub(crate) fn insert(&self, image: Image, names: &[String], digests: &[String]) -> Result<Arc<Image>, Error> {
        // What the index names must be on disk before the index says so.
        let root = File::open(&self.root).map_err(Error::io("open", &self.root))?;
        rustix::fs::syncfs(&root).map_err(Error::io("sync", &self.root))?;
        let _saving = self.saving.lock();
        let mut changed = self.images.lock().clone();
        for other in changed.values_mut() {
            if other.id != image.id && names.iter().any(|name| other.names.contains(name)) {
                let other = Arc::make_mut(other);
                other.names.retain(|name| !names.contains(name));
            }
        }
        let entry = changed.entry(image.id.clone()).or_insert_with(|| Arc::new(image));
        let entry_mut = Arc::make_mut(entry);
        entry_mut.names.extend(names.iter().cloned());
        entry_mut.digests.extend(digests.iter().cloned());
        let result = entry.clone();
        self.save(&changed)?;
        *self.images.lock() = changed;
        Ok(result)
    }

    /// Removes the image called `name`: an ID removes it whole, a name only itself unless it is the last. Layers in
    /// `in_use` stay.
    pub(crate) fn remove(&self, name: &str, in_use: impl FnOnce() -> HashSet<String>) -> Result<(), Error> {
        let saving = self.saving.lock();
        let Some(image) = self.find(name) else { return Ok(()) };
        let mut changed = self.images.lock().clone();
        let canonical = self.reference(name).map(|reference| reference.to_string()).unwrap_or_default();
        if let Some(entry) = changed.get_mut(&image.id) {
            let entry = Arc::make_mut(entry);
            let named = entry.names.remove(&canonical) || entry.digests.remove(&canonical);
            if !named || entry.names.is_empty() {
                changed.remove(&image.id);
            }
        }
        self.save(&changed)?;
        *self.images.lock() = changed;
        drop(saving);
        self.collect(in_use);
        Ok(())
    }

    fn save(&self, images: &BTreeMap<String, Arc<Image>>) -> Result<(), Error> {
        let path = self.root.join("index.json");
        let temporary = self.temporary();
        let write = || {
            let list: Vec<&Image> = images.values().map(AsRef::as_ref).collect();
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&list)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Deletes blobs and layers that no image and no container needs, unless an image is just being added.
    pub(crate) fn collect(&self, in_use: impl FnOnce() -> HashSet<String>) {
        let Ok(_alone) = self.growing.try_write() else { return };
        // Asked now that no container is being made.
        let in_use = &in_use();
        let images = self.list();
        let layers: HashSet<&str> =
            images.iter().flat_map(|image| &image.layers).chain(in_use).map(String::as_str).collect();
        let blobs: HashSet<&str> =
            images.iter().flat_map(|image| &image.blobs).filter_map(|digest| digest.strip_prefix("sha256:")).collect();
        for (dir, keep) in [("layers", &layers), ("blobs/sha256", &blobs)] {
            let Ok(entries) = std::fs::read_dir(self.root.join(dir)) else { continue };
            for entry in entries.flatten() {
                if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
                    // What cannot be deleted now is tried again at the next collection.
                    let _ = layer::remove_tree(&entry.path());
                }
            }
        }
    }

    /// Makes room: what no image and no container needs goes, and so do interrupted fetches that nobody went on with, all of
    /// them if `all` is set.
    pub(crate) fn reclaim(&self, in_use: impl FnOnce() -> HashSet<String>, all: bool) {
        self.collect(in_use);
        let Ok(_alone) = self.growing.try_write() else { return };
        let old = |entry: &std::fs::DirEntry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > PARTIAL_LIFE)
        };
        let Ok(entries) = std::fs::read_dir(self.root.join("partial")) else { return };
        for entry in entries.flatten().filter(|entry| all || old(entry)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }

    /// Unpacks one layer unless it is there.
    fn unpack(&self, blob: &Descriptor, diff_id: &str, chain: &str, below: &[PathBuf]) -> Result<(), Error> {
        let target = self.layer_dir(chain);
        let _turn = self.turns.take_blocking(chain);
        if target.exists() {
            return Ok(());
        }
        let source = self.blob_path(&blob.digest)?;
        let file = File::open(&source).map_err(Error::io("open", &source))?;
        let temporary = self.temporary();
        std::fs::create_dir(&temporary).map_err(Error::io("make", &temporary))?;
        let unpack = || {
            let mut hashed = Hashed {
                inner: decompress(BufReader::with_capacity(64 << 10, file))?,
                hash: Sha256::new(),
                left: layer::MAX_STREAM_BYTES,
            };
            layer::unpack(&mut hashed, &temporary, below)?;
            // An archive may go on after its end mark, and the digest covers that too.
            io::copy(&mut hashed, &mut io::sink())?;
            io::Result::Ok(format!("sha256:{}", hex(&hashed.hash.finalize())))
        };
        let outcome = unpack().map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => Error::io("unpack a layer into", &temporary)(error),
            _ => Error::Other(format!("unpack layer {}: {error}", blob.digest)),
        });
        let outcome = outcome.and_then(|actual| match actual == diff_id {
            true => Ok(()),
            false => Err(Error::Invalid(format!("layer {} unpacks to {actual}, not to {diff_id}", blob.digest))),
        });
        let rename = || std::fs::rename(&temporary, &target).map_err(Error::io("rename", &target));
        let outcome = outcome.and_then(|()| rename());
        if outcome.is_err() {
            let _ = layer::remove_tree(&temporary);
        }
        outcome
    }
}

/// A blob on its way in; it appears under its digest only if it has it.
pub(crate) struct BlobWriter {
    file: File,
    path: PathBuf,
    target: PathBuf,
    digest: String,
    hash: Sha256,
    written: u64,
    /// Left for the next one when it is not finished.
    keep: bool,
}

impl BlobWriter {
    /// Begins again.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        (self.hash, self.written) = (Sha256::new(), 0);
        self.file.set_len(0).map_err(Error::io("truncate", &self.path))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob in its place if it has its digest and, unless that is not known, its size.
    pub(crate) fn finish(mut self, size: Option<u64>) -> Result<(), Error> {
        // There is nothing to go on with any more, whatever comes of it.
        self.keep = false;
        if size.is_some_and(|size| size != self.written) {
            return Err(Error::Other(format!(
                "failed size validation: blob {} has {} bytes, not the {} of its descriptor",
                self.digest,
                self.written,
                size.unwrap_or_default()
            )));
        }
        let actual = format!("sha256:{}", hex(&std::mem::take(&mut self.hash).finalize()));
        if actual != self.digest {
            return Err(Error::Other(format!(
                "unexpected content: expected digest {}, got {actual} after {} bytes",
                self.digest, self.written
            )));
        }
        std::fs::rename(&self.path, &self.target).map_err(Error::io("rename", &self.target))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone already when it was finished.
        if !self.keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
    /// What more may come, in bytes: a small blob may stand for any amount.
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other("the layer is too large"))?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// `source` without its gzip or zstd compression, which its first bytes tell.
pub(crate) fn decompress<'a>(mut source: impl io::BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = source.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
    } else {
        Box::new(source)
    })
}

/// The chain ID (hexadecimal) of a layer with this content on top of `below`, by the OCI image specification.
pub(crate) fn chain_id(below: Option<&str>, diff_id: &str) -> String {
    match below {
        None => diff_id.strip_prefix("sha256:").filter(|_| is_digest(diff_id)).map_or_else(
            // Not a digest at all: the layer will fail its check under a name that cannot collide.
            || hex(&Sha256::digest(diff_id)),
            String::from,
        ),
        Some(below) => hex(&Sha256::digest(format!("sha256:{below} {diff_id}"))),
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(what: &str, digest: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid(format!("image {what} {digest} is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_layer_decompresses_to_has_an_end() {
        let hashed = |left| Hashed { inner: io::repeat(0).take(100), hash: Sha256::new(), left };
        assert_eq!(io::copy(&mut hashed(100), &mut io::sink()).unwrap(), 100);
        assert!(io::copy(&mut hashed(99), &mut io::sink()).is_err());
    }
}
