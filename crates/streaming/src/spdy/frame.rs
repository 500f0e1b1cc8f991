//! SPDY/3.1 frames on the wire. Data frames may be 16 MiB, so their payload is handed out in pieces as it comes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Control frames are small: a header block is limited to this, all others are a few words.
const MAX_CONTROL: usize = 64 << 10;
const MAX_SETTINGS: usize = 256;
const ID_MASK: u32 = 0x7fff_ffff;

const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;

/// The initial window's number among the settings.
pub(super) const SETTING_INITIAL_WINDOW: u32 = 7;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    Cancel = 5,
}

/// A frame, or a part of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        unidirectional: bool,
        block: Bytes,
    },
    SynReply {
        id: u32,
        fin: bool,
        block: Bytes,
    },
    ResetStream {
        id: u32,
        status: u32,
    },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
    },
    Headers {
        id: u32,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    /// `fin` only with the last piece.
    Data {
        id: u32,
        fin: bool,
        payload: Bytes,
    },
    /// Of a type that is not known; to be ignored.
    Unknown,
}

/// Turns bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The data frame of which a part is still to come: id, fin, bytes.
    data: Option<(u32, bool, usize)>,
}

impl Decoder {
    /// Takes the next frame off the buffer; `None` when more bytes are needed.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, &'static str> {
        if let Some((id, fin, left)) = self.data {
            return Ok(self.piece(buffer, id, fin, left));
        }
        let Some(mut head) = buffer.get(..8) else { return Ok(None) };
        let word = head.get_u32();
        let flags_length = head.get_u32();
        let (flags, length) = ((flags_length >> 24) as u8, (flags_length & 0x00ff_ffff) as usize);
        if word & !ID_MASK == 0 {
            buffer.advance(8);
            return Ok(self.piece(buffer, word, flags & FLAG_FIN != 0, length));
        }
        if (word >> 16) & 0x7fff != 3 {
            return Err("a control frame of another version than 3");
        }
        if length > MAX_CONTROL {
            return Err("a control frame is too long");
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        buffer.advance(8);
        let mut body = buffer.split_to(length).freeze();
        let fin = flags & FLAG_FIN != 0;
        let mut id = || body.try_get_u32().map(|id| id & ID_MASK).map_err(|_| "a control frame is too short");
        Ok(Some(match word & 0xffff {
            1 => {
                let stream = id()?;
                let _associated_to = id()?;
                if body.remaining() < 2 {
                    return Err("a control frame is too short");
                }
                body.advance(2);
                Frame::SynStream { id: stream, fin, unidirectional: flags & FLAG_UNIDIRECTIONAL != 0, block: body }
            }
            2 => Frame::SynReply { id: id()?, fin, block: body },
            3 => Frame::ResetStream { id: id()?, status: id()? },
            4 => {
                let count = id()? as usize;
                if count > MAX_SETTINGS || body.remaining() < count * 8 {
                    return Err("settings make no sense");
                }
                Frame::Settings((0..count).map(|_| (body.get_u32() & 0x00ff_ffff, body.get_u32())).collect())
            }
            6 => Frame::Ping(body.try_get_u32().map_err(|_| "a control frame is too short")?),
            7 => Frame::GoAway { last: id()? },
            8 => Frame::Headers { id: id()?, fin, block: body },
            9 => Frame::WindowUpdate { id: id()?, delta: id()? },
            _ => Frame::Unknown,
        }))
    }

    fn piece(&mut self, buffer: &mut BytesMut, id: u32, fin: bool, left: usize) -> Option<Frame> {
        let payload = buffer.split_to(left.min(buffer.len())).freeze();
        let left = left - payload.len();
        self.data = (left > 0).then_some((id, fin, left));
        if payload.is_empty() && left > 0 {
            return None;
        }
        Some(Frame::Data { id, fin: fin && left == 0, payload })
    }
}

fn control(out: &mut BytesMut, kind: u32, flags: u8, length: usize) {
    out.put_u32(0x8003_0000 | kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

pub(super) fn syn_stream(out: &mut BytesMut, id: u32, block: &[u8]) {
    control(out, 1, 0, 10 + block.len());
    out.put_u32(id);
    out.put_u32(0);
    out.put_u16(0);
    out.put_slice(block);
}

pub(super) fn syn_reply(out: &mut BytesMut, id: u32, block: &[u8]) {
    control(out, 2, 0, 4 + block.len());
    out.put_u32(id);
    out.put_slice(block);
}

pub(super) fn reset_stream(out: &mut BytesMut, id: u32, status: Reset) {
    control(out, 3, 0, 8);
    out.put_u32(id);
    out.put_u32(status as u32);
}

pub(super) fn settings(out: &mut BytesMut, initial_window: u32) {
    control(out, 4, 0, 12);
    out.put_u32(1);
    out.put_u32(SETTING_INITIAL_WINDOW);
    out.put_u32(initial_window);
}

pub(super) fn ping(out: &mut BytesMut, id: u32) {
    control(out, 6, 0, 4);
    out.put_u32(id);
}

/// `status` 0 is fine, 1 a protocol error.
pub(super) fn go_away(out: &mut BytesMut, last: u32, status: u32) {
    control(out, 7, 0, 8);
    out.put_u32(last);
    out.put_u32(status);
}

pub(super) fn window_update(out: &mut BytesMut, id: u32, delta: u32) {
    control(out, 9, 0, 8);
    out.put_u32(id);
    out.put_u32(delta);
}

/// `payload` must be shorter than 16 MiB.
pub(super) fn data(out: &mut BytesMut, id: u32, fin: bool, payload: &[u8]) {
    out.put_u32(id & ID_MASK);
    out.put_u32(u32::from(fin) << 24 | payload.len() as u32);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any bytes, in pieces of any size, end in frames, a wish for more, or an error.
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1..50usize) {
            let mut decoder = Decoder::default();
            let mut buffer = BytesMut::new();
            'all: for chunk in bytes.chunks(piece) {
                buffer.extend_from_slice(chunk);
                loop {
                    match decoder.next(&mut buffer) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
        }

        /// The same for bytes that look like control frames of each type.
        #[test]
        fn any_control_frame_is_taken(kind in 0..12u8, flags: u8, body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut buffer = BytesMut::from(&[0x80, 3, 0, kind, flags, 0, 0, body.len() as u8][..]);
            buffer.extend_from_slice(&body);
            let _ = Decoder::default().next(&mut buffer);
        }

        #[test]
        fn data_comes_out_as_it_went_in(payload in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..50usize) {
            let mut wire = BytesMut::new();
            data(&mut wire, 5, true, &payload);
            ping(&mut wire, 9);
            let (mut decoder, mut buffer, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
            let mut fins = 0;
            let mut pinged = false;
            for chunk in wire.chunks(piece) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decoder.next(&mut buffer).expect("well formed") {
                    match frame {
                        Frame::Data { id: 5, fin, payload } => {
                            seen.extend_from_slice(&payload);
                            fins += usize::from(fin);
                        }
                        Frame::Ping(9) => pinged = true,
                        other => panic!("{other:?}"),
                    }
                }
            }
            prop_assert_eq!((seen, fins, pinged), (payload, 1, true));
        }
    }
}
