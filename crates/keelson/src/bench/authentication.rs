//! What it costs to learn who asks: the same request, which everybody may make, with each sort of credentials, over TLS on
//! connections that are kept. What the sorts have in common is the request's own cost, which the anonymous one shows.

use serde_json::{Value, json};

use super::request::{load, open, send};
use super::scratch::Scratch;
use super::standalone::Process;
use super::{Figure, NO_BUDGET, Row, Size};
use crate::cli::Failure;

const REQUESTS: usize = 50_000;
const IN_FLIGHT: usize = 32;
const PATH: &str = "/version";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const STATIC: &str = "a-token-of-the-bench";

/// Prints the rows.
pub(super) async fn costs(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let (scratch, requests) = (Scratch::new()?, size.of(REQUESTS));
    let tokens = scratch.path().join("tokens.csv");
    std::fs::write(&tokens, format!("{STATIC},bench,1\n"))?;
    let flags = [format!("--token-auth-file={}", tokens.display())];
    let process = Process::start(&scratch.path().join("server"), 1, &flags, None).await?;
    send(&process.client, "POST", ACCOUNTS, Some(json!({"metadata": {"name": "bench"}}))).await?;
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = open(&process.client, "POST", &format!("{ACCOUNTS}/bench/token"), Some(token)).await?;
    let answer = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
    let answer: Value = serde_json::from_slice(&answer)?;
    let token = answer.pointer("/status/token").and_then(Value::as_str).ok_or("a TokenRequest without a token")?;
    for (credentials, client) in [
        ("none", process.bearer(None).await?),
        ("a client certificate", process.client.clone()),
        ("a service account's token", process.bearer(Some(token)).await?),
        ("a static token", process.bearer(Some(STATIC)).await?),
    ] {
        let before = process.server().cpu()?;
        let rate = load(requests, IN_FLIGHT, |_| send(&client, "GET", PATH, None)).await?;
        let used = process.server().cpu()?.saturating_sub(before);
        let measured = used.as_secs_f64() * 1e6 / requests as f64;
        let what = format!("authentication: CPU of a GET, credentials: {credentials}");
        print(Row::new(what, Figure::Micros(NO_BUDGET), measured));
        print(Row::new(format!("authentication: GETs, credentials: {credentials}"), Figure::PerSecond(0.0), rate));
    }
    Ok(())
}
