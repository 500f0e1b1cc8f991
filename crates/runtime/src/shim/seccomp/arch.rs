//! The architectures whose programs run on one machine: its own, and on x86-64 also the one with 32 bits. A filter of `seccompiler`
//! knows one, and ends whoever uses another; two of them are joined here.

use std::{collections::BTreeMap, str::FromStr};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, sock_filter};
use syscalls::Sysno;

/// Rules by the number of the call.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The architectures as profiles name them.
#[cfg(target_arch = "x86_64")]
pub(super) const NAMES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NAMES: &[&str] = &[];

/// What ordinary programs call on the narrower architecture alone; what it has in common with this one is not repeated.
#[cfg(target_arch = "x86_64")]
pub(super) const NARROW_CALLS: &[&str] = &[
    "_llseek",
    "_newselect",
    "chown32",
    "clock_adjtime64",
    "clock_getres_time64",
    "clock_gettime64",
    "clock_nanosleep_time64",
    "fadvise64_64",
    "fchown32",
    "fcntl64",
    "fstat64",
    "fstatat64",
    "fstatfs64",
    "ftruncate64",
    "futex_time64",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "io_pgetevents_time64",
    "ipc",
    "lchown32",
    "lstat64",
    "mmap2",
    "mq_timedreceive_time64",
    "mq_timedsend_time64",
    "ppoll_time64",
    "pselect6_time64",
    "recvmmsg_time64",
    "rt_sigtimedwait_time64",
    "sched_rr_get_interval_time64",
    "semtimedop_time64",
    "sendfile64",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "sigprocmask",
    "sigreturn",
    "socketcall",
    "stat64",
    "statfs64",
    "timer_gettime64",
    "timer_settime64",
    "timerfd_gettime64",
    "timerfd_settime64",
    "truncate64",
    "ugetrlimit",
    "utimensat_time64",
    "waitpid",
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NARROW_CALLS: &[&str] = &[];

/// The number of a call on this machine's architecture.
pub(super) fn native(name: &str) -> Option<i64> {
    Sysno::from_str(name).ok().map(|call| i64::from(call.id()))
}

/// The number of a call on the narrower architecture, if there is one.
#[cfg(target_arch = "x86_64")]
pub(super) fn narrow(name: &str) -> Option<i64> {
    syscalls::x86::Sysno::from_str(name).ok().map(|call| i64::from(call.id()))
}
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn narrow(_name: &str) -> Option<i64> {
    None
}

/// A filter that gives calls with a rule that fits the answer `matched`, all others `otherwise`. Without rules for the narrower
/// architecture its programs are ended.
pub(super) fn program(
    native: Rules,
    narrow: Option<Rules>,
    otherwise: &SeccompAction,
    matched: &SeccompAction,
) -> Result<BpfProgram, String> {
    let compile = |rules| {
        let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
        let filter = SeccompFilter::new(rules, otherwise.clone(), matched.clone(), arch);
        BpfProgram::try_from(filter.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    };
    let native = compile(native)?;
    match narrow {
        Some(narrow) => join(native, compile(narrow)?),
        None => Ok(native),
    }
}

/// Most instructions of a filter, by the kernel.
const MAX_INSTRUCTIONS: usize = 4096;
/// Of <linux/audit.h>.
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Loads a word at a fixed place, compares it with a constant, jumps: of <linux/bpf_common.h>.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
/// Where `struct seccomp_data` has the architecture.
const ARCH_OFFSET: u32 = 4;

/// One filter of two, each of which begins by asking for its architecture; both were made for this machine's.
fn join(native: BpfProgram, mut narrow: BpfProgram) -> Result<BpfProgram, String> {
    match narrow.get_mut(1) {
        Some(question) if question.code == IF_EQUAL => question.k = AUDIT_ARCH_I386,
        _ => return Err("a filter does not ask for its architecture".into()),
    }
    let past = u32::try_from(native.len()).map_err(|error| error.to_string())?;
    let start = [
        sock_filter { code: LOAD, jt: 0, jf: 0, k: ARCH_OFFSET },
        sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: AUDIT_ARCH_I386 },
        sock_filter { code: JUMP, jt: 0, jf: 0, k: past },
    ];
    let joined: BpfProgram = start.into_iter().chain(native).chain(narrow).collect();
    if joined.len() > MAX_INSTRUCTIONS {
        return Err(format!("the filter has {} instructions, more than {MAX_INSTRUCTIONS}", joined.len()));
    }
    Ok(joined)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x5_0000;
    const KILL: u32 = 0x8000_0000;
    const X86_64: u32 = 0xc000_003e;

    /// What the kernel would answer: the filters' most severe word.
    fn verdict(filters: &[BpfProgram], arch: u32, call: i64, argument: u64) -> u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&(call as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[16..24].copy_from_slice(&argument.to_ne_bytes());
        let word = |at: u32| u32::from_ne_bytes(data[at as usize..at as usize + 4].try_into().unwrap());
        let run = |filter: &BpfProgram| {
            let (mut next, mut value) = (0, 0);
            loop {
                let step = &filter[next];
                next += 1;
                let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
                match step.code {
                    LOAD => value = word(step.k),
                    IF_EQUAL => next += jump(value == step.k),
                    0x25 => next += jump(value > step.k),
                    0x35 => next += jump(value >= step.k),
                    0x54 => value &= step.k,
                    JUMP => next += step.k as usize,
                    0x06 => return step.k,
                    code => panic!("no instruction {code:#x}"),
                }
            }
        };
        filters.iter().map(run).min_by_key(|answer| *answer as i32).unwrap()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_architectures_are_confined_alike() {
        let filters = super::super::runtime_default(&[]).unwrap();
        let admin = super::super::runtime_default(&["CAP_SYS_ADMIN".into()]).unwrap();
        let newuser = nix::libc::CLONE_NEWUSER as u64;
        for (name, argument, expected, of_admin) in [
            ("write", 1, ALLOW, ALLOW),
            ("mount", 0, ERRNO | 1, ALLOW),
            ("clone3", 0, ERRNO | 38, ALLOW),
            ("clone", 17, ALLOW, ALLOW),
            ("clone", newuser, ERRNO | 1, ALLOW),
            ("personality", 8, ALLOW, ALLOW),
            ("personality", 5, ERRNO | 1, ERRNO | 1),
            ("socket", 40, ERRNO | 1, ERRNO | 1),
            ("socket", 2, ALLOW, ALLOW),
            ("keyctl", 0, ERRNO | 1, ERRNO | 1),
        ] {
            for (arch, call) in [(X86_64, native(name)), (AUDIT_ARCH_I386, narrow(name))] {
                assert_eq!(verdict(&filters, arch, call.unwrap(), argument), expected, "{arch:#x} {name} {argument}");
                assert_eq!(verdict(&admin, arch, call.unwrap(), argument), of_admin, "{arch:#x} {name} {argument}");
            }
        }
        assert_eq!(verdict(&filters, AUDIT_ARCH_I386, narrow("socketcall").unwrap(), 0), ALLOW);
        // AArch64's.
        assert_eq!(verdict(&filters, 0xc000_00b7, 1, 0), KILL);
        assert!(NARROW_CALLS.iter().all(|name| narrow(name).is_some()));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn profiles_say_which_architectures_they_know() {
        let with = |architectures: &str| {
            let profile = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":[{architectures}],"syscalls":[
                    {{"names":["write"],"action":"SCMP_ACT_ALLOW"}},{{"names":["mkdir"],"action":"SCMP_ACT_KILL_PROCESS"}}]}}"#
            );
            super::super::profile::compile(&serde_json::from_str(&profile).unwrap()).unwrap()
        };
        for (architectures, narrow_ones) in [
            ("\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\"", [ALLOW, KILL, ERRNO | 1]),
            ("\"SCMP_ARCH_X86_64\"", [KILL; 3]),
            ("", [KILL; 3]),
        ] {
            let filters = with(architectures);
            let answers = |arch, number: fn(&str) -> Option<i64>| {
                ["write", "mkdir", "read"].map(|name| verdict(&filters, arch, number(name).unwrap(), 0))
            };
            assert_eq!(answers(X86_64, native), [ALLOW, KILL, ERRNO | 1], "{architectures}");
            assert_eq!(answers(AUDIT_ARCH_I386, narrow), narrow_ones, "{architectures}");
        }
    }
}
