//! Who is let in, over real TLS.

#![allow(unreachable_pub, reason = "modules of one test binary")]

mod support;

#[path = "authn/certificates.rs"]
mod certificates;
#[path = "authn/front_proxy.rs"]
mod front_proxy;
#[path = "authn/https.rs"]
mod https;
#[path = "authn/impersonation.rs"]
mod impersonation;
#[path = "authn/logs.rs"]
mod logs;
#[path = "authn/oidc.rs"]
mod oidc;
#[path = "authn/token_webhook.rs"]
mod token_webhook;
#[path = "authn/tokens.rs"]
mod tokens;
#[path = "authn/wire.rs"]
mod wire;
