//! Which threads the kernel runs first. Each call is about the thread that makes it.

#![deny(unsafe_code)] // sched_setscheduler(2) and sched_setattr(2), which neither rustix nor nix wraps.

use std::io;

/// Nanoseconds that a thread runs at a time: the least that the kernel takes.
const SHORT: u64 = 100_000;
/// The niceness of those who get most.
const FIRST: i32 = -20;

/// Lets this thread run as soon as it is ready, before all that only compute: for one that mostly waits, and that everybody
/// waits for. Kernels let a busy thread go on for a tick (4 ms) before they look at who else is ready. Threads that it starts
/// are as any other.
///
/// Real-time priority does that where it is allowed: it takes CAP_SYS_NICE or RLIMIT_RTPRIO, and a control group that has a
/// share of it where the kernel shares it out. Elsewhere it asks for short turns, which Linux lets go first from 6.12 on, and
/// the lowest niceness if it may.
///
/// # Errors
/// Where there is neither, why it may not have priority. The thread is then as it was.
pub fn at_once() -> io::Result<()> {
    let refused = match schedule(libc::SCHED_RR, 1) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    in_short_turns().map_err(|_| refused)
}

fn in_short_turns() -> io::Result<()> {
    let now = attributes()?;
    let flags = now.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64;
    let short = libc::sched_attr { sched_flags: flags, sched_runtime: SHORT, ..now };
    // Whoever has had more than its part waits for a tick; the nicest have had nearly nothing.
    set_attributes(libc::sched_attr { sched_nice: FIRST, ..short }).or_else(|_| set_attributes(short))?;
    // Kernels that do not know of it take it and leave it.
    match attributes()?.sched_runtime {
        SHORT => Ok(()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: 0 is this thread, and the kernel writes at most `size` bytes to `attributes`.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    checked(outcome).map(|()| attributes)
}

fn set_attributes(attributes: libc::sched_attr) -> io::Result<()> {
    // SAFETY: 0 is this thread, and the kernel only reads as many bytes of `attributes` as its `size` says, which it wrote.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    checked(outcome)
}

/// Lets this thread run only when no other wants to.
///
/// # Errors
/// Where the kernel refuses it.
pub fn last() -> io::Result<()> {
    schedule(libc::SCHED_IDLE, 0)
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is this thread, and the kernel only reads `parameters`, which is there until the call returns.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    checked(outcome.into())
}

fn checked(outcome: libc::c_long) -> io::Result<()> {
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 41 of /proc/thread-self/stat, see proc_pid_stat(5).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        after_name.split(' ').nth(38).unwrap().parse().unwrap()
    }

    fn own_and_inherited(set: fn() -> io::Result<()>) -> io::Result<(i32, i32)> {
        let thread = std::thread::spawn(move || {
            set()?;
            Ok((policy(), std::thread::spawn(policy).join().unwrap()))
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_the_thread_itself_goes_first() {
        match own_and_inherited(|| schedule(libc::SCHED_RR, 1)) {
            Ok(policies) => assert_eq!(policies, (libc::SCHED_RR, libc::SCHED_OTHER)),
            // Not everybody who runs this may do it.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn only_the_thread_itself_has_short_turns() {
        let thread = std::thread::spawn(|| {
            in_short_turns()?;
            let inherited = std::thread::spawn(|| attributes().unwrap().sched_runtime);
            Ok((attributes()?.sched_runtime, inherited.join().unwrap()))
        });
        match thread.join().unwrap() {
            Ok((own, inherited)) => assert!(own == SHORT && inherited > SHORT, "{own} {inherited}"),
            // Its kernel may be older than that.
            Err(error) => assert_eq!(io::Error::kind(&error), io::ErrorKind::Unsupported),
        }
    }

    #[test]
    fn a_thread_goes_last() {
        assert_eq!(own_and_inherited(last).unwrap().0, libc::SCHED_IDLE);
    }
}
