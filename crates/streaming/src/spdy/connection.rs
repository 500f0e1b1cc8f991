//! A connection's state and the two tasks that move its bytes. Streams and handles change the state under one lock and wake
//! the tasks; no lock is held while waiting.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Config,
    frame::{self, Decoder, Frame, Reset, SETTING_INITIAL_WINDOW},
    headers::{Deflater, Inflater},
};

/// Streams may queue so many bytes for sending.
pub(super) const OUTBOUND_BYTES: usize = 128 << 10;
/// A peer that makes us answer more than this without reading has lost its connection.
const OUTBOUND_LIMIT: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;

/// Held by the user's side: connections and streams. When the last one goes, the connection ends.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

pub(super) struct Shared {
    config: Config,
    state: Mutex<State>,
    /// There is something to send.
    pub(super) writer: Notify,
    /// A stream's buffer has room again.
    reader: Notify,
    /// A stream has been opened by the peer.
    acceptor: Notify,
    pub(super) dead: CancellationToken,
}

pub(super) struct State {
    /// The peer's streams have this remainder modulo 2.
    remote_parity: u32,
    next_id: u32,
    last_remote: u32,
    pub(super) streams: HashMap<u32, StreamState>,
    incoming: VecDeque<(u32, HeaderMap)>,
    pub(super) outbound: BytesMut,
    deflater: Option<Deflater>,
    /// Streams that wait for room to send.
    pub(super) blocked: Vec<Waker>,
    /// Announced by a peer that keeps to windows.
    pub(super) peer_window: Option<i64>,
    said_go_away: bool,
    heard_go_away: bool,
    /// Nobody on our side is left.
    finished: bool,
    pub(super) dead: bool,
    last_activity: Instant,
}

#[derive(Default)]
pub(super) struct StreamState {
    pub(super) inbound: VecDeque<Bytes>,
    pub(super) inbound_bytes: usize,
    /// Read by the application, not yet told to the peer.
    pub(super) unacknowledged: u32,
    /// The peer's window updates less what was sent; to be added to its initial window.
    pub(super) balance: i64,
    pub(super) replied: bool,
    pub(super) local_closed: bool,
    pub(super) remote_closed: bool,
    pub(super) reset: bool,
    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
    reply_waker: Option<Waker>,
}

