//! What the runtime and a shim say to each other over the shim's Unix socket: frames of `kind (1 byte), length (4 bytes,
//! big-endian), payload`. A connection carries one request; an exec or attach then goes on as a session of stream frames,
//! a subscription as a stream of events.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Exit, Launch};

/// The shim's socket in a sandbox's state directory.
pub(crate) const SOCKET: &str = "shim.sock";
/// Longest payload of a stream frame, in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 64 << 10;
/// Longest payload of any frame, in bytes; a request carries at most one process description.
pub(crate) const MAX_FRAME_BYTES: usize = 4 << 20;
/// Length of a frame's head, in bytes.
pub(crate) const HEADER_BYTES: usize = 5;

/// First byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Runtime to shim: a [`Request`] as JSON.
    Request = 0,
    /// Shim to runtime: a [`Reply`] as JSON.
    Reply = 1,
    /// Shim to subscriber: an [`Event`] as JSON.
    Event = 2,
    /// Runtime to shim: bytes for standard input.
    Stdin = 3,
    /// Runtime to shim: no more standard input.
    StdinEof = 4,
    /// Shim to runtime: bytes of standard output (all output of a terminal).
    Stdout = 5,
    /// Shim to runtime: bytes of standard error.
    Stderr = 6,
    /// Runtime to shim: terminal size, two big-endian `u16`: columns, rows.
    Resize = 7,
    /// Shim to runtime, last frame of a session: exit code, one big-endian `i32`.
    Exit = 8,
    /// Runtime to shim: signal for the session's process, one byte.
    Signal = 9,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Request,
            1 => Self::Reply,
            2 => Self::Event,
            3 => Self::Stdin,
            4 => Self::StdinEof,
            5 => Self::Stdout,
            6 => Self::Stderr,
            7 => Self::Resize,
            8 => Self::Exit,
            9 => Self::Signal,
            _ => return None,
        })
    }
}

/// What a runtime can ask of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Create and start a container whose bundle lies in the sandbox's `c/<id>`. Answer: [`Reply::Started`].
    Start { launch: Launch },
    /// Run `process` (an OCI process) in a running container; then a session.
    Exec { id: String, process: serde_json::Value, tty: bool, stdin: bool, stdout: bool, stderr: bool },
    /// Join a running container's stdio; then a session.
    Attach { id: String, stdin: bool, stdout: bool, stderr: bool },
    /// Signal a container's init process, or with `all` every process of its cgroup.
    Kill { id: String, signal: i32, all: bool },
    /// Wait until a container that is being started has been. Answer: [`Reply::Started`] or the error, at once for one that
    /// runs; [`Reply::NotRunning`] for one that does not, whose end is in its exit file if a shim saw it.
    Await { id: String },
    /// Open the container's log file anew, after a rotation.
    ReopenLog { id: String },
    /// Get [`Event`]s on this connection from now on.
    Subscribe,
    /// End the shim; refused while a container runs.
    Stop,
}

/// Answers to [`Request`]s.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done.
    Ok,
    /// The process runs, since when.
    Started { started_at_ns: i64 },
    /// It could not be done, and why.
    Error { message: String },
    /// No such running container here.
    NotRunning,
}

/// What a subscriber hears.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A container's init process ended; already recorded in its exit file.
    Exited { id: String, exit: Exit },
}

/// Directory of a container inside its sandbox's state directory.
pub(crate) fn container_dir(sandbox_dir: &std::path::Path, id: &str) -> PathBuf {
    sandbox_dir.join("c").join(id)
}

/// One frame, ready to be written.
pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    push_frame(&mut bytes, kind, payload);
    bytes
}

/// Appends one frame. Payloads are bounded by their callers ([`MAX_DATA_BYTES`], [`MAX_FRAME_BYTES`]).
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.push(kind as u8);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
}

/// The head of a frame: its kind and payload length; `None` if the peer speaks something else.
pub(crate) fn parse_header(header: [u8; HEADER_BYTES]) -> Option<(Kind, usize)> {
    let [kind, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    (length <= MAX_FRAME_BYTES).then_some((Kind::from_byte(kind)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let bytes = frame(Kind::Stdout, b"abc");
        let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(parse_header(header), Some((Kind::Stdout, 3)));
        assert_eq!(&bytes[HEADER_BYTES..], b"abc");
    }

    #[test]
    fn headers_of_strangers_are_refused() {
        assert_eq!(parse_header([200, 0, 0, 0, 1]), None);
        assert_eq!(parse_header([3, 255, 0, 0, 0]), None);
    }
}
