//! Local clusters: `up`, `down`, `delete`, `status`, `kubeconfig`, `logs`, `doctor`, `profile`.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use keelson_cluster::layout::{Layout, Mount, Runtime, Setting};
use keelson_cluster::{kubeconfig as config_file, lifecycle, preflight};

use super::{DataDir, Failure, Selected};

/// `keelson up`
#[derive(Args)]
pub(super) struct Up {
    #[command(flatten)]
    selected: Selected,
    /// How many nodes; a running cluster can be given more
    #[arg(long, short)]
    nodes: Option<usize>,
    /// The API server's port on 127.0.0.1 [default: the first free one from 6443 on]
    #[arg(long)]
    port: Option<u16>,
    /// The container runtime of the nodes [default: keelson]
    #[arg(long, value_enum)]
    container_runtime: Option<ContainerRuntime>,
    /// A flag of a component, as `apiserver.audit-policy-file=/mnt/policy.yaml`; may be repeated
    #[arg(long, value_name = "COMPONENT.FLAG=VALUE")]
    extra_config: Vec<Setting>,
    /// A directory of this machine that every node sees below /mnt, /var or /etc; may be repeated
    #[arg(long, value_name = "HOST:NODE")]
    mount: Vec<Mount>,
    /// Where to write the context [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ContainerRuntime {
    /// Keelson's own
    Keelson,
    /// The machine's /usr/bin/containerd, one in each node
    Containerd,
}

impl From<ContainerRuntime> for Runtime {
    fn from(runtime: ContainerRuntime) -> Self {
        match runtime {
            ContainerRuntime::Keelson => Self::Keelson,
            ContainerRuntime::Containerd => Self::Containerd,
        }
    }
}

impl Up {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let start = Instant::now();
        for setting in &self.extra_config {
            super::check_setting(setting)?;
        }
        let home = std::env::home_dir();
        let kubeconfig = match self.kubeconfig {
            Some(path) => path,
            None => config_file::default_path(std::env::var("KUBECONFIG").ok().as_deref(), home.as_deref())
                .ok_or("there is no home directory: say where with --kubeconfig")?,
        };
        let options = lifecycle::UpOptions {
            profile: self.selected.profile,
            data_dir: std::path::absolute(self.selected.data.data_dir)?,
            nodes: self.nodes,
            port: self.port,
            runtime: self.container_runtime.map(Runtime::from),
            extra_config: Some(self.extra_config).filter(|all| !all.is_empty()),
            mounts: Some(self.mount).filter(|all| !all.is_empty()),
            kubeconfig: std::path::absolute(kubeconfig)?,
            exe: std::env::current_exe()?,
        };
        let profile = lifecycle::up(&options, |step| println!("  {:>8}  {}", show(step.took), step.what)).await?;
        println!("  {:>8}  in all: cluster {:?} is ready", show(start.elapsed()), profile.name);
        println!("\nkubectl is set to use it (context {:?}). Try: kubectl get nodes", profile.context());
        Ok(())
    }
}

pub(super) fn down(selected: &Selected) -> Result<(), Failure> {
    let profile = lifecycle::down(&selected.data.data_dir, &selected.profile)?;
    println!("cluster {:?} is stopped; `keelson up --profile {}` starts it again", profile.name, profile.name);
    Ok(())
}

pub(super) fn delete(selected: &Selected) -> Result<(), Failure> {
    let profile = lifecycle::delete(&selected.data.data_dir, &selected.profile)?;
    println!("cluster {:?} is deleted", profile.name);
    Ok(())
}

