//! The command line: what can be asked for, and which file answers. One file per family of commands.

mod cluster;
mod convert;
mod image;
mod node;
mod store;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use keelson_cluster::layout::Setting;

pub(crate) use node::{cni, node_init};

/// Kubernetes, written anew in Rust: one binary that is the control plane, the node and the tools.
#[derive(Parser)]
#[command(name = "keelson", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a local cluster run, or heal it: idempotent
    Up(cluster::Up),
    /// Stop a local cluster; what it stores stays
    Down(Selected),
    /// Stop a local cluster and remove all of it
    Delete(Selected),
    /// Show whether a local cluster runs
    Status(Selected),
    /// Print a kubeconfig for a local cluster's admin
    Kubeconfig(Selected),
    /// Print the logs of a local cluster's components
    Logs(cluster::Logs),
    /// Check what this machine has and lacks for running clusters
    Doctor(DataDir),
    /// Run a control plane: API server, controller manager, scheduler, cloud controller manager
    Server(Box<crate::server::Server>),
    /// Run a node: container runtime, kubelet, service proxy, cluster DNS
    Agent(crate::agent::Agent),
    /// Run the machine's containerd for a node; started by the node's init
    #[command(hide = true)]
    Containerd(crate::containerd::Containerd),
    /// Put images into a local cluster, list and remove them
    Image {
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// Look into a node's container runtime, with upstream crictl's commands and flags
    Crictl(keelson_crictl::Crictl),
    /// Convert manifests to another encoding, with no server: nothing is defaulted or validated
    Convert(convert::Convert),
    /// Measure Keelson against its budgets, on a cluster made for it
    Bench(crate::bench::Bench),
    /// Move, back up and restore what a control plane stores
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// List local clusters
    Profile {
        #[command(subcommand)]
        command: cluster::ProfileCommand,
    },
}

/// Which local cluster.
#[derive(Args, Clone)]
struct Selected {
    /// The cluster's name
    #[arg(long, short, default_value = "keelson", env = "KEELSON_PROFILE")]
    profile: String,
    #[command(flatten)]
    data: DataDir,
}

#[derive(Args, Clone)]
struct DataDir {
    /// Where local clusters keep their files
    #[arg(long = "data-dir", default_value = "/var/lib/keelson/clusters", env = "KEELSON_DATA_DIR")]
    data_dir: PathBuf,
}

/// Anything that goes wrong in a command, to be shown to the user.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Threads of a component, at most: it waits much more than it computes, and each costs memory.
const WORKERS: usize = 2;

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Up(command) => blocking(command.run()),
        Command::Down(selected) => cluster::down(&selected),
        Command::Delete(selected) => cluster::delete(&selected),
        Command::Status(selected) => return finish_with(blocking(cluster::status(&selected))),
        Command::Kubeconfig(selected) => cluster::kubeconfig(&selected),
        Command::Logs(command) => command.run(),
        Command::Doctor(data) => return finish_with(blocking(cluster::doctor(&data))),
        Command::Server(command) => component(command.run()),
        Command::Agent(command) => component(command.run()),
        Command::Containerd(command) => component(command.run()),
        Command::Image { command } => blocking(command.run()),
        Command::Crictl(command) => return crictl(command),
        Command::Convert(command) => command.run(),
        Command::Store { command } => blocking(command.run()),
        Command::Bench(command) => blocking(command.run()),
        Command::Profile { command } => command.run(),
    };
    finish_with(result.map(|()| ExitCode::SUCCESS))
}

/// The program that is called `crictl`, by a link to this one.
#[derive(Parser)]
#[command(name = "crictl", version, max_term_width = 100)]
struct CrictlCli {
    #[command(flatten)]
    command: keelson_crictl::Crictl,
}

/// Runs as `crictl`.
pub(crate) fn crictl_main() -> ExitCode {
    crictl(CrictlCli::parse().command)
}

fn crictl(command: keelson_crictl::Crictl) -> ExitCode {
    let run = || -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let code = runtime.block_on(command.run(&mut std::io::stdout()));
        // Reading standard input may go on until somebody types; nobody waits for that.
        runtime.shutdown_background();
        Ok(ExitCode::from(code?))
    };
    finish_with(run())
}

/// Whether the program that the setting is for knows the flag: a node's init would start it again and again.
fn check_setting(setting: &Setting) -> Result<(), Failure> {
    let program = setting.program().unwrap_or_default();
    let command = Cli::command();
    let flags = command.find_subcommand(program).map(clap::Command::get_arguments);
    if flags.is_some_and(|mut flags| flags.any(|flag| flag.get_long() == Some(setting.flag.as_str()))) {
        return Ok(());
    }
    Err(format!(
        "--extra-config: {} has no flag --{}; `keelson {program} --help` lists them",
        setting.component, setting.flag
    )
    .into())
}

fn finish_with(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Runs a command's future on a small runtime.
fn blocking<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Runs a component until it ends.
fn component(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    crate::logging::init();
    // A node's init keeps blocked what it waits for, and its children inherit that.
    nix::sys::signal::SigSet::all().thread_unblock()?;
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?.block_on(future)
}
