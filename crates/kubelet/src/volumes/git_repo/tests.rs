use super::*;
use keelson_testbed::git::GitServer;

struct Place {
    dir: tempfile::TempDir,
    server: GitServer,
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let repositories = dir.path().join("repositories");
        fs::create_dir(&repositories).unwrap();
        let server = GitServer::start(&repositories).await.unwrap();
        Place { dir, server }
    }

    fn marker(&self) -> PathBuf {
        self.dir.path().join("marker")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("volumes").join(name)
    }

    async fn set_up(&self, name: &str, repository: &str, revision: &str, directory: &str) -> Result<(), String> {
        let repo = repo(repository, revision, directory)?;
        let never = CancellationToken::new();
        repo.set_up(&self.volume(name), None, &never).await.map_err(|error| error.to_string())
    }
}

fn repo(repository: &str, revision: &str, directory: &str) -> Result<GitRepo, String> {
    let text = |text: &str| Some(text.to_string());
    let source =
        GitRepoVolumeSource { repository: repository.into(), revision: text(revision), directory: text(directory) };
    GitRepo::new(&source).map_err(|error| error.to_string())
}

#[tokio::test]
async fn filled_as_it_is_asked_for() {
    let place = Place::new().await;
    place.server.commit("shop", "main", &[("file", "new"), ("deep/file", "1")]);
    place.server.commit("shop", "old", &[("file", "old")]);
    place.server.git("shop", &["checkout", "--quiet", "main"]);
    let commit = place.server.git("shop", &["rev-parse", "old"]);
    let url = place.server.url("shop");
    for (name, revision, directory, file, content) in [
        ("plain", "", "", "shop/file", "new"),
        ("branch", "old", "", "shop/file", "old"),
        ("commit", commit.trim(), ".", "file", "old"),
        ("named", "", "src", "src/deep/file", "1"),
        ("both", "old", "src", "src/file", "old"),
        ("nested", "", "a/b", "a/b/file", "new"),
    ] {
        place.set_up(name, &url, revision, directory).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        let found = fs::read_to_string(place.volume(name).join(file)).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(found, content, "{name}");
        assert_eq!(fs::metadata(place.volume(name)).unwrap().permissions().mode() & 0o7777, 0o777);
    }
    // What is there stays, whatever became of the repository; a container may have written.
    fs::write(place.volume("plain").join("own"), "x").unwrap();
    place.set_up("plain", "git://127.0.0.1:1/none", "", "").await.unwrap();
    assert!(place.volume("plain").join("own").exists());
    // With a group.
    let shared = place.volume("shared");
    repo(&url, "", ".").unwrap().set_up(&shared, Some(4242), &CancellationToken::new()).await.unwrap();
    let metadata = fs::metadata(shared.join("file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), 4242);
}

#[tokio::test]
async fn what_cannot_be_had_leaves_nothing() {
    let place = Place::new().await;
    place.server.commit("shop", "main", &[("file", "new")]);
    let url = place.server.url("shop");
    let why = place.set_up("v", &url, "no-such", "").await.unwrap_err();
    assert!(why.starts_with("failed to exec 'git checkout no-such': ") && why.ends_with(": exit status 128"), "{why}");
    let why = place.set_up("v", &place.server.url("none"), "", "").await.unwrap_err();
    assert!(why.starts_with("failed to exec 'git clone -- git://127.0.0.1:"), "{why}");
    assert!(why.ends_with(": exit status 128"), "{why}");
    assert!(!place.volume("v").exists());
    // And does not stand in the way of what can.
    place.set_up("v", &url, "main", "").await.unwrap();
    assert_eq!(fs::read_to_string(place.volume("v").join("shop/file")).unwrap(), "new");
}

#[tokio::test]
async fn settings_that_lead_elsewhere_are_refused() {
    let url = "git://127.0.0.1:1/x";
    for (repository, revision, directory, complaint) in [
        ("--upload-pack=touch /x", "", "", "\"--upload-pack=touch /x\" is an invalid value for repository"),
        (url, "--orphan=x", "", "\"--orphan=x\" is an invalid value for revision"),
        (url, "", "--bare", "\"--bare\" is an invalid value for directory"),
        (url, "", "../x", "\"../x\" is not a valid directory"),
        (url, "", "a/../../x", "\"a/../../x\" is not a valid directory"),
        (url, "", "/etc", "\"/etc\" is not a valid directory"),
        (url, "main", "a/.git", "\"a/.git\" is not a valid directory, it must not contain a directory separator"),
    ] {
        let why = repo(repository, revision, directory).unwrap_err();
        assert!(why.starts_with(complaint), "{why}");
    }
    // The node's own repositories and programs are no servers.
    let place = Place::new().await;
    place.server.commit("own", "main", &[("secret", "x")]);
    let own = place.dir.path().join("repositories/own").display().to_string();
    let touch = format!("ext::sh -c touch% {}", place.marker().display());
    for (repository, transport) in [
        (own.clone(), "file"),
        (format!("file://{own}"), "file"),
        (touch, "ext"),
        ("ssh://127.0.0.1:1/x".into(), "ssh"),
    ] {
        let why = place.set_up("v", &repository, "", "x").await.unwrap_err();
        assert!(why.contains(&format!("transport '{transport}' not allowed")), "{why}");
    }
    assert!(!place.marker().exists());
}

/// A repository that looks like a repository's own directory, hooks included (CVE-2024-10220), one with submodules, and
/// ones whose files would come to lie where they must not.
#[tokio::test]
async fn repositories_made_to_do_harm() {
    let place = Place::new().await;
    let hook = format!("#!/bin/sh\ntouch {}\n", place.marker().display());
    let config = format!("[core]\n\tbare = false\n\tfsmonitor = touch {}\n", place.marker().display());
    let head = "ref: refs/heads/main\n";
    let hooks = ["post-checkout", "post-merge", "post-index-change", "reference-transaction"];
    let paths: Vec<String> = hooks.iter().map(|name| format!("hooks/{name}")).collect();
    let mut files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), hook.as_str())).collect();
    files.extend([("config", config.as_str()), ("HEAD", head), ("objects/x", ""), ("refs/x", "")]);
    place.server.commit("looks", "main", &files);
    for path in &paths {
        place.server.git("looks", &["update-index", "--chmod=+x", path]);
    }
    place.server.git("looks", &["commit", "--quiet", "--message", "executable"]);
    for (name, directory) in [("dot-git", ".git"), ("plain", ""), ("here", ".")] {
        place.set_up(name, &place.server.url("looks"), "main", directory).await.unwrap();
    }
    let attributes = format!("[filter \"x\"]\n\tsmudge = touch {}\n", place.marker().display());
    place.server.commit("filters", "main", &[(".gitattributes", "* filter=x\n"), (".gitconfig", &attributes)]);
    place.set_up("filters", &place.server.url("filters"), "main", "").await.unwrap();
    assert!(!place.marker().exists(), "something of the repository was run");

    place.server.commit("inner", "main", &[("file", "x")]);
    let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {}\n", place.server.url("inner"));
    place.server.commit("outer", "main", &[(".gitmodules", &modules)]);
    let commit = place.server.git("inner", &["rev-parse", "HEAD"]);
    let link = format!("160000,{},s", commit.trim());
    place.server.git("outer", &["update-index", "--add", "--cacheinfo", &link]);
    place.server.git("outer", &["commit", "--quiet", "--message", "submodule"]);
    place.set_up("outer", &place.server.url("outer"), "", ".").await.unwrap();
    assert_eq!(fs::read_dir(place.volume("outer").join("s")).unwrap().count(), 0, "submodules are not fetched");

    // A link that leads out is a link; nothing is written through it.
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let (blob, target) = (write_object(&place, "evil"), write_object(&place, &outside.display().to_string()));
    let inner = make_tree(&place, &format!("100644 blob {blob}\tfile\n"));
    for (name, entries) in [
        ("through", format!("120000 blob {target}\tlink\n040000 tree {inner}\tlink\n")),
        ("own", format!("040000 tree {inner}\t.git\n")),
        ("up", format!("040000 tree {inner}\t..\n")),
    ] {
        let tree = make_tree(&place, &entries);
        let commit = place.server.git("inner", &["commit-tree", "-m", name, &tree]);
        place.server.git("inner", &["branch", name, commit.trim()]);
        // Git refuses, or leaves the entry out: both are fine.
        let _ = place.set_up(name, &place.server.url("inner"), name, "d").await;
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name}");
        for escaped in [place.volume(name).join("file"), place.volume(name).join("d/.git/file")] {
            assert!(!escaped.exists(), "{name}: {escaped:?}");
        }
    }
    assert!(!place.marker().exists());
}

