//! A container alone: made, started, ended and deleted, by our shim's helper and by runc and crun, from one bundle.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::lifecycle::median;
use super::super::scratch::Scratch;
use super::super::{Figure, NO_BUDGET, Row, Size, millis};
use crate::cli::Failure;

const ROUNDS: usize = 20;
const LIMIT: Duration = Duration::from_secs(10);

/// Prints a row for each that is installed.
pub(in super::super) async fn beside_others(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let scratch = Scratch::new()?;
    let root = scratch.path().to_owned();
    let rounds = size.of(ROUNDS);
    let rows = tokio::task::spawn_blocking(move || {
        let mut rows = vec![("keelson's shim", measure(rounds, |round| ours(&root, round))?)];
        for program in ["runc", "crun"] {
            if Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
                rows.push((program, measure(rounds, |round| other(program, &root, round))?));
            }
        }
        Ok::<_, Failure>(rows)
    })
    .await??;
    for (program, took) in rows {
        let what = format!("a container alone, made, started, deleted: {program}");
        print(Row::new(what, Figure::Millis(NO_BUDGET), took));
    }
    Ok(())
}

fn measure(rounds: usize, mut once: impl FnMut(usize) -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let took: Result<Vec<f64>, Failure> = (0..rounds).map(|round| once(round).map(millis)).collect();
    Ok(median(took?))
}

/// A bundle in `root/name`: busybox that sleeps, in namespaces and a control group of its own.
fn bundle(root: &Path, name: &str) -> Result<PathBuf, Failure> {
    let dir = root.join(name);
    for inside in ["bin", "proc", "dev", "sys"] {
        std::fs::create_dir_all(dir.join("rootfs").join(inside))?;
    }
    std::fs::copy(super::BUSYBOX, dir.join("rootfs/bin/busybox"))
        .map_err(|error| format!("{}: {error}; install the package busybox-static", super::BUSYBOX))?;
    let mount = |destination: &str, kind: &str| json!({"destination": destination, "type": kind, "source": kind});
    let namespaces = ["pid", "mount", "network", "ipc", "uts"].map(|kind| json!({"type": kind}));
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "sleep", "1000"],
            "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        },
        "root": {"path": dir.join("rootfs"), "readonly": false},
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs")],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/keelson-bench-{}/{name}", std::process::id()),
            "resources": {"memory": {"limit": 64 << 20}}},
    });
    std::fs::write(dir.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(dir)
}

fn run(command: &mut Command) -> Result<(), Failure> {
    // The container keeps the standard streams: a pipe would not end before it.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn ours(root: &Path, round: usize) -> Result<Duration, Failure> {
    let dir = bundle(root, &format!("ours-{round}"))?;
    let launch = json!({
        "id": format!("ours-{round}"), "tty": false, "stdin": false, "stdin_once": false, "log_path": null, "own_pid_namespace": true,
        "cgroup": format!("/keelson-bench-{}/ours-{round}", std::process::id()), "exit_file": dir.join("exit.json"), "uid": 0,
    });
    std::fs::write(dir.join("launch.json"), serde_json::to_vec(&launch)?)?;
    let begin = Instant::now();
    run(Command::new(std::env::current_exe()?).args(["shim", "create"]).arg(&dir))?;
    let result: Value = serde_json::from_slice(&std::fs::read(dir.join("result.json"))?)?;
    let pid = result.pointer("/Started/pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw).ok_or_else(|| format!("no container: {result}"))?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, Some(&rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 }))?;
    remove_groups(&format!("keelson-bench-{}/ours-{round}", std::process::id()))?;
    std::fs::remove_dir_all(dir.join("lc"))?;
    let took = begin.elapsed();
    std::fs::remove_dir_all(&dir)?;
    remove_groups(&format!("keelson-bench-{}", std::process::id()))?;
    Ok(took)
}

/// Removes a control group from every hierarchy, once the kernel has let go of its processes.
fn remove_groups(group: &str) -> Result<(), Failure> {
    let begin = Instant::now();
    for hierarchy in
        std::fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()])
    {
        let dir = hierarchy.join(group);
        while dir.is_dir() && std::fs::remove_dir(&dir).is_err() {
            if begin.elapsed() > LIMIT {
                return Err(format!("{} stays", dir.display()).into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

fn other(program: &str, root: &Path, round: usize) -> Result<Duration, Failure> {
    let name = format!("{program}-{round}");
    let (dir, state) = (bundle(root, &name)?, root.join(format!("{program}-state")));
    let id = format!("keelson-bench-{}-{name}", std::process::id());
    let call = || {
        let mut command = Command::new(program);
        command.arg("--root").arg(&state);
        command
    };
    let begin = Instant::now();
    run(call().args(["create", "--bundle"]).arg(&dir).arg(&id))?;
    run(call().args(["start", &id]))?;
    run(call().args(["delete", "--force", &id]))?;
    let took = begin.elapsed();
    std::fs::remove_dir_all(&dir)?;
    remove_groups(&format!("keelson-bench-{}", std::process::id()))?;
    Ok(took)
}
