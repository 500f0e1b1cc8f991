//! Who is let in, over real TLS.

#![allow(unreachable_pub, reason = "modules of one test binary")]

mod support;

#[path = "authn/certificates.rs"]
mod certificates;
#[path = "authn/front_proxy.rs"]
mod front_proxy;
#[path = "authn/wire.rs"]
mod wire;
