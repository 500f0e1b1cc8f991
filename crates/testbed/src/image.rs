//! Builds OCI images from files on this machine, as a layout directory or as a tar archive: there is no registry to pull
//! from. Layers are deterministic: the same files give the same digests.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Where Debian's `busybox-static` puts its binary.
const BUSYBOX: &str = "/bin/busybox";

/// One layer: entries in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: Vec<(String, Entry)>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory(u32),
    File(u32, Vec<u8>),
    /// The contents of a file of this machine.
    HostFile(u32, PathBuf),
    Symlink(String),
    Raw(Box<Header>, Vec<u8>),
}

impl Layer {
    /// A layer with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory owned by root.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.add(path, Entry::Directory(mode))
    }

    /// Adds a file owned by root.
    pub fn file(self, path: &str, mode: u32, contents: impl Into<Vec<u8>>) -> Self {
        self.add(path, Entry::File(mode, contents.into()))
    }

    /// Adds a file of this machine under another name.
    pub fn host_file(self, path: &str, mode: u32, source: impl Into<PathBuf>) -> Self {
        self.add(path, Entry::HostFile(mode, source.into()))
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, Entry::Symlink(target.into()))
    }

    /// Adds any entry at all, hostile ones included; `header` must be complete but for its checksum.
    pub fn raw(self, mut header: Header, contents: impl Into<Vec<u8>>) -> Self {
        header.set_cksum();
        self.add("", Entry::Raw(Box::new(header), contents.into()))
    }

    fn add(mut self, path: &str, entry: Entry) -> Self {
        self.entries.push((path.trim_start_matches('/').to_owned(), entry));
        self
    }

    fn tar(&self) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let (kind, mode, contents) = match entry {
                Entry::Directory(mode) => (EntryType::Directory, *mode, Vec::new()),
                Entry::File(mode, contents) => (EntryType::Regular, *mode, contents.clone()),
                Entry::HostFile(mode, source) => (EntryType::Regular, *mode, std::fs::read(source)?),
                Entry::Symlink(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                    continue;
                }
                Entry::Raw(header, contents) => {
                    archive.append(header, contents.as_slice())?;
                    continue;
                }
            };
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(contents.len() as u64);
            archive.append_data(&mut header, path, contents.as_slice())?;
        }
        archive.into_inner()
    }
}

/// How layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`.
    #[default]
    Gzip,
}

/// An image to be written.
#[derive(Clone, Debug, Default)]
pub struct Image {
    name: String,
    layers: Vec<Layer>,
    config: BTreeMap<String, Value>,
    compression: Compression,
}

/// An image's documents and layers by digest, as a registry would serve them.
#[derive(Clone, Debug)]
pub struct Built {
    /// Digest (`sha256:…`) to bytes.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Digest of the manifest, which is among the blobs.
    pub manifest: String,
    /// Digest of the configuration: the image's ID.
    pub config: String,
}

