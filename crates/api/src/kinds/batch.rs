//! `batch/v1`

use crate::kind::Kind;

mod cron_job;
mod job;
mod schedule;

pub(super) fn all() -> Vec<Kind> {
    vec![cron_job::kind(), job::kind()]
}