impl StreamState {
    fn wake_all(&mut self) {
        let wakers = [self.read_waker.take(), self.write_waker.take(), self.reply_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

pub(super) fn start<T>(io: T, config: Config, server: bool) -> Arc<Handle>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut outbound = BytesMut::new();
    frame::settings(&mut outbound, config.window_bytes);
    let shared = Arc::new(Shared {
        config,
        state: Mutex::new(State {
            remote_parity: u32::from(server),
            next_id: if server { 2 } else { 1 },
            last_remote: 0,
            streams: HashMap::new(),
            incoming: VecDeque::new(),
            outbound,
            deflater: None,
            blocked: Vec::new(),
            peer_window: None,
            said_go_away: false,
            heard_go_away: false,
            finished: false,
            dead: false,
            last_activity: Instant::now(),
        }),
        writer: Notify::new(),
        reader: Notify::new(),
        acceptor: Notify::new(),
        dead: CancellationToken::new(),
    });
    let (read, write) = tokio::io::split(io);
    tokio::spawn(reader(shared.clone(), read));
    tokio::spawn(writer(shared.clone(), write));
    Arc::new(Handle { shared })
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn window_bytes(&self) -> u32 {
        self.config.window_bytes
    }

    /// A peer without windows is not read while a stream has more than this. One that keeps to its window cannot get there.
    pub(super) fn inbound_limit(&self) -> usize {
        2 * self.config.window_bytes as usize
    }

    pub(super) async fn accept(&self) -> Option<(u32, HeaderMap)> {
        loop {
            {
                let mut state = self.state();
                if let Some((id, headers)) = state.incoming.pop_front() {
                    if !state.incoming.is_empty() {
                        self.acceptor.notify_one();
                    }
                    return Some((id, headers));
                }
                if state.dead {
                    self.acceptor.notify_one();
                    return None;
                }
            }
            self.acceptor.notified().await;
        }
    }

    pub(super) fn open(&self, headers: &HeaderMap) -> io::Result<u32> {
        let mut state = self.state();
        if state.dead || state.said_go_away || state.heard_go_away {
            return Err(closed());
        }
        if state.streams.len() >= self.config.max_streams {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many open streams"));
        }
        let id = state.next_id;
        if id > 0x7fff_fffd {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all stream numbers are used up"));
        }
        let block = state.encode(headers).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        state.next_id += 2;
        frame::syn_stream(&mut state.outbound, id, &block);
        state.streams.insert(id, StreamState::default());
        drop(state);
        self.writer.notify_one();
        Ok(id)
    }

    pub(super) async fn replied(&self, id: u32) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            let dead = state.dead;
            let Some(stream) = state.streams.get_mut(&id) else { return Poll::Ready(Err(closed())) };
            if stream.replied {
                return Poll::Ready(Ok(()));
            }
            if stream.reset {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the peer refused the stream",
                )));
            }
            if dead {
                return Poll::Ready(Err(closed()));
            }
            stream.reply_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub(super) fn go_away(&self) {
        self.state().say_go_away(0);
        self.writer.notify_one();
    }

    fn finish(&self) {
        let mut state = self.state();
        state.say_go_away(0);
        state.finished = true;
        state.incoming.clear();
        state.streams.clear();
        drop(state);
        self.writer.notify_one();
        self.reader.notify_one();
    }

    /// A stream is dropped on our side.
    pub(super) fn forget(&self, id: u32) {
        let mut state = self.state();
        // The peer may have more to send, also where our direction has ended.
        if let Some(stream) = state.streams.remove(&id)
            && !(stream.local_closed && stream.remote_closed)
            && !stream.reset
            && !state.dead
        {
            frame::reset_stream(&mut state.outbound, id, Reset::Cancel);
        }
        drop(state);
        self.writer.notify_one();
        self.reader.notify_one();
    }

    /// The application has read from a stream whose buffer had been full.
    pub(super) fn wake_reader(&self) {
        self.reader.notify_one();
    }

    /// The connection is over: everybody hears of it.
    fn die(&self) {
        let mut state = self.state();
        self.writer.notify_one();
        state.dead = true;
        state.streams.values_mut().for_each(StreamState::wake_all);
        state.blocked.drain(..).for_each(Waker::wake);
        state.outbound = BytesMut::new();
        drop(state);
        self.dead.cancel();
        self.acceptor.notify_one();
    }

    /// Takes in a frame. Returns the stream whose buffer is now too full to read on.
    fn receive(&self, inflater: &mut Inflater, frame: Frame) -> Result<Option<u32>, &'static str> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.last_activity = Instant::now();
        match frame {
            Frame::SynStream { id, fin, unidirectional, block } => {
                // Also of a stream that is refused: the next block builds on it.
                let headers = inflater.decode(&block)?;
                if id % 2 != state.remote_parity || id <= state.last_remote {
                    return Err("a stream with a number that it cannot have");
                }
                state.last_remote = id;
                if state.said_go_away || state.streams.len() >= self.config.max_streams {
                    frame::reset_stream(&mut state.outbound, id, Reset::Refused);
                } else {
                    let stream = StreamState {
                        replied: true,
                        local_closed: unidirectional,
                        remote_closed: fin,
                        ..StreamState::default()
                    };
                    state.streams.insert(id, stream);
                    let block = state.encode(&HeaderMap::new())?;
                    frame::syn_reply(&mut state.outbound, id, &block);
                    state.incoming.push_back((id, headers));
                    self.acceptor.notify_one();
                }
            }
            Frame::SynReply { id, fin, block } => {
                inflater.decode(&block)?;
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.replied = true;
                    stream.remote_closed |= fin;
                    stream.wake_all();
                }
            }
            Frame::Headers { id, fin, block } => {
                inflater.decode(&block)?;
                if let Some(stream) = state.streams.get_mut(&id).filter(|_| fin) {
                    stream.remote_closed = true;
                    stream.wake_all();
                }
            }
            Frame::ResetStream { id, .. } => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.reset = true;
                    stream.wake_all();
                }
                self.reader.notify_one();
            }
            Frame::Settings(entries) => {
                let window = entries.into_iter().find(|(id, _)| *id == SETTING_INITIAL_WINDOW);
                if let Some((_, window)) = window {
                    state.peer_window = Some(i64::from(window & 0x7fff_ffff));
                    state.streams.values_mut().filter_map(|s| s.write_waker.take()).for_each(Waker::wake);
                }
            }
            // Answers to our own would have the other parity; we send none.
            Frame::Ping(id) if id % 2 == state.remote_parity => frame::ping(&mut state.outbound, id),
            Frame::Ping(_) | Frame::Unknown => {}
            Frame::GoAway { last } => {
                state.heard_go_away = true;
                let ours = 1 - state.remote_parity;
                for (_, stream) in
                    state.streams.iter_mut().filter(|(id, s)| *id % 2 == ours && **id > last && !s.replied)
                {
                    stream.reset = true;
                    stream.wake_all();
                }
            }
            Frame::WindowUpdate { id, delta } => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.balance = stream.balance.saturating_add(i64::from(delta));
                    stream.write_waker.take().into_iter().for_each(Waker::wake);
                }
            }
            Frame::Data { id, fin, payload } => match state.streams.get_mut(&id) {
                Some(stream) if stream.reset => {}
                Some(stream) if stream.remote_closed => {
                    stream.reset = true;
                    stream.wake_all();
                    frame::reset_stream(&mut state.outbound, id, Reset::Protocol);
                }
                Some(stream) => {
                    stream.remote_closed = fin;
                    stream.inbound_bytes += payload.len();
                    if !payload.is_empty() {
                        stream.inbound.push_back(payload);
                    }
                    stream.read_waker.take().into_iter().for_each(Waker::wake);
                    if stream.inbound_bytes > self.inbound_limit() {
                        return Ok(Some(id));
                    }
                }
                // Nobody wants it any more. The end of a stream is no news.
                None if payload.is_empty() => {}
                None => frame::reset_stream(&mut state.outbound, id, Reset::InvalidStream),
            },
        }
        if state.outbound.len() > OUTBOUND_LIMIT {
            return Err("the peer asks more than it reads");
        }
        if !state.outbound.is_empty() || state.heard_go_away {
            self.writer.notify_one();
        }
        Ok(None)
    }

    fn is_too_full(&self, id: u32) -> bool {
        let state = self.state();
        state.streams.get(&id).is_some_and(|s| !s.reset && s.inbound_bytes > self.inbound_limit())
    }
}

