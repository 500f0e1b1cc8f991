//! Which of the store's threads run first.

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use thread_priority::{
    Error, NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

/// Lets this thread run as soon as it is ready, before all that only compute: it mostly waits for the disk, and everybody
/// waits for it. Kernels let a busy thread go on for a tick (4 ms) before they look at who else is ready. Where that is
/// not allowed (it takes CAP_SYS_NICE or RLIMIT_RTPRIO), the thread is as any other.
pub(super) fn at_once() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        tracing::info!(
            ?error,
            "the store's writer shares the processors with all others: writes are slower under load"
        );
    }
}

/// Takes back what this thread inherited from one that runs [`at_once`].
pub(super) fn in_turn() {
    if let Err(error) = try_in_turn() {
        tracing::warn!(?error, "a thread of the store runs before all others");
    }
}

fn try_in_turn() -> Result<(), Error> {
    if !matches!(thread_schedule_policy()?, ThreadSchedulePolicy::Realtime(_)) {
        return Ok(());
    }
    let os = |error: rustix::io::Errno| Error::OS(error.raw_os_error());
    let nice = getpriority_process(Some(gettid())).map_err(os)?;
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    // That takes a niceness, too, and sets one.
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)?;
    setpriority_process(Some(gettid()), nice).map_err(os)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_goes_first_starts_one_that_does_not() {
        let policies = std::thread::spawn(|| {
            at_once();
            let own = thread_schedule_policy().unwrap();
            let inherited = std::thread::spawn(|| {
                in_turn();
                (thread_schedule_policy().unwrap(), getpriority_process(Some(gettid())).unwrap())
            });
            (own, inherited.join().unwrap())
        });
        let nice = getpriority_process(None).unwrap();
        let (own, inherited) = policies.join().unwrap();
        // Not everybody who runs this may do it.
        if rustix::process::geteuid().is_root() {
            assert_eq!(own, ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin));
        }
        assert_eq!(inherited, (ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other), nice));
    }
}
