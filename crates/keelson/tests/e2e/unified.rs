//! The node on cgroup v2 alone, which the machine that runs the tests need not have: Debian's kernel (`make test` fetches it)
//! boots in an emulator, and this same test binary runs in there, on a root of a few files. The machine has no network device,
//! and its clock follows the instructions it executes, so that how busy the real one is changes no outcome.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What runs in there: tests of this binary.
const TESTS: [&str; 1] = ["e2e::live::groups::pods_are_held_to_their_limits"];
/// Most that the emulator may take.
const BOUND: Duration = Duration::from_secs(900);
const PASSED: &str = "keelson-guest: passed";
const ENDED: &str = "reboot: Power down";

/// From the first root, which no container could leave, to one of its own; then the tests, and off.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
if [ -e /first ]; then
    $b rm /first
    $b mkdir /root2
    $b mount -t tmpfs -o size=100% tmpfs /root2
    # Both are still needed here.
    $b cp -a /bin /init /root2
    b=/root2/bin/busybox
    for entry in /*; do
        case $entry in /root2 | /proc | /dev | /bin | /init) ;; *) $b mv "$entry" /root2/ ;; esac
    done
    $b mkdir /root2/proc
    $b umount /proc
    exec $b switch_root /root2 /init
fi
$b --install -s /bin
export PATH=/bin HOME=/home
mkdir -p sys dev tmp run home sbin etc var/lib
ln -s /bin/busybox /sbin/modprobe
echo root:x:0:0:root:/root:/bin/sh > etc/passwd
echo root:x:0: > etc/group
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
modprobe overlay
cd / && @TESTS@ && echo @PASSED@
poweroff -f
"#;

/// The emulator; it ends with the value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make test`"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program at the same path below `root`, without its symbols.
fn add_program(root: &Path, program: &Path) {
    let target = root.join(program.strip_prefix("/").expect("an absolute path"));
    std::fs::create_dir_all(target.parent().expect("a directory")).expect("a directory");
    run(Command::new("strip").arg("-o").arg(target).arg(program));
}

/// The kernel's root as an archive: programs, kernel modules, and what starts the tests.
fn archive(dir: &Path, kernel: &Path, kubectl: &Path) -> PathBuf {
    let root = dir.join("root");
    for sub in ["bin", "lib", "proc", "dev"] {
        std::fs::create_dir_all(root.join(sub)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    run(Command::new("cp").arg("-r").arg(kernel.join("modules")).arg(root.join("lib")));
    let modules = std::fs::read_dir(root.join("lib/modules")).expect("modules").flatten().next().expect("a release");
    run(Command::new("/bin/busybox").arg("depmod").arg("-b").arg(&root).arg(modules.file_name()));
    let own = std::env::current_exe().expect("this program");
    for program in [Path::new(env!("CARGO_BIN_EXE_keelson")), own.as_path(), kubectl] {
        add_program(&root, program);
    }
    let tests =
        format!("KEELSON_KUBECTL={} {} --exact --test-threads 1 {}", kubectl.display(), own.display(), TESTS.join(" "));
    let init = INIT.replace("@TESTS@", &tests).replace("@PASSED@", PASSED);
    std::fs::write(root.join("init"), init).expect("writing");
    std::fs::write(root.join("first"), "").expect("writing");
    run(Command::new("chmod").arg("755").arg(root.join("init")));
    let archive = dir.join("root.cpio");
    let pack = "cd \"$1\" && find . | /bin/busybox cpio -o -H newc > \"$2\"";
    run(Command::new("sh").args(["-c", pack, "sh"]).arg(&root).arg(&archive));
    std::fs::remove_dir_all(root).expect("removing what is packed");
    archive
}

#[test]
fn nodes_work_on_cgroup_v2_alone() {
    let kubectl = std::env::var_os("KEELSON_KUBECTL").map(PathBuf::from).expect("KEELSON_KUBECTL: run `make test`");
    let kubectl = std::path::absolute(kubectl).expect("a path");
    let kernel = kubectl.with_file_name("kernel");
    assert!(kernel.join("vmlinuz").exists(), "no kernel in {}: run `make test`", kernel.display());
    let dir = tempfile::Builder::new().prefix("keelson-guest-").tempdir().expect("a directory");
    let archive = archive(dir.path(), &kernel, &kubectl);
    let console = dir.path().join("console");
    let machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max", "-m", "2560", "-no-reboot"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(archive)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"])
        .stdin(Stdio::null())
        .spawn();
    let mut machine = Machine(machine.expect("qemu-system-x86_64: run `make test`"));
    let begin = Instant::now();
    let told = || String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
    while machine.0.try_wait().expect("waiting").is_none() {
        assert!(begin.elapsed() < BOUND, "the machine is not done after {BOUND:?}:\n{}", told());
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = told();
    let ran = TESTS.iter().all(|name| told.contains(&format!("test {name} ... ")));
    assert!(ran && told.contains(PASSED) && told.contains(ENDED), "the machine says:\n{told}");
}
