//! A real cluster for a test: started by the real command, used with the real kubectl, and gone with its value, also when
//! the test fails.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that a test waits for a condition, unless it says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running local cluster of its own name, in a directory of its own.
pub struct Cluster {
    exe: PathBuf,
    kubectl: PathBuf,
    profile: String,
    dir: tempfile::TempDir,
    /// In the environment of its components.
    variable: Option<(&'static str, &'static str)>,
}

impl Cluster {
    /// `keelson up` with further arguments. `exe` is the binary under test; kubectl is the one that `KEELSON_KUBECTL` names
    /// (`make test` sets it).
    ///
    /// # Panics
    /// When the cluster does not come up.
    pub fn up(exe: &str, args: &[&str]) -> Self {
        let cluster = Self::planned(exe);
        cluster.keelson_ok("up", args);
        cluster
    }

    /// The same, with a directory that nodes see as `/mnt/shared` and the test as `path("shared")`; it has `files` (name, text)
    /// when the cluster starts.
    ///
    /// # Panics
    /// When the cluster does not come up.
    pub fn up_with_files(exe: &str, files: &[(&str, &str)], args: &[&str]) -> Self {
        let cluster = Self::planned(exe);
        let shared = cluster.share(files);
        cluster.keelson_ok("up", &[&[shared.as_str()], args].concat());
        cluster
    }

    /// The same, whose components have a variable in their environment.
    ///
    /// # Panics
    /// When the cluster does not come up.
    pub fn up_with_variable(
        exe: &str,
        variable: (&'static str, &'static str),
        files: &[(&str, &str)],
        args: &[&str],
    ) -> Self {
        let mut cluster = Self::planned(exe);
        cluster.variable = Some(variable);
        let shared = cluster.share(files);
        cluster.keelson_ok("up", &[&[shared.as_str()], args].concat());
        cluster
    }

    /// Makes the shared directory; the argument of `up` that mounts it.
    fn share(&self, files: &[(&str, &str)]) -> String {
        let shared = self.path("shared");
        std::fs::create_dir(&shared).expect("a directory");
        for (name, text) in files {
            std::fs::write(shared.join(name), text).expect("writing a file");
        }
        format!("--mount={}:/mnt/shared", shared.display())
    }

    fn planned(exe: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let kubectl = std::env::var_os("KEELSON_KUBECTL").map(PathBuf::from).expect("KEELSON_KUBECTL: run `make test`");
        Self {
            exe: exe.into(),
            kubectl,
            profile: format!("test-{}-{number}", std::process::id()),
            dir: tempfile::Builder::new().prefix("keelson-test-").tempdir().expect("a temporary directory"),
            variable: None,
        }
    }

    /// The cluster's name.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// A file or directory for the test's own use, gone with the cluster.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `keelson COMMAND` on this cluster.
    pub fn keelson(&self, command: &str, args: &[&str]) -> Output {
        let mut keelson = Command::new(&self.exe);
        keelson.args(command.split(' ')).args(["--profile", &self.profile]).arg("--data-dir").arg(self.path("data"));
        if command == "up" {
            keelson.arg("--kubeconfig").arg(self.kubeconfig());
        }
        keelson.envs(self.variable);
        keelson.args(args).stdin(Stdio::null()).output().expect("running keelson")
    }

