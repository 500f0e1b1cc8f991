//! An etcd of one's own on loopback: for tests and benches. It ends with the process that started it, however that ends.

use std::{
    io::{BufRead, BufReader, Error, Result},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A running etcd.
pub struct Etcd {
    keeper: Child,
    pid: Pid,
    client_port: u16,
    peer_port: u16,
    dir: PathBuf,
    flags: Vec<String>,
}

/// Runs etcd, tells its number and ends it when standard input does.
const KEEPER: &str = r#"etcd "$@" >>"$0" 2>&1 & echo $!; read -r _; kill -9 $! 2>/dev/null; wait"#;

impl Etcd {
    /// Starts the `etcd` program with its data under `dir`, on ports that are free, with these flags besides.
    pub fn start(dir: &Path, flags: &[&str]) -> Result<Self> {
        let free = || Ok::<_, Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let mut last = None;
        // Somebody else may take a port in between.
        for _ in 0..5 {
            let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            match Self::run(dir.to_owned(), free()?, free()?, flags) {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::other("etcd was not started")))
    }

    fn run(dir: PathBuf, client_port: u16, peer_port: u16, flags: Vec<String>) -> Result<Self> {
        let client = format!("{}://127.0.0.1:{client_port}", scheme(&flags));
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(KEEPER).arg(dir.join("etcd.log")).args(["--name", "one", "--log-level", "warn"]);
        command.arg("--data-dir").arg(dir.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("one={peer}")]).args(&flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| Error::other("etcd has no pid"))?;
        let etcd = Self { keeper, pid, client_port, peer_port, dir, flags };
        let deadline = Instant::now() + START;
        while std::net::TcpStream::connect(("127.0.0.1", client_port)).is_err() {
            if Instant::now() > deadline || !Path::new(&format!("/proc/{}", etcd.pid.as_raw_nonzero())).exists() {
                let log = std::fs::read_to_string(etcd.dir.join("etcd.log")).unwrap_or_default();
                return Err(Error::other(format!("etcd does not listen: {log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(etcd)
    }

    /// `http://127.0.0.1:…`; `https` when the flags name a certificate.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", scheme(&self.flags), self.client_port)
    }

    /// Sends it a signal, such as STOP, CONT or KILL. After STOP none of its threads runs any more.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal)?;
        // The signal is there at once, but each thread goes on until it has noticed.
        while signal == Signal::STOP && !self.is_stopped()? {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_stopped(&self) -> Result<bool> {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero()))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            // The state comes after the name, which may have anything in it.
            if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        // The keeper ends when etcd has.
        let _ = self.keeper.wait();
    }

    /// Starts it again on the same data and ports, after [`Etcd::stop`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let again = Self::run(self.dir.clone(), self.client_port, self.peer_port, self.flags.clone())?;
        *self = again;
        Ok(())
    }
}

fn scheme(flags: &[String]) -> &'static str {
    if flags.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}
