//! `/logs/`: the node's log directory as files, and (gate `NodeLogQuery`) what services logged. Nothing outside the
//! directory is shown, wherever its links lead.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};
use std::process::Stdio;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use keelson_streaming::proxy::ProxyBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::stream::pairs;
use super::{full, text};

/// Names of services at most, and their length.
const MAX_SERVICES: usize = 4;
const MAX_SERVICE_LENGTH: usize = 256;
const MAX_TAIL_LINES: i64 = 100_000;
/// The journal's program may take this long.
const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// What a program has said and nobody has read yet, at most.
const UNREAD_BYTES: usize = 64 << 10;
/// Entries of a directory that are listed.
const MAX_ENTRIES: usize = 10_000;

/// Answers `/logs/<path>`; a query is answered only where it is `enabled`, as upstream does.
pub(super) async fn answer(root: &Path, path: &str, query: &str, enabled: bool) -> Response<ProxyBody> {
    if enabled {
        match Query::parse(query, root) {
            Err(errors) => return text(StatusCode::BAD_REQUEST, errors),
            Ok(Some(query)) => return query.answer(root).await,
            Ok(None) => {}
        }
    }
    let (root, path) = (root.to_path_buf(), super::stream::decode(path));
    match tokio::task::spawn_blocking(move || Found::open(&root, &path)).await {
        Ok(Ok(Found::File(file))) => stream(tokio::fs::File::from_std(file)),
        Ok(Ok(Found::Directory(names))) => listing(&names),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            text(StatusCode::FORBIDDEN, "403 Forbidden")
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

enum Found {
    File(std::fs::File),
    /// Names, those of directories with a slash.
    Directory(Vec<String>),
}

impl Found {
    /// Opens `path` below `root`. It is judged by what was opened, not by its name, which may change.
    fn open(root: &Path, path: &str) -> std::io::Result<Found> {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let relative = Path::new(path.trim_start_matches('/'));
        if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(denied());
        }
        let mut options = std::fs::OpenOptions::new();
        // A pipe would wait for its writer.
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let file = options.open(root.join(relative))?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))?;
        if !real.starts_with(std::fs::canonicalize(root)?) {
            return Err(denied());
        }
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(Found::File(file));
        }
        if !kind.is_dir() {
            return Err(denied());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&real)?.flatten().take(MAX_ENTRIES) {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            names.push(entry.file_name().to_string_lossy().into_owned() + slash);
        }
        names.sort();
        Ok(Found::Directory(names))
    }
}

