//! OCI runtimes (runc, crun) that run the containers of some pods in place of `libcontainer`. A pod asks for one by the
//! handler of its RuntimeClass.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where programs of the machine are looked for.
const DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Handlers that are there when their program is.
const KNOWN: [&str; 2] = ["crun", "runc"];
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An OCI runtime with runc's command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// The program, absolute.
    pub path: PathBuf,
    /// Global options, before the subcommand (`--debug`).
    #[serde(default)]
    pub args: Vec<String>,
}

/// What a handler says that it can do (`features` of its command line); nothing of one that does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    pub recursive_read_only: bool,
}

/// A runtime's configuration file, TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Handlers by name.
    pub handlers: BTreeMap<String, Handler>,
    /// Names of images that are not to be removed for want of room: whole, or with `*` at the end, or at both ends.
    pub pinned_images: Vec<String>,
}

impl Settings {
    /// What `file` says (nothing if there is no such file), and with it runc and crun where they are installed.
    pub fn read(file: &Path) -> Result<Settings, Error> {
        let text = match crate::image::layer::read_small(file, MAX_FILE_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io("read", file)(error)),
        };
        let mut settings = parse(&text).map_err(|why| Error::Invalid(format!("{}: {why}", file.display())))?;
        for (name, handler) in installed() {
            settings.handlers.entry(name).or_insert(handler);
        }
        Ok(settings)
    }
}

/// Whether an image called `names` is one of those that are `pinned`.
pub(crate) fn is_pinned<'a>(pinned: &[String], names: impl IntoIterator<Item = &'a String>) -> bool {
    let fits = |pattern: &str, name: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(start)) => name.contains(start.trim_start_matches('*')),
        (None, Some(start)) => name.starts_with(start),
        _ => pattern == name,
    };
    names.into_iter().any(|name| pinned.iter().any(|pattern| fits(pattern, name)))
}

fn installed() -> BTreeMap<String, Handler> {
    let mut found = BTreeMap::new();
    for name in KNOWN {
        if let Some(path) = DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()) {
            found.insert(name.to_owned(), Handler { path, args: Vec::new() });
        }
    }
    found
}

fn parse(text: &str) -> Result<Settings, String> {
    let file: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
    for (name, handler) in &file.handlers {
        // RuntimeClass's own rule for the field.
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty()
            || name.len() > 63
            || name.starts_with('-')
            || name.ends_with('-')
            || !name.bytes().all(valid)
        {
            return Err(format!("handlers.{name}: a handler's name is a DNS label"));
        }
        if !handler.path.is_absolute() {
            return Err(format!("handlers.{name}.path: {:?} is not absolute", handler.path));
        }
    }
    if let Some(pattern) = file.pinned_images.iter().find(|pattern| {
        let inner = pattern.strip_suffix('*').unwrap_or(pattern);
        let inner = if inner.len() < pattern.len() { inner.strip_prefix('*').unwrap_or(inner) } else { inner };
        inner.is_empty() || inner.contains('*')
    }) {
        return Err(format!("pinned_images: {pattern:?}: a name may have * at its end, or at both ends"));
    }
    Ok(file)
}

impl Handler {
    /// Asks the program. Blocks.
    pub(crate) fn features(&self) -> Features {
        let output = Command::new(&self.path).arg("features").output();
        let answer = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let answer: serde_json::Value =
            answer.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let options = answer.get("mountOptions").and_then(serde_json::Value::as_array);
        let has = |name: &str| options.is_some_and(|options| options.iter().any(|option| option == name));
        Features { recursive_read_only: has("rro") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let handlers = parse("[handlers.kata]\npath = '/opt/kata'\nargs = ['--debug']\n").unwrap().handlers;
        assert_eq!(handlers["kata"], Handler { path: "/opt/kata".into(), args: vec!["--debug".into()] });
        for (text, expected) in [
            ("[handlers.Kata]\npath = '/opt/kata'", "handlers.Kata: a handler's name"),
            ("[handlers.kata]\npath = 'kata'", "handlers.kata.path: \"kata\" is not absolute"),
            ("[handlers.kata]\npath = '/k'\nshim = 'x'", "shim"),
            ("[runtimes]", "runtimes"),
            ("pinned_images = ['*']", "pinned_images: \"*\""),
            ("pinned_images = ['a*b']", "pinned_images: \"a*b\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse("").unwrap().handlers.is_empty());
    }

    #[test]
    fn pinned() {
        let names = ["registry.test/base:1".to_owned(), "registry.test/base@sha256:00".to_owned()];
        for (pattern, expected) in [
            ("registry.test/base:1", true),
            ("registry.test/base", false),
            ("registry.test/*", true),
            ("*/base:*", true),
            ("*other*", false),
        ] {
            assert_eq!(is_pinned(&[pattern.to_owned()], &names), expected, "{pattern}");
        }
    }
}