impl State {
    fn encode(&mut self, headers: &HeaderMap) -> Result<Vec<u8>, &'static str> {
        if self.deflater.is_none() {
            self.deflater = Some(Deflater::new()?);
        }
        self.deflater.as_mut().map_or(Err("no compression"), |d| d.encode(headers))
    }

    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        let done = |s: &StreamState| s.reset || (s.local_closed && s.remote_closed);
        self.dead || (self.heard_go_away && self.streams.values().all(done))
    }

    fn say_go_away(&mut self, status: u32) {
        if !self.said_go_away && !self.dead {
            self.said_go_away = true;
            frame::go_away(&mut self.outbound, self.last_remote, status);
        }
    }
}

/// An operation on a connection that is over.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed")
}

async fn reader(shared: Arc<Shared>, mut io: impl AsyncRead + Unpin) {
    let mut inflater = Inflater::new();
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    'connection: loop {
        loop {
            let frame = decoder.next(&mut buffer);
            let full = match frame.and_then(|f| f.map(|f| shared.receive(&mut inflater, f)).transpose()) {
                Ok(Some(None)) => continue,
                Ok(Some(Some(full))) => full,
                Ok(None) => break,
                Err(what) => {
                    tracing::debug!(what, "the SPDY connection makes no sense any more");
                    let mut state = shared.state();
                    state.say_go_away(1);
                    state.finished = true;
                    drop(state);
                    shared.writer.notify_one();
                    // The writer sends that and ends the connection.
                    return;
                }
            };
            while shared.is_too_full(full) {
                tokio::select! {
                    () = shared.reader.notified() => {}
                    () = shared.dead.cancelled() => break 'connection,
                }
            }
        }
        buffer.reserve(READ_BYTES);
        let idle_at = shared.state().last_activity + shared.config.idle_timeout;
        tokio::select! {
            read = io.read_buf(&mut buffer) => match read {
                Ok(1..) => {}
                Ok(0) => break,
                Err(error) => {
                    tracing::debug!(%error, "the SPDY connection broke");
                    break;
                }
            },
            () = shared.dead.cancelled() => break,
            () = tokio::time::sleep_until(idle_at) => {
                // What was sent counts as well.
                if shared.state().last_activity + shared.config.idle_timeout <= Instant::now() {
                    tracing::debug!("the SPDY connection was idle for too long");
                    break;
                }
            }
        }
    }
    shared.die();
}

async fn writer(shared: Arc<Shared>, mut io: impl AsyncWrite + Unpin) {
    loop {
        let (chunk, finished) = {
            let mut state = shared.state();
            let chunk = state.outbound.split();
            if !chunk.is_empty() {
                state.last_activity = Instant::now();
                state.blocked.drain(..).for_each(Waker::wake);
            } else if state.is_over() {
                break;
            }
            (chunk, state.finished)
        };
        if chunk.is_empty() {
            if finished {
                // Hanging up at once could cost the peer what it has not handled yet.
                let peer_is_done = async {
                    while !shared.state().is_over() {
                        shared.writer.notified().await
                    }
                };
                tokio::select! {
                    () = peer_is_done => {}
                    () = tokio::time::sleep(shared.config.linger) => {}
                }
                break;
            }
            tokio::select! {
                () = shared.writer.notified() => {}
                () = shared.dead.cancelled() => break,
            }
            continue;
        }
        let send = async {
            io.write_all(&chunk).await?;
            io.flush().await
        };
        tokio::select! {
            sent = send => if let Err(error) = sent {
                tracing::debug!(%error, "the SPDY connection broke");
                break;
            },
            () = shared.dead.cancelled() => break,
        }
    }
    shared.die();
    // The peer may be gone already.
    let _ = io.shutdown().await;
}