/// Exit code 0 when everything runs, else 1.
pub(super) async fn status(selected: &Selected) -> Result<ExitCode, Failure> {
    let status = lifecycle::status(&selected.data.data_dir, &selected.profile).await?;
    println!("cluster   {}", status.profile.name);
    println!("endpoint  https://127.0.0.1:{}", status.profile.port);
    println!("context   {} in {}", status.profile.context(), status.profile.kubeconfig.display());
    let api = match &status.api {
        Some(Ok(())) => "ready".to_string(),
        Some(Err(why)) => format!("not ready: {why}"),
        None => "stopped".to_string(),
    };
    println!("API       {api}");
    for (node, init) in &status.nodes {
        match init {
            Some(init) => println!("node      {} ({}) runs as process {}", node.name, node.ip, init.pid),
            None => println!("node      {} ({}) is stopped", node.name, node.ip),
        }
    }
    let all_well = status.api == Some(Ok(())) && status.nodes.iter().all(|(_, init)| init.is_some());
    if !all_well {
        println!("\n`keelson up --profile {}` starts what is missing", status.profile.name);
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn kubeconfig(selected: &Selected) -> Result<(), Failure> {
    print!("{}", lifecycle::admin_kubeconfig(&selected.data.data_dir, &selected.profile)?);
    Ok(())
}

/// Exit code 0 when nothing is missing, else 1.
pub(super) async fn doctor(data: &DataDir) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for check in preflight::check(&data.data_dir).await {
        match check.outcome {
            Ok(found) => println!("ok       {:8} {found}", check.name),
            Err(problem) => {
                println!("MISSING  {:8} {}\n                  {}", check.name, problem.what, problem.hint);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

#[derive(Subcommand)]
pub(super) enum ProfileCommand {
    /// List the clusters of this machine
    List(DataDir),
}

impl ProfileCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::List(data) = self;
        println!("{:24} {:>5} {:>6}  KUBECONFIG", "NAME", "NODES", "PORT");
        for profile in lifecycle::profiles(&data.data_dir) {
            let config = profile.kubeconfig.display();
            println!("{:24} {:>5} {:>6}  {config}", profile.name, profile.nodes.len(), profile.port);
        }
        Ok(())
    }
}

/// `keelson logs`
#[derive(Args)]
pub(super) struct Logs {
    #[command(flatten)]
    selected: Selected,
    /// Only this node
    #[arg(long)]
    node: Option<String>,
    /// Only this component: server, agent, containerd, init
    #[arg(long)]
    component: Option<String>,
    /// How many lines of each, from the end
    #[arg(long, default_value_t = 100)]
    tail: usize,
    /// Go on as lines are written (needs one log to be left: use --node and --component)
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let data_dir = &self.selected.data.data_dir;
        let layout = Layout::new(data_dir, &self.selected.profile)?;
        let profile = layout.read_profile()?.ok_or_else(|| {
            format!("there is no cluster named {:?} in {}", self.selected.profile, data_dir.display())
        })?;
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for node in profile.nodes.iter().filter(|n| self.node.as_ref().is_none_or(|only| *only == n.name)) {
            let dir = layout.node_logs(&node.name);
            for component in ["init", "server", "containerd", "agent"] {
                let file = dir.join(format!("{component}.log"));
                if self.component.as_deref().is_none_or(|only| only == component) && file.exists() {
                    files.push((format!("{}/{component}", node.name), file));
                }
            }
        }
        if self.follow && files.len() != 1 {
            return Err(format!("--follow takes one log, and {} match: add --node and --component", files.len()).into());
        }
        let mut out = std::io::stdout().lock();
        for (name, file) in &files {
            if files.len() > 1 {
                writeln!(out, "==> {name}")?;
            }
            let end = print_tail(&mut out, file, self.tail)?;
            if self.follow {
                follow(&mut out, file, end)?;
            }
        }
        Ok(())
    }
}

/// Prints the last `lines` lines and returns the size of what was read.
fn print_tail(out: &mut impl std::io::Write, file: &Path, lines: usize) -> std::io::Result<u64> {
    let mut last = std::collections::VecDeque::with_capacity(lines.min(10_000));
    let mut reader = BufReader::new(std::fs::File::open(file)?);
    let (mut line, mut size) = (Vec::new(), 0);
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line)? {
            0 => break,
            read => size += read as u64,
        }
        if last.len() == lines {
            last.pop_front();
        }
        if lines > 0 {
            last.push_back(line.clone());
        }
    }
    for line in last {
        out.write_all(&line)?;
    }
    Ok(size)
}

/// Prints what is appended, until the program is stopped. A log that was put aside is followed from its new start.
fn follow(out: &mut impl std::io::Write, file: &Path, mut position: u64) -> std::io::Result<()> {
    loop {
        let mut reader = std::fs::File::open(file)?;
        if reader.metadata()?.len() < position {
            position = 0;
        }
        reader.seek(SeekFrom::Start(position))?;
        position += std::io::copy(&mut reader, out)?;
        out.flush()?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn show(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.2} s", took.as_secs_f64())
    }
}
