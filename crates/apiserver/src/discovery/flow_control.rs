//! `/debug/api_priority_and_fairness/`: what priority and fairness is doing, as tables for people.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use http::Response;

use crate::Body;
use crate::core::Core;
use crate::flow::Reason;
use crate::http::reply;

const ROOT: &str = "/debug/api_priority_and_fairness/";

/// The answer, for such a path.
pub(super) fn serve(core: &Core, path: &str) -> Option<Response<Body>> {
    let text = match path.strip_prefix(ROOT)? {
        "dump_priority_levels" => levels(core),
        _ => return None,
    };
    Some(reply::text(200, text))
}

/// A line for each priority level, with columns of upstream's names.
fn levels(core: &Core) -> String {
    let heads = [
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ];
    let mut text = heads.join(", ") + "\n";
    let schemas = core.flow.schemas();
    for level in core.flow.levels() {
        let of_level = || schemas.iter().filter(|schema| schema.level == level.name).map(|schema| &schema.meters);
        let now = |value: &dyn Fn(&crate::flow::Meters) -> i64| of_level().map(|meters| value(meters)).sum::<i64>();
        let refused = |reason| of_level().map(|meters| meters.rejected(reason)).sum::<u64>();
        let waiting = now(&|meters| meters.waiting.load(Ordering::Relaxed));
        let executing = now(&|meters| meters.executing.load(Ordering::Relaxed));
        let dispatched = of_level().map(|meters| meters.dispatched.load(Ordering::Relaxed)).sum::<u64>();
        let rejected = refused(Reason::QueueFull) + refused(Reason::ConcurrencyLimit);
        let idle = waiting + executing == 0;
        let (timed_out, cancelled) = (refused(Reason::TimeOut), refused(Reason::Cancelled));
        let (name, queues) = (&level.name, level.active_queues);
        let _ = writeln!(
            text,
            "{name}, {queues}, {idle}, false, {waiting}, {executing}, {dispatched}, {rejected}, {timed_out}, {cancelled}"
        );
    }
    text
}
