//! Admission beyond the plugins: webhooks and policies, in process. Webhooks are servers of the tests' own.

mod support;

#[path = "admission/faults.rs"]
mod faults;
#[path = "admission/hook.rs"]
#[allow(unreachable_pub, reason = "shared by the areas")]
mod hook;
#[path = "admission/policies.rs"]
mod policies;
#[path = "admission/webhooks.rs"]
mod webhooks;