impl Image {
    /// An empty image for this machine's architecture, called `name` (with a tag).
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Puts a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The words a container of this image runs, before its arguments.
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.set("Entrypoint", json!(words))
    }

    /// The arguments when nobody gives any.
    pub fn cmd(self, words: &[&str]) -> Self {
        self.set("Cmd", json!(words))
    }

    /// `KEY=value` entries.
    pub fn env(self, entries: &[&str]) -> Self {
        self.set("Env", json!(entries))
    }

    /// The user (`name`, `uid`, `name:group`, …).
    pub fn user(self, user: &str) -> Self {
        self.set("User", json!(user))
    }

    /// The signal that asks the container to end.
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", json!(signal))
    }

    /// Ports the image says it serves, such as `80/tcp`.
    pub fn expose(self, ports: &[&str]) -> Self {
        let ports: BTreeMap<&str, Value> = ports.iter().map(|port| (*port, json!({}))).collect();
        self.set("ExposedPorts", json!(ports))
    }

    /// How layers are stored.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.into(), value);
        self
    }

    /// Makes the image's documents and layers.
    pub fn build(&self) -> io::Result<Built> {
        let mut blobs = BTreeMap::new();
        let mut add = |bytes: Vec<u8>| {
            let digest = digest(&bytes);
            let size = bytes.len();
            blobs.insert(digest.clone(), bytes);
            (digest, size)
        };
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let tar = layer.tar()?;
            diff_ids.push(digest(&tar));
            let (kind, bytes) = match self.compression {
                Compression::None => ("application/vnd.oci.image.layer.v1.tar", tar),
                Compression::Gzip => ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&tar)?),
            };
            let (digest, size) = add(bytes);
            layers.push(json!({"mediaType": kind, "digest": digest, "size": size}));
        }
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let (config, size) = add(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
            "layers": layers,
        });
        let (manifest, _) = add(manifest.to_string().into_bytes());
        Ok(Built { blobs, manifest, config })
    }

    /// Writes an OCI layout into the directory `dir`, which is made.
    pub fn write_layout(&self, dir: &Path) -> io::Result<Built> {
        let built = self.build()?;
        for (path, bytes) in self.layout(&built) {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
            std::fs::write(path, bytes)?;
        }
        Ok(built)
    }

    /// Writes an OCI layout as a tar archive.
    pub fn write_archive(&self, path: &Path) -> io::Result<Built> {
        let built = self.build()?;
        let files: Vec<_> = self.layout(&built);
        write_tar(path, &files)?;
        Ok(built)
    }

    /// Writes the archive that `docker save` would.
    pub fn write_docker_archive(&self, path: &Path) -> io::Result<Built> {
        let built = self.clone().compression(Compression::None).build()?;
        let manifest: Value = serde_json::from_slice(built.blobs.get(&built.manifest).map_or(&[], Vec::as_slice))?;
        let layers = manifest.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
        let digests: Vec<&str> = layers.iter().filter_map(|layer| layer.get("digest")?.as_str()).collect();
        let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
        let mut files =
            vec![(format!("{}.json", hex(&built.config)), built.blobs.get(&built.config).cloned().unwrap_or_default())];
        let names: Vec<String> = digests.iter().map(|digest| format!("{}/layer.tar", hex(digest))).collect();
        for (name, digest) in names.iter().zip(&digests) {
            files.push((name.clone(), built.blobs.get(*digest).cloned().unwrap_or_default()));
        }
        let index =
            json!([{"Config": format!("{}.json", hex(&built.config)), "RepoTags": [self.name], "Layers": names}]);
        files.push(("manifest.json".into(), index.to_string().into_bytes()));
        write_tar(path, &files)?;
        Ok(built)
    }

    fn layout(&self, built: &Built) -> Vec<(String, Vec<u8>)> {
        let manifest_size = built.blobs.get(&built.manifest).map_or(0, Vec::len);
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": built.manifest, "size": manifest_size,
                "annotations": {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name},
            }],
        });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        let blobs = built.blobs.iter();
        files.extend(blobs.map(|(digest, bytes)| (format!("blobs/{}", digest.replacen(':', "/", 1)), bytes.clone())));
        files
    }
}

fn write_tar(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut archive = Builder::new(File::create(path)?);
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    archive.into_inner()?.flush()
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The directories and accounts a small Linux system has.
fn base() -> Layer {
    let mut layer = Layer::new();
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var"] {
        layer = layer.dir(dir, 0o755);
    }
    layer
        .dir("tmp", 0o1777)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
}

/// An image of Debian's `busybox-static`, with a link for every applet; it runs a shell.
pub fn busybox(name: &str) -> io::Result<Image> {
    let listed = std::process::Command::new(BUSYBOX).arg("--list").output().map_err(|error| {
        io::Error::new(error.kind(), format!("{BUSYBOX}: {error}; install the package busybox-static"))
    })?;
    let mut layer = base().host_file("bin/busybox", 0o755, BUSYBOX);
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|applet| *applet != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "/bin/busybox");
    }
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(Image::new(name).layer(layer).env(&[path]).cmd(&["sh"]))
}

/// An image of one static binary, which is also its entrypoint, with `args` as the first arguments.
pub fn binary(name: &str, source: &Path, args: &[&str]) -> io::Result<Image> {
    let mode = std::fs::metadata(source)?.permissions().mode() & 0o777;
    let file = source.file_name().and_then(|file| file.to_str()).unwrap_or("main");
    let inside = format!("/{file}");
    let mut entrypoint = vec![inside.as_str()];
    entrypoint.extend(args);
    Ok(Image::new(name).layer(base().host_file(file, mode | 0o555, source)).entrypoint(&entrypoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_image() {
        let image = || busybox("test/busybox:1").unwrap().build().unwrap();
        let (one, two) = (image(), image());
        assert_eq!((one.manifest, one.config), (two.manifest, two.config));
        assert_eq!(one.blobs.len(), 3);
    }

    #[test]
    fn a_layout_names_its_blobs_by_digest() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("test/a:1").layer(Layer::new().file("f", 0o644, "x")).cmd(&["/f"]);
        let built = image.write_layout(dir.path()).unwrap();
        for (name, bytes) in &built.blobs {
            assert_eq!(*name, digest(bytes));
            assert_eq!(std::fs::read(dir.path().join("blobs").join(name.replace(':', "/"))).unwrap(), *bytes);
        }
        let index: Value = serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], built.manifest);
    }
}
