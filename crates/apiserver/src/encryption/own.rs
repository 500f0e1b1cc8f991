//! The configuration that a server makes for itself: Secrets under a key of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::EncryptionFile;
use crate::Error;

impl EncryptionFile {
    /// The file at `path`, made with a new key if there is none. A key is durable before anything is encrypted with it.
    ///
    /// It seals with `secretbox`: of upstream's providers without a key service the only one whose nonces are long enough to
    /// be drawn at random for any number of writes.
    pub fn own(path: PathBuf) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::File { path: path.display().to_string(), source };
        let made = !path.try_exists().map_err(failed)?;
        if made {
            make(&path).map_err(failed)?;
        }
        Ok(Self { path, automatic_reload: true, made })
    }
}

fn make(path: &Path) -> io::Result<()> {
    let key = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    let key = key.map_err(|_| io::Error::other("no random bytes"))?.expose();
    let text = format!(
        "# Keys of what this cluster keeps encrypted: whoever has them can read it, and without them it is lost.\n\
         # Servers that share a store share this file. To change keys, put a new one in front of the old one, let every\n\
         # server read it, and write all Secrets again: kubectl get secrets -A -o json | kubectl replace -f -\n\
         apiVersion: apiserver.config.k8s.io/v1\n\
         kind: EncryptionConfiguration\n\
         resources:\n\
         - resources: [secrets]\n  \
           providers:\n  \
           - secretbox:\n      \
               keys:\n      \
               - name: key1\n        \
                 secret: {}\n  \
           - identity: {{}}\n",
        STANDARD.encode(key)
    );
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
