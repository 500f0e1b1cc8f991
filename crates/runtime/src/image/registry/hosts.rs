//! Where a registry's images are fetched: its own host, or the mirrors that the node's administrator set up in containerd's
//! format, `<directory>/<host>/hosts.toml` (`host:port` or `host_port_`; `_default` for all others).

use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use toml::{Table, Value};

use crate::{Config, Error, image::layer::read_small};

const FILE: &str = "hosts.toml";
/// Largest file, in bytes, and most hosts that are tried for one image.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_HOSTS: usize = 16;

/// One host that may have a registry's images.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Host {
    /// URL of its API, without a slash at the end: `https://mirror.test/v2`.
    pub base: String,
    /// Host and port.
    pub authority: String,
    /// May be asked what a tag is.
    pub resolve: bool,
    /// May be asked for manifests by digest and blobs.
    pub pull: bool,
    pub skip_verify: bool,
    /// Certificate authorities (PEM files) beside the machine's.
    pub authorities: Vec<PathBuf>,
    /// Certificate and key (PEM files) to show to the host.
    pub client: Option<(PathBuf, PathBuf)>,
    pub headers: HeaderMap,
    /// Stands in for another registry, which it is told.
    pub mirror: bool,
}

/// The hosts to try for `registry`, best first.
pub(super) fn hosts(config: &Config, registry: &str) -> Result<Vec<Host>, Error> {
    let scheme = if super::http::is_loopback(registry) || config.insecure_registries.iter().any(|own| own == registry) {
        "http"
    } else {
        "https"
    };
    let own = format!("{scheme}://{registry}");
    for name in directories(registry) {
        let dir = config.registry_config_dir.join(name);
        let file = dir.join(FILE);
        match read_small(&file, MAX_FILE_BYTES) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let hosts = parse(&text, &dir, &own);
                return hosts.map_err(|why| Error::Invalid(format!("{}: {why}", file.display())));
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(Error::io("read", file)(error)),
        }
    }
    let host = host(&own, &Table::new(), Path::new(""), false).map_err(Error::Invalid)?;
    Ok(vec![host])
}

fn directories(registry: &str) -> Vec<String> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    [Some(registry.to_owned()), with_port, Some("_default".into())].into_iter().flatten().collect()
}

/// The hosts of a file, in its order, and last the registry itself.
fn parse(text: &str, dir: &Path, own: &str) -> Result<Vec<Host>, String> {
    let mut file: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let server = match file.remove("server") {
        Some(Value::String(server)) if server.is_empty() => own.to_owned(),
        Some(Value::String(server)) if server.contains("://") => server,
        Some(Value::String(server)) => format!("https://{server}"),
        Some(_) => return Err("server: is not a string".into()),
        None => own.to_owned(),
    };
    let mut found = Vec::new();
    match file.remove("host") {
        Some(Value::Table(hosts)) => {
            for (url, settings) in hosts {
                let Value::Table(settings) = settings else { return Err(format!("host.{url:?}: is not a table")) };
                found.push(host(&url, &settings, dir, true)?);
            }
        }
        Some(_) => return Err("host: is not a table".into()),
        None => {}
    }
    // What is left is about the server itself.
    let last = host(&server, &file, dir, server != own)?;
    if !found.iter().any(|host| host.base == last.base) {
        found.push(last);
    }
    if found.len() > MAX_HOSTS {
        return Err(format!("host: more than {MAX_HOSTS} hosts"));
    }
    Ok(found)
}

