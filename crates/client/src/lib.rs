//! What every component needs to be a client of the API: shared informers, work queues, events, leader election, back-off
//! and the clock. Components get a `kube::Client` from outside, over TLS or straight into the API server in the same
//! process, and never know which.

#![forbid(unsafe_code)]

pub mod clock;
