//! One connection from the runtime: its unread bytes, its unwritten bytes, and what it is for.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use super::protocol::{HEADER_BYTES, Kind, parse_header, push_frame};

/// What a connection does after its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing asked yet, or answered.
    Idle,
    /// Waits for a helper to start process `0`.
    AwaitsStart(u64),
    /// Carries stdio of process `process`.
    Session { process: u64, stdin: bool, stdout: bool, stderr: bool, owner: bool },
    /// Gets events.
    Subscriber,
}

pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) role: Role,
    /// Not read from while the process does not take its input.
    pub(super) paused: bool,
    /// Closed once everything is written.
    pub(super) closing: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// Outcome of reading.
pub(super) enum Input {
    Frames(Vec<(Kind, Vec<u8>)>),
    /// Closed, or speaks something else.
    Ended(Vec<(Kind, Vec<u8>)>),
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            role: Role::Idle,
            paused: false,
            closing: false,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.output.len() - self.written
    }

    pub(super) fn push(&mut self, kind: Kind, payload: &[u8]) {
        push_frame(&mut self.output, kind, payload);
    }

    /// Writes what the socket takes. An error means the peer is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output = Vec::new();
        self.written = 0;
        Ok(())
    }

    /// Reads once and returns the whole frames that arrived.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        let ended = match self.stream.read(buffer) {
            Ok(0) => true,
            Ok(count) => {
                self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                false
            }
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let mut frames = Vec::new();
        let mut taken = 0;
        let mut stranger = false;
        while let Some(header) = self.input.get(taken..taken + HEADER_BYTES) {
            let Some((kind, length)) = header.try_into().ok().and_then(parse_header) else {
                stranger = true;
                break;
            };
            let start = taken + HEADER_BYTES;
            let Some(payload) = self.input.get(start..start + length) else { break };
            frames.push((kind, payload.to_vec()));
            taken = start + length;
        }
        self.input.drain(..taken);
        if self.input.is_empty() {
            self.input.shrink_to(0);
        }
        if ended || stranger { Input::Ended(frames) } else { Input::Frames(frames) }
    }
}