    /// The same, and it must succeed. Returns its standard output.
    ///
    /// # Panics
    /// When it fails, with what the components logged.
    pub fn keelson_ok(&self, command: &str, args: &[&str]) -> String {
        let output = self.keelson(command, args);
        if !output.status.success() {
            self.print_logs();
            panic!("keelson {command} {args:?} failed:\n{}", text(&output));
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The kubeconfig that `up` wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// kubectl with this cluster's kubeconfig.
    pub fn kubectl_command(&self) -> Command {
        let mut kubectl = Command::new(&self.kubectl);
        // A cache of its own: discovery must not come from another test's cluster.
        kubectl.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(self.path("kubectl-cache"));
        kubectl
    }

    /// Runs kubectl with arguments as a shell would split them, without quotes.
    pub fn try_kubectl(&self, args: &str) -> Output {
        self.run_kubectl(&args.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// The same with the arguments one by one, and a standard input.
    pub fn run_kubectl(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = self
            .kubectl_command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("running kubectl");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        // A kubectl that ends early does not read it all.
        let feed = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("waiting for kubectl");
        feed.join().expect("feeding kubectl");
        output
    }

    /// Runs kubectl, which must succeed. Returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, args: &str) -> String {
        self.check(args, &self.try_kubectl(args))
    }

    /// The same with the arguments one by one.
    pub fn kubectl_args(&self, args: &[&str]) -> String {
        self.check(&args.join(" "), &self.run_kubectl(args, ""))
    }

    /// `kubectl apply -f -` of a manifest.
    pub fn apply(&self, manifest: &str) -> String {
        self.check("apply -f -", &self.run_kubectl(&["apply", "-f", "-"], manifest))
    }

    /// Runs kubectl, which must fail. Returns its standard error.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn kubectl_fails(&self, args: &str) -> String {
        let output = self.try_kubectl(args);
        assert!(!output.status.success(), "kubectl {args} should fail, but:\n{}", text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A program or folder that `make test` fetches beside kubectl.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.kubectl.with_file_name(name)
    }

    /// Runs a line of shell in which `kubectl` and `helm` are this cluster's, each call bounded by [`TIMEOUT`]. Returns standard output
    /// and error together, as a terminal shows them, and after a failure a last line `[exit CODE]`.
    pub fn shell(&self, line: &str) -> String {
        let bound = TIMEOUT.as_secs();
        let script = format!(
            "kubectl() {{ timeout {bound} \"$KUBECTL\" --cache-dir \"$CACHE\" \"$@\"; }}\n\
             helm() {{ timeout {bound} \"$HELM\" \"$@\"; }}\nexec 2>&1\n{line}"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("KUBECTL", &self.kubectl).env("CACHE", self.path("kubectl-cache"));
        shell.env("HELM", self.tool("helm"));
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            shell.env(home, self.path("helm"));
        }
        shell.env("KUBECONFIG", self.kubeconfig()).current_dir(self.dir.path()).stdin(Stdio::null());
        let output = shell.output().expect("running a shell");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text += &format!("[exit {}]\n", output.status.code().unwrap_or(-1));
        }
        text
    }

    /// Starts a line of shell as [`Self::shell`] does, with its output in a file. It ends with the value.
    pub fn background(&self, line: &str) -> Background {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.path(&format!("background-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&path).expect("a file");
        let errors = file.try_clone().expect("a second handle");
        let mut shell = Command::new("sh");
        // `exec`, so that the process to end is kubectl itself.
        let script = format!("exec {}", line.replacen("kubectl ", "\"$KUBECTL\" --cache-dir \"$CACHE\" ", 1));
        shell.args(["-c", &script]).env("KUBECTL", &self.kubectl).env("CACHE", self.path("kubectl-cache"));
        shell.env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::piped()).stdout(file).stderr(errors);
        Background { child: shell.spawn().expect("running a shell"), path, line: line.to_owned() }
    }

    fn check(&self, args: &str, output: &Output) -> String {
        assert!(output.status.success(), "kubectl {args} failed:\n{}", text(output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until kubectl's output for `args` satisfies `condition`; returns that output.
    ///
    /// # Panics
    /// After [`TIMEOUT`], with the last output.
    pub fn wait_for(&self, args: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        wait(&format!("kubectl {args}"), TIMEOUT, || {
            let output = self.try_kubectl(args);
            last = text(&output);
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success() && condition(&out)).then_some(out)
        })
        .unwrap_or_else(|what| panic!("{what}; last:\n{last}"))
    }

    /// The process id (in the host's PID namespace) of a node's init.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn init_pid(&self, node: &str) -> u32 {
        let path = self.path("data").join(&self.profile).join("nodes").join(node).join("process.json");
        let record = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let record: serde_json::Value = serde_json::from_slice(&record).expect("a record");
        record["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
    }

    /// The ids (in the host's PID namespace) of a node's processes whose command line contains `pattern`.
    pub fn processes(&self, node: &str, pattern: &str) -> Vec<u32> {
        let cgroup = format!("/keelson/{}/{node}/", self.profile);
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let read = |file| {
                String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
            };
            read("cgroup").contains(&cgroup) && read("cmdline").replace('\0', " ").contains(pattern)
        })
        .collect()
    }

    fn print_logs(&self) {
        let logs = self.keelson("logs", &["--tail", "40"]);
        eprintln!("{}", text(&logs));
    }
}

/// A program that runs beside the test.
pub struct Background {
    child: std::process::Child,
    path: PathBuf,
    line: String,
}

impl Background {
    /// What it has written so far, errors included.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// Waits until what it has written satisfies `condition`; returns that.
    ///
    /// # Panics
    /// After [`TIMEOUT`], with what it wrote.
    pub fn wait_for(&self, condition: impl Fn(&str) -> bool) -> String {
        let seen = || Some(self.output()).filter(|output| condition(output));
        wait(&self.line, TIMEOUT, seen).unwrap_or_else(|what| panic!("{what}; wrote:\n{}", self.output()))
    }

    /// Types into its standard input.
    ///
    /// # Panics
    /// When it does not read.
    pub fn type_in(&mut self, text: &str) {
        use std::io::Write as _;
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("typing");
    }

    /// Waits until it ends by itself; returns its exit code.
    ///
    /// # Panics
    /// After [`TIMEOUT`].
    pub fn exit_code(&mut self) -> i32 {
        drop(self.child.stdin.take());
        let ended = wait(&self.line, TIMEOUT, || self.child.try_wait().expect("waiting"));
        ended.unwrap_or_else(|what| panic!("{what} to end")).code().unwrap_or(-1)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        let output = self.keelson("delete", &[]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("keelson delete failed:\n{}", text(&output));
        }
    }
}

/// Tries `attempt` until it gives something, for `timeout` at most; else says what was waited for.
pub fn wait<T>(what: &str, timeout: Duration, mut attempt: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("timed out after {timeout:?} waiting for {what}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Both outputs of a program, for people.
pub fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}