fn host(url: &str, settings: &Table, dir: &Path, mirror: bool) -> Result<Host, String> {
    let wrong = |key: &str| format!("host.{url:?}.{key}: is not what it should be");
    let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = full.parse().map_err(|_| format!("host.{url:?}: is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong("")) };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("host.{url:?}: the scheme {scheme} is not supported"));
    }
    let mut host = Host { authority: authority.to_string(), resolve: true, pull: true, mirror, ..Host::default() };
    let mut override_path = false;
    let files = |value: &Value, key| -> Result<Vec<PathBuf>, String> {
        let list = match value {
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => {
                many.iter().map(|one| one.as_str()).collect::<Option<_>>().ok_or_else(|| wrong(key))?
            }
            _ => return Err(wrong(key)),
        };
        Ok(list.into_iter().map(|file| dir.join(file)).collect())
    };
    for (key, value) in settings {
        match key.as_str() {
            "capabilities" => {
                let list = value.as_array().ok_or_else(|| wrong("capabilities"))?;
                let has = |name: &str| list.iter().any(|own| own.as_str() == Some(name));
                let known = ["pull", "resolve", "push", "referrers"];
                if list.iter().any(|own| own.as_str().is_none_or(|own| !known.contains(&own))) {
                    return Err(wrong("capabilities"));
                }
                (host.resolve, host.pull) = (has("resolve"), has("pull"));
            }
            "skip_verify" => host.skip_verify = value.as_bool().ok_or_else(|| wrong("skip_verify"))?,
            "override_path" => override_path = value.as_bool().ok_or_else(|| wrong("override_path"))?,
            "ca" => host.authorities = files(value, "ca")?,
            "client" => {
                // One file with both, or pairs of certificate and key; the first is used.
                let first = match value {
                    Value::Array(list) if list.first().is_some_and(Value::is_array) => list.first().unwrap_or(value),
                    other => other,
                };
                let files = files(first, "client")?;
                host.client = match files.as_slice() {
                    [both] => Some((both.clone(), both.clone())),
                    [certificate, key] => Some((certificate.clone(), key.clone())),
                    _ => return Err(wrong("client")),
                };
            }
            "header" => {
                for (name, value) in value.as_table().ok_or_else(|| wrong("header"))? {
                    let name: HeaderName = name.parse().map_err(|_| wrong("header"))?;
                    let many = match value {
                        Value::Array(many) => many.as_slice(),
                        one => std::slice::from_ref(one),
                    };
                    for value in many {
                        let value = value.as_str().and_then(|text| HeaderValue::from_str(text).ok());
                        host.headers.append(name.clone(), value.ok_or_else(|| wrong("header"))?);
                    }
                }
            }
            other => return Err(format!("host.{url:?}.{other}: this runtime does not know the setting")),
        }
    }
    let path = uri.path().trim_end_matches('/');
    let version = if override_path || path.ends_with("/v2") { "" } else { "/v2" };
    host.base = format!("{scheme}://{authority}{path}{version}");
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, bool, bool)]) {
        let hosts = parse(text, Path::new("/d"), "https://own.test").unwrap();
        let hosts: Vec<_> = hosts.iter().map(|host| (host.base.as_str(), host.resolve, host.pull)).collect();
        assert_eq!(hosts, expected, "{text}");
    }

    #[test]
    fn files() {
        check("", &[("https://own.test/v2", true, true)]);
        check("server = 'http://127.0.0.1:5000'\n[host]", &[("http://127.0.0.1:5000/v2", true, true)]);
        check(
            "[host.'https://z.test']\ncapabilities = ['pull']\n[host.'http://a.test/sub']\noverride_path = true\n[host.'b.test/x']",
            &[
                ("https://z.test/v2", false, true),
                ("http://a.test/sub", true, true),
                ("https://b.test/x/v2", true, true),
                ("https://own.test/v2", true, true),
            ],
        );
        let hosts = parse(
            "[host.'https://m.test']\nca = 'ca.pem'\nclient = [['c.pem', '/k.pem']]\nskip_verify = true\n[host.'https://m.test'.header]\nx-a = ['1', '2']",
            Path::new("/d"),
            "https://own.test",
        );
        let host = hosts.unwrap().remove(0);
        assert_eq!((host.authorities, host.skip_verify), (vec!["/d/ca.pem".into()], true));
        assert_eq!((host.client, host.headers.len()), (Some(("/d/c.pem".into(), "/k.pem".into())), 2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("server = 5", "server"),
            ("[host.'https://m.test']\ncapabilities = ['fly']", "capabilities"),
            ("[host.'https://m.test']\nskip_verify = 'yes'", "skip_verify"),
            ("[host.'https://m.test']\ndial_timeout = '1s'", "dial_timeout"),
            ("[host.'ftp://m.test']", "ftp"),
        ] {
            let error = parse(text, Path::new("/d"), "https://own.test").unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn directories_of_a_registry() {
        assert_eq!(directories("a.test:5000"), ["a.test:5000", "a.test_5000_", "_default"]);
        assert_eq!(directories("a.test"), ["a.test", "_default"]);
    }
}