fn listing(names: &[String]) -> Response<ProxyBody> {
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        let mut link = String::new();
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => link.push(byte as char),
                other => link.push_str(&format!("%{other:02X}")),
            }
        }
        page.push_str(&format!("<a href=\"{link}\">{shown}</a>\n"));
    }
    page.push_str("</pre>\n");
    let mut response = Response::new(full(page));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn stream(content: impl AsyncRead + Send + 'static) -> Response<ProxyBody> {
    use futures::StreamExt;
    let frames = ReaderStream::new(content).map(|chunk| {
        chunk.map(Frame::data).map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What a program says, both of its outputs, as it says it: it waits while nobody reads, and ends with its reader or after
/// `limit`.
fn said(mut command: tokio::process::Command, limit: Duration) -> impl AsyncRead + Send + Unpin + use<> {
    let (reader, mut writer) = tokio::io::duplex(UNREAD_BYTES);
    tokio::spawn(async move {
        let copied = async {
            let (out, both) = std::io::pipe()?;
            command.stdin(Stdio::null()).stdout(both.try_clone()?).stderr(both).kill_on_drop(true);
            let mut child = command.spawn()?;
            // It holds ends of the pipe, too.
            drop(command);
            let mut out = tokio::net::unix::pipe::Receiver::from_owned_fd(out.into())?;
            tokio::io::copy(&mut out, &mut writer).await?;
            child.wait().await
        };
        if !matches!(tokio::time::timeout(limit, copied).await, Ok(Ok(_))) {
            let _ = writer.write_all(b"\nerror: journal output not available\n").await;
        }
    });
    reader
}

/// What somebody wants to know of services' logs, or of one file.
#[derive(Debug, Default, PartialEq)]
struct Query {
    services: Vec<String>,
    files: Vec<String>,
    /// Options of the journal's program, in its own words.
    options: Vec<String>,
    boot: i64,
}

impl Query {
    /// Reads a query; nothing when it has no parameter of ours. Errors are upstream's, all of them.
    fn parse(query: &str, root: &Path) -> Result<Option<Query>, String> {
        let mut parsed = Query::default();
        let mut errors = Vec::new();
        let mut asked = false;
        let (mut since, mut until): (Option<Timestamp>, Option<Timestamp>) = (None, None);
        for (name, value) in pairs(query) {
            let given = !value.is_empty();
            let mut number = |what: &str| {
                let bad = |_| errors.push(format!("{what}: Invalid value: {value:?}: invalid syntax"));
                value.parse::<i64>().map_err(bad).ok()
            };
            match name.as_str() {
                "query" if value.contains(['/', '\\']) => parsed.files.push(value),
                "query" => {
                    asked = true;
                    parsed.services.extend(Some(value).filter(|value| !value.trim().is_empty()));
                }
                "sinceTime" if given => match value.parse() {
                    Ok(time) => since = Some(time),
                    Err(_) => errors.push(format!("sinceTime: Invalid value: {value:?}: invalid time format")),
                },
                "untilTime" if given => match value.parse() {
                    Ok(time) => until = Some(time),
                    Err(_) => errors.push(format!("untilTime: Invalid value: {value:?}: invalid time format")),
                },
                "boot" if given => match number("boot") {
                    Some(boot) if boot > 0 => errors.push(format!("boot: Invalid value: {boot}: must be less than 1")),
                    Some(boot) => {
                        parsed.boot = boot;
                        parsed.options.push(format!("--boot={boot}"));
                    }
                    None => {}
                },
                "tailLines" if given => match number("tailLines") {
                    Some(lines) if !(0..=MAX_TAIL_LINES).contains(&lines) => errors.push(format!(
                        "tailLines: Invalid value: {lines}: must be between 0 and {MAX_TAIL_LINES}, inclusive"
                    )),
                    Some(lines) => parsed.options.push(format!("--lines={lines}")),
                    None => {}
                },
                "pattern" if given => parsed.options.push(format!("--grep={value}")),
                _ => {}
            }
        }
        for (name, time) in [("since", since), ("until", until)] {
            parsed.options.extend(time.map(|time| format!("--{name}={}", time.strftime("%Y-%m-%d %H:%M:%S"))));
        }
        if asked && parsed.services.is_empty() && parsed.files.is_empty() {
            errors.push("query: Invalid value: [\"\"]: query cannot be empty".into());
        }
        if errors.is_empty() && parsed == Query::default() {
            return Ok(None);
        }
        for service in &parsed.services {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@');
            if service.len() > MAX_SERVICE_LENGTH {
                errors.push(format!("query: Invalid value: {service:?}: length must be less than 100"));
            } else if !service.chars().all(fine) && !is_log_name(service) {
                errors.push(format!("query: Invalid value: {service:?}: input contains unsupported characters"));
            }
        }
        if parsed.services.len() > MAX_SERVICES {
            let count = parsed.services.len();
            errors.push(format!("query: Too many: {count}: must have at most {MAX_SERVICES} items"));
        }
        match (parsed.files.as_slice(), parsed.services.as_slice()) {
            ([], []) if !asked => errors.push("query: Required value: cannot be empty with options".into()),
            ([_, ..], [_, ..]) => errors.push("query: Invalid value: cannot specify a file and service".into()),
            ([_, _, ..], _) => errors.push("query: Invalid value: cannot specify more than one file".into()),
            ([file], _) if !parsed.options.is_empty() => {
                errors.push(format!("query: Invalid value: [{file:?}]: cannot specify file with options"));
            }
            ([file], _) if !matches!(Found::open(root, file), Ok(Found::File(_))) => {
                errors.push(format!("query: Invalid value: [{file:?}]: no such file"));
            }
            _ => {}
        }
        if since.zip(until).is_some_and(|(since, until)| since > until) {
            errors.push("untilTime: Invalid value: must be after `sinceTime`".into());
        }
        match errors.as_slice() {
            [] => Ok(Some(parsed)),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    async fn answer(self, root: &Path) -> Response<ProxyBody> {
        let mut whole: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
        for file in &self.files {
            if let Ok(Found::File(file)) = Found::open(root, file) {
                whole = Box::new(whole.chain(tokio::fs::File::from_std(file)));
            }
        }
        let (mut native, mut in_files) = (Vec::new(), Vec::new());
        for service in &self.services {
            if logs_to_journal(service).await { native.push(service) } else { in_files.push(service) }
        }
        if !native.is_empty() {
            let mut command = tokio::process::Command::new("journalctl");
            command.args(["--utc", "--no-pager", "--output=short-precise"]).args(&self.options);
            for service in native {
                command.arg(format!("--unit={service}"));
            }
            whole = Box::new(whole.chain(said(command, QUERY_LIMIT)));
        }
        if !in_files.is_empty() && !self.options.is_empty() {
            let names: Vec<&str> = in_files.iter().map(|name| name.as_str()).collect();
            let note = format!(
                "\noptions present and query resolved to log files for [{}]\ntry without specifying options\n",
                names.join(" ")
            );
            return stream(whole.chain(std::io::Cursor::new(note.into_bytes())));
        }
        for service in in_files {
            let places = [service.clone(), format!("{service}.log"), format!("{service}/{service}.log")];
            let found = places.iter().find_map(|place| match Found::open(root, place) {
                Ok(Found::File(file)) => Some(file),
                _ => None,
            });
            whole = match found {
                Some(file) => Box::new(whole.chain(tokio::fs::File::from_std(file))),
                None => {
                    let note = format!("\nlog not found for {service}\n");
                    Box::new(whole.chain(std::io::Cursor::new(note.into_bytes())))
                }
            };
        }
        stream(whole)
    }
}

/// `foo.log` is as good a query as `foo`.
fn is_log_name(name: &str) -> bool {
    let stem = name.strip_suffix(".log").unwrap_or_default();
    !stem.is_empty() && stem.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@'))
}

/// Whether the journal has anything of the service.
async fn logs_to_journal(service: &str) -> bool {
    let mut command = tokio::process::Command::new("journalctl");
    command.args(["--utc", "--no-pager", "--output=short-precise", "--lines=1"]).arg(format!("--unit={service}"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(QUERY_LIMIT, command.output()).await {
        Ok(Ok(output)) => output.status.success() && !output.stdout.trim_ascii().starts_with(b"-- No entries"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A journal of any length goes through little memory.
    #[tokio::test]
    async fn what_is_said_is_told_at_once() {
        let (in_time, mut bytes) = (Duration::from_secs(20), vec![0u8; 8]);
        let mut text = String::new();
        said(shell("echo out; echo err >&2"), in_time).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "out\nerr\n");
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("pid");
        let mut endless = said(shell(&format!("echo $$ > {}; exec yes", note.display())), in_time);
        endless.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"y\ny\ny\ny\n");
        let pid: i32 = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        drop(endless);
        let process = format!("/proc/{pid}/stat");
        let gone = async {
            // Reaped, or about to be.
            while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(in_time, gone).await.expect("the program ends with its reader");
        let mut text = String::new();
        said(shell("echo a; exec sleep 60"), Duration::from_millis(300)).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "a\n\nerror: journal output not available\n");
    }

    #[test]
    fn nothing_outside_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/a"), "inside").unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("sub/a", root.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("evil")).unwrap();
        std::os::unix::fs::symlink("/", root.join("root")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for (path, good) in [
            ("sub/a", true),
            ("/link", true),
            ("", true),
            ("evil", false),
            ("../secret", false),
            ("root/etc/passwd", false),
            ("pipe", false),
            ("absent", false),
        ] {
            assert_eq!(Found::open(&root, path).is_ok(), good, "{path}");
        }
    }

    #[test]
    fn queries() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "").unwrap();
        for (query, complaint) in [
            ("query=kubelet&tailLines=5&boot=-1", ""),
            ("query=d/f", ""),
            ("query=%20", "query cannot be empty"),
            ("tailLines=5", "cannot be empty with options"),
            ("query=kubelet&tailLines=100001", "must be between 0 and 100000, inclusive"),
            ("query=kubelet&tailLines=x", "tailLines: Invalid value: \"x\""),
            ("query=kubelet&boot=1", "must be less than 1"),
            ("query=a;b", "unsupported characters"),
            ("query=a&query=b&query=c&query=d&query=e", "Too many: 5"),
            ("query=d/f&query=kubelet", "cannot specify a file and service"),
            ("query=d/f&tailLines=1", "cannot specify file with options"),
            ("query=../etc/passwd", "no such file"),
            ("query=kubelet&sinceTime=yesterday", "invalid time format"),
            ("query=k&sinceTime=2024-01-02T00:00:00Z&untilTime=2024-01-01T00:00:00Z", "must be after `sinceTime`"),
        ] {
            match Query::parse(query, dir.path()) {
                Ok(parsed) => assert!(parsed.is_some() && complaint.is_empty(), "{query}"),
                Err(error) => assert!(!complaint.is_empty() && error.contains(complaint), "{query}: {error}"),
            }
        }
        assert_eq!(Query::parse("x=1", dir.path()), Ok(None));
    }

    #[tokio::test]
    async fn logs_of_services_in_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thing.log"), "said\n").unwrap();
        let body = async |query: &str| {
            let response = answer(dir.path(), "", query, true).await;
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        };
        assert_eq!(body("query=thing").await, "said\n");
        assert_eq!(body("query=none").await, "\nlog not found for none\n");
        assert!(body("query=thing&tailLines=1").await.contains("try without specifying options"));
        assert!(body("").await.contains("<a href=\"thing.log\">thing.log</a>"));
    }
}
