//! The images that are nothing but Keelson's own binary, `keelson.local/hello` and `keelson.local/pause`: what is in
//! their one layer and what they run. Our runtime lays the layer out as a directory; for another runtime [`LocalImages`]
//! gives what a registry serves, with the layer written as it is sent: nothing of the binary's size is kept in memory.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use ring::digest;
use tar::{Builder, EntryType, Header};

use super::{
    manifest::{ConfigFile, Descriptor, ImageConfig, Manifest, RootFs},
    store::{digest_of, hex},
};
use crate::Error;

/// The repositories, each named after the subcommand that its images run.
pub(crate) const PROGRAMS: [&str; 2] = ["hello", "pause"];
/// Media type of the manifests.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

const BINARY: &str = "keelson";
/// Directories and their modes.
const DIRS: [(&str, u32); 2] = [("tmp", 0o1777), ("etc", 0o755)];
/// Files beside the binary.
const FILES: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/:/keelson\nnobody:x:65534:65534:nobody:/:/keelson\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// The program of the images in `repository`; `None` when it is not one of ours.
pub(crate) fn program(repository: &str) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| *program == repository)
}

/// Configuration and manifest of an image.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The image configuration, JSON.
    pub config: Vec<u8>,
    /// Its digest, the image's ID.
    pub config_digest: String,
    /// The manifest, JSON.
    pub manifest: Vec<u8>,
    /// Its digest.
    pub manifest_digest: String,
    pub(crate) run: ImageConfig,
}

impl Documents {
    /// The image of `program` with `tag` as its version, over one uncompressed layer.
    pub(crate) fn new(program: &str, tag: &str, layer_digest: &str, layer_bytes: u64) -> Result<Self, Error> {
        let json = |error: serde_json::Error| Error::Other(error.to_string());
        let file = ConfigFile {
            architecture: if cfg!(target_arch = "x86_64") { "amd64".into() } else { std::env::consts::ARCH.into() },
            os: "linux".into(),
            config: ImageConfig {
                env: vec!["PATH=/".to_owned(), format!("VERSION={tag}")],
                entrypoint: vec![format!("/{BINARY}"), program.to_owned()],
                working_dir: "/".into(),
                stop_signal: "SIGTERM".into(),
                ..ImageConfig::default()
            },
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![layer_digest.to_owned()] },
        };
        let config = serde_json::to_vec(&file).map_err(json)?;
        let config_digest = digest_of(&config);
        let describe = |media_type: &str, digest: &str, size| Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            size,
            ..Descriptor::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.into(),
            config: Some(describe(CONFIG_TYPE, &config_digest, config.len() as u64)),
            layers: vec![describe(LAYER_TYPE, layer_digest, layer_bytes)],
            manifests: Vec::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(json)?;
        let manifest_digest = digest_of(&manifest);
        Ok(Self { config, config_digest, manifest, manifest_digest, run: file.config })
    }
}

/// Makes the layer at `dir`, which must not exist.
pub(crate) fn lay_out(exe: &Path, dir: &Path) -> io::Result<()> {
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    std::fs::create_dir(dir)?;
    set_mode(dir, 0o755)?;
    // Containers never write through a lower layer, so sharing the binary's own inode is safe.
    if std::fs::hard_link(exe, dir.join(BINARY)).is_err() {
        std::fs::copy(exe, dir.join(BINARY))?;
    }
    for (name, mode) in DIRS {
        std::fs::create_dir(dir.join(name))?;
        set_mode(&dir.join(name), mode)?;
    }
    FILES.into_iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

/// The images as a registry serves them. Every tag exists; it becomes the image's `VERSION`.
pub struct LocalImages {
    /// Held open, so that what is sent is what was hashed even if the file is replaced.
    binary: File,
    binary_bytes: u64,
    layer_digest: String,
    layer_bytes: u64,
}

impl LocalImages {
    /// Reads the binary once, to know its digest. Blocks.
    pub fn new(exe: &Path) -> io::Result<Self> {
        let binary = File::open(exe)?;
        let binary_bytes = binary.metadata()?.len();
        let mut images = Self { binary, binary_bytes, layer_digest: String::new(), layer_bytes: 0 };
        // ring's is quick in unoptimised builds too; this one hashes everything that we are.
        let mut hash = Hash { hash: digest::Context::new(&digest::SHA256), bytes: 0 };
        images.write_layer(&mut hash)?;
        images.layer_digest = format!("sha256:{}", hex(hash.hash.finish().as_ref()));
        images.layer_bytes = hash.bytes;
        Ok(images)
    }

    /// The image `repository:tag`; `None` when there is no such repository.
    pub fn documents(&self, repository: &str, tag: &str) -> Result<Option<Documents>, Error> {
        let documents = |program| Documents::new(program, tag, &self.layer_digest, self.layer_bytes);
        program(repository).map(documents).transpose()
    }

    /// Digest of the one layer of all images.
    pub fn layer_digest(&self) -> &str {
        &self.layer_digest
    }

    /// Size of the layer, in bytes.
    pub fn layer_bytes(&self) -> u64 {
        self.layer_bytes
    }

    /// Writes the layer, an uncompressed tar: always the same bytes. Blocks.
    pub fn write_layer(&self, out: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(out);
        for (name, mode) in DIRS {
            archive.append_data(&mut header(EntryType::Directory, mode, 0), format!("{name}/"), io::empty())?;
        }
        for (name, text) in FILES {
            archive.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64), name, text.as_bytes())?;
        }
        let contents = At { file: &self.binary, position: 0 }.take(self.binary_bytes);
        archive.append_data(&mut header(EntryType::Regular, 0o755, self.binary_bytes), BINARY, contents)?;
        archive.into_inner()?.flush()
    }
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// Reads a file that others read at the same time.
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

struct Hash {
    hash: digest::Context,
    bytes: u64,
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_gets_what_it_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("exe");
        std::fs::write(&exe, [7; 1000]).unwrap();
        let images = LocalImages::new(&exe).unwrap();
        std::fs::remove_file(&exe).unwrap();
        let mut layer = Vec::new();
        images.write_layer(&mut layer).unwrap();
        assert_eq!((digest_of(&layer).as_str(), layer.len() as u64), (images.layer_digest(), images.layer_bytes()));
        let mut archive = tar::Archive::new(layer.as_slice());
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["tmp/", "etc/", "etc/passwd", "etc/group", "keelson"]);

        let image = images.documents("hello", "2.0").unwrap().unwrap();
        let manifest: Manifest = serde_json::from_slice(&image.manifest).unwrap();
        let config: ConfigFile = serde_json::from_slice(&image.config).unwrap();
        assert_eq!(manifest.config.unwrap().digest, digest_of(&image.config));
        assert_eq!(manifest.layers[0].digest, images.layer_digest());
        assert_eq!(
            (config.rootfs.kind.as_str(), config.rootfs.diff_ids[0].as_str()),
            ("layers", images.layer_digest())
        );
        assert_eq!((config.config.env[1].as_str(), config.config.entrypoint[1].as_str()), ("VERSION=2.0", "hello"));
        assert_eq!(images.documents("pause", "1").unwrap().unwrap().run.entrypoint, ["/keelson", "pause"]);
        assert!(images.documents("nope", "1").unwrap().is_none());
    }
}
