//! The seccomp profile `RuntimeDefault`: the system calls that ordinary programs make, and no others, as Docker and
//! containerd define it; some only with the capability that gives them sense. Refused calls get EPERM, `clone3` ENOSYS, so
//! that C libraries fall back to `clone`, whose flags can be looked at.

mod arch;
pub(crate) mod profile;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};
use serde_json::{Value, json};
use syscalls::Sysno;

use arch::Rules;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Allowed to everybody.
const BASE: &[i64] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat
    SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod
    SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock
    SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getcpu
    SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid
    SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit SYS_get_robust_list
    SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr
    SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_ioctl SYS_io_destroy SYS_io_getevents
    SYS_ioprio_get SYS_ioprio_set SYS_io_setup SYS_io_submit SYS_kill SYS_landlock_add_rule
    SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr
    SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_mincore
    SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify
    SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd
    SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat
    SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll
    SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_pselect6 SYS_ptrace SYS_pwrite64
    SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg
    SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop
    SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer
    SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list
    SYS_setsid SYS_setsockopt SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget
    SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill
    SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// What only x86-64 still has.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[i64] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_get_thread_area
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll
    SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink
    SYS_utime SYS_utimes SYS_vfork
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[i64] = &[];

/// What `libc` has no name for.
const UNNAMED: &[i64] = &[Sysno::io_pgetevents as i64];

fn for_everybody() -> impl Iterator<Item = &'static i64> {
    BASE.iter().chain(LEGACY).chain(UNNAMED)
}

#[cfg(target_arch = "x86_64")]
const PORTS: &[i64] = calls![SYS_ioperm SYS_iopl];
#[cfg(not(target_arch = "x86_64"))]
const PORTS: &[i64] = &[];

/// Allowed with a capability.
const WITH_CAPABILITY: &[(&str, &[i64])] = &[
    ("CAP_DAC_READ_SEARCH", calls![SYS_open_by_handle_at]),
    (
        "CAP_SYS_ADMIN",
        calls![
            SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_lookup_dcookie
            SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
            SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
        ],
    ),
    ("CAP_SYS_BOOT", calls![SYS_reboot]),
    ("CAP_SYS_CHROOT", calls![SYS_chroot]),
    ("CAP_SYS_MODULE", calls![SYS_delete_module SYS_finit_module SYS_init_module]),
    ("CAP_SYS_PACCT", calls![SYS_acct]),
    ("CAP_SYS_PTRACE", calls![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev]),
    ("CAP_SYS_RAWIO", PORTS),
    ("CAP_SYS_TIME", calls![SYS_clock_settime SYS_settimeofday]),
    ("CAP_SYS_TTY_CONFIG", calls![SYS_vhangup]),
    ("CAP_SYS_NICE", calls![SYS_get_mempolicy SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node]),
    ("CAP_SYSLOG", calls![SYS_syslog]),
    ("CAP_BPF", calls![SYS_bpf]),
    ("CAP_PERFMON", calls![SYS_perf_event_open]),
];

/// Flags of `clone` that make namespaces.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// Personalities that programs ask for: Linux, 32 bit, the query, and both with old time-outs.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The same profile in the words of the OCI runtime specification, for runtimes that make the filters themselves.
pub(crate) fn runtime_default_profile(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|own| own == name);
    let with = WITH_CAPABILITY.iter().filter(|(name, _)| has(name)).flat_map(|(_, calls)| calls.iter());
    let native = for_everybody().chain(with).filter_map(|call| name(*call));
    let names: Vec<&str> = native.chain(arch::NARROW_CALLS.iter().copied()).collect();
    let allow = "SCMP_ACT_ALLOW";
    let mut entries = vec![json!({"names": names, "action": allow})];
    for value in PERSONALITIES {
        let args = json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
        entries.push(json!({"names": ["personality"], "action": allow, "args": args}));
    }
    let args = json!([{"index": 0, "value": libc::AF_VSOCK, "op": "SCMP_CMP_NE"}]);
    entries.push(json!({"names": ["socket"], "action": allow, "args": args}));
    if !has("CAP_SYS_ADMIN") {
        let args = json!([{"index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        entries.push(json!({"names": ["clone"], "action": allow, "args": args}));
        entries.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": arch::NAMES,
        "syscalls": entries})
}

fn name(call: i64) -> Option<&'static str> {
    Some(Sysno::new(usize::try_from(call).ok()?)?.name())
}

/// The filters for a process with these capabilities (`CAP_…`), in the order in which they are to be installed. Programs for the
/// narrower architecture that the processor has as well are confined alike.
pub(super) fn runtime_default(capabilities: &[String]) -> Result<Vec<BpfProgram>, String> {
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let mut filters = Vec::new();
    let only = |call: Option<i64>| call.map(|call| (call, Vec::new())).into_iter().collect();
    if !capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") {
        // The main filter passes it, so that this one's answer counts: of two, the more severe would win.
        let narrow = arch::narrow("clone3").map(|call| only(Some(call)));
        filters.push(arch::program(only(arch::native("clone3")), narrow, &SeccompAction::Allow, &absent)?);
    }
    let native = rules(capabilities, arch::native)?;
    let narrow = arch::narrow("read").map(|_| rules(capabilities, arch::narrow)).transpose()?;
    filters.push(arch::program(native, narrow, &refuse, &SeccompAction::Allow)?);
    Ok(filters)
}

/// What is allowed, by the numbers that calls have on one architecture.
fn rules(capabilities: &[String], number: impl Fn(&str) -> Option<i64>) -> Result<Rules, String> {
    let has = |name: &str| capabilities.iter().any(|own| own == name);
    let with = WITH_CAPABILITY.iter().filter(|(name, _)| has(name)).flat_map(|(_, calls)| calls.iter());
    let names = for_everybody().chain(with).filter_map(|call| name(*call));
    let mut rules: Rules =
        names.chain(arch::NARROW_CALLS.iter().copied()).filter_map(&number).map(|call| (call, Vec::new())).collect();
    let mut limited = |name: &str, some: Vec<SeccompRule>| {
        if let Some(number) = number(name) {
            rules.entry(number).or_insert(some);
        }
    };
    limited("personality", PERSONALITIES.map(|value| rule(0, Op::Eq, value)).into_iter().collect::<Result<_, _>>()?);
    limited("socket", vec![rule(0, Op::Ne, libc::AF_VSOCK as u64)?]);
    limited("clone", vec![rule(0, Op::MaskedEq(CLONE_NEW), 0)?]);
    limited("clone3", Vec::new());
    Ok(rules)
}

fn rule(argument: u8, op: Op, value: u64) -> Result<SeccompRule, String> {
    let condition = SeccompCondition::new(argument, Len::Dword, op, value).map_err(|error| error.to_string())?;
    SeccompRule::new(vec![condition]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_name() {
        let calls = for_everybody().chain(WITH_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter()));
        let nameless: Vec<_> = calls.filter(|call| name(**call).is_none()).collect();
        assert!(nameless.is_empty(), "{nameless:?}");
        let profile = serde_json::from_value(runtime_default_profile(&[])).unwrap();
        assert_eq!(profile::compile(&profile).unwrap().len(), runtime_default(&[]).unwrap().len());
    }

    #[test]
    fn filters_compile_for_any_capabilities() {
        let all: Vec<String> = WITH_CAPABILITY.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(runtime_default(&[]).unwrap().len(), 2);
        assert_eq!(runtime_default(&all).unwrap().len(), 1);
    }
}