fn write_object(place: &Place, text: &str) -> String {
    let file = place.dir.path().join("object");
    fs::write(&file, text).unwrap();
    place.server.git("inner", &["hash-object", "-w", &file.display().to_string()]).trim().to_string()
}

/// A tree that Git itself would not make.
fn make_tree(place: &Place, entries: &str) -> String {
    let mut bytes = Vec::new();
    for line in entries.lines() {
        let (head, name) = line.split_once('\t').unwrap();
        let mut parts = head.split(' ');
        let (mode, id) = (parts.next().unwrap(), parts.nth(1).unwrap());
        bytes.extend(format!("{} {name}\0", mode.trim_start_matches('0')).bytes());
        bytes.extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
    }
    let file = place.dir.path().join("object");
    fs::write(&file, bytes).unwrap();
    let arguments = ["hash-object", "-w", "-t", "tree", "--literally", &file.display().to_string()];
    place.server.git("inner", &arguments).trim().to_string()
}

/// A server that says nothing is given up, with all processes that wait for it; and so when the pod ends.
#[tokio::test]
async fn no_server_holds_a_pod_for_ever() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new().await;
    let repo = repo(&format!("git://{}/x", silent.local_addr().unwrap()), "", "").unwrap();
    let (never, short) = (CancellationToken::new(), Duration::from_millis(300));
    let why = repo.set_up_within(&place.volume("v"), None, &never, short).await.unwrap_err().to_string();
    assert!(why.ends_with("it took longer than 300ms"), "{why}");
    let (mut connection, _) = silent.accept().await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut rest)).await;
    closed.expect("whoever waited is gone").unwrap();

    let ends = CancellationToken::new();
    let volume = place.volume("v");
    let (set_up, ()) = tokio::join!(repo.set_up(&volume, None, &ends), async {
        let _connection = silent.accept().await.unwrap();
        ends.cancel();
    });
    assert_eq!(set_up.unwrap_err().to_string(), "the pod ends");
}

#[tokio::test]
async fn words_have_a_limit() {
    let mut flood = Command::new("sh");
    flood.args(["-c", "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 3"]);
    let why = run(&mut flood, "flood").await.unwrap_err().to_string();
    assert!(why.len() < WORDS + 100 && why.ends_with(": exit status 3"), "{}", why.len());
}
