//! remotecommand: what exec and attach carry, irrespective of what carries it.
//!
//! A server calls [`serve`] with the request and gets [`RemoteCommand`]; a client of a SPDY server calls [`Client::connect`];
//! [`bridge`] joins the two, which is how the kubelet serves WebSocket clients from a runtime that speaks SPDY.

mod bridge;
mod client;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod ws;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Reader, Writer};

pub use bridge::bridge;
pub use client::Client;
pub use server::{Pending, serve};
pub use status::Outcome;

/// The protocol inside SPDY: a status as JSON on the error stream, and terminal sizes.
pub const V4: &str = "v4.channel.k8s.io";
/// As [`V4`], with a message that ends one channel. WebSocket only.
pub const V5: &str = "v5.channel.k8s.io";

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Options {
    /// Reads a query in the API's names (`stdin`, `stdout`, `stderr`, `tty`) or the kubelet's (`input`, `output`, `error`,
    /// `tty`). With a terminal, stderr is part of stdout. An error is the message of a 400 answer.
    pub fn from_query(query: &str) -> Result<Options, &'static str> {
        let mut out = Options::default();
        for (name, value) in query.split('&').map(|p| p.split_once('=').unwrap_or((p, ""))) {
            let on = matches!(value, "1" | "true" | "t" | "T" | "TRUE" | "True");
            match name {
                "stdin" | "input" => out.stdin = on,
                "stdout" | "output" => out.stdout = on,
                "stderr" | "error" => out.stderr = on,
                "tty" => out.tty = on,
                _ => {}
            }
        }
        out.stderr &= !out.tty;
        if !(out.stdin || out.stdout || out.stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        Ok(out)
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    #[serde(default)]
    pub width: u16,
    #[serde(default)]
    pub height: u16,
}

/// The sizes that the client's terminal takes. Only the newest counts.
pub struct Resizes(watch::Receiver<TerminalSize>);

impl Resizes {
    /// The next size; `None` when there will be none.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

/// A client's streams on the server. The streams that were not asked for are `None`. Dropping a writer ends its stream;
/// dropping everything ends the connection, once what was written is sent.
pub struct RemoteCommand {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    pub status: StatusWriter,
    /// With a terminal only.
    pub resize: Option<Resizes>,
    /// Cancelled when the client's connection is over.
    pub closed: CancellationToken,
}

/// Tells the client how it ended; to be used last, when all output is written.
pub struct StatusWriter(Writer);

/// Parses the JSON objects that follow each other in a resize stream. They hold no braces or text.
#[derive(Default)]
struct SizeParser(Vec<u8>);

/// No size is longer.
const MAX_SIZE_JSON: usize = 256;

impl SizeParser {
    /// The last complete size in the bytes so far.
    fn feed(&mut self, bytes: &[u8]) -> Option<TerminalSize> {
        let mut last = None;
        for byte in bytes {
            if self.0.len() >= MAX_SIZE_JSON {
                self.0.clear();
            }
            self.0.push(*byte);
            if *byte == b'}' {
                last = serde_json::from_slice(&self.0).ok().or(last);
                self.0.clear();
            }
        }
        last
    }
}
