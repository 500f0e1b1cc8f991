//! System calls that no wrapper crate has in the shape needed here: seccomp filters without `no_new_privs`, signals by
//! number, session keyrings, and programs for control groups. Each is one call, safe for any arguments its type allows.

#![allow(unsafe_code, reason = "nix and rustix have no safe wrapper of these calls")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// Installs a seccomp filter for the calling thread, and leaves `no_new_privs` as it is: without it, this takes
/// CAP_SYS_ADMIN in the thread's user namespace.
pub(super) fn install_filter(filter: &seccompiler::BpfProgram) -> io::Result<()> {
    let Ok(length) = u16::try_from(filter.len()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which is borrowed for the whole call; both structures are
    // C's `struct sock_filter`.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number, real-time ones included. A process that has gone is fine.
pub(crate) fn signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 || !(1..=64).contains(&signal) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill(2) touches no memory of this process.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// Gives SIGPIPE its default disposition, which this program's runtime took from it.
pub(super) fn default_sigpipe() {
    // SAFETY: the default disposition runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Joins a new session keyring of no name, so that neither the node's keys nor other containers' are within reach. A kernel
/// without keyrings has nothing to be kept away, and where the call is forbidden to us it is to containers as well.
pub(super) fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is read.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    match io::Error::last_os_error() {
        _ if answer >= 0 => Ok(()),
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        error => Err(error),
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `union bpf_attr` of <linux/bpf.h> for BPF_PROG_LOAD, as far as it is needed; the kernel takes the rest for zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program that decides about devices (instructions as the kernel encodes them). The kernel checks it whole.
pub(super) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: `instructions` and the licence outlive the call, and their lengths are as said.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of_val(&attributes)) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}

/// Attaches such a program to a control group of the unified hierarchy, for as long as the group is there.
pub(super) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: both descriptors are open for the whole call, which reads the attributes only.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of_val(&attributes)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session_keyring() -> libc::c_long {
        const KEYCTL_GET_KEYRING_ID: libc::c_long = 0;
        const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
        // SAFETY: the call takes and gives numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1) }
    }

    #[test]
    fn a_session_keyring_of_ones_own() {
        // Keyrings are a thread's own.
        std::thread::spawn(|| {
            let before = session_keyring();
            join_session_keyring().unwrap();
            assert_ne!(session_keyring(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn signals_by_number() {
        for (number, ends) in [(0, false), (65, false), (37, true)] {
            let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            assert_eq!(signal(child.id() as i32, number).is_ok(), ends, "{number}");
            if !ends {
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            let by = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(by, Some(if ends { number } else { 9 }));
        }
        assert!(signal(0, 9).is_err() && signal(-1, 9).is_err());
    }
}
