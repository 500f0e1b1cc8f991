//! The wire format: tags, varints, length-delimited fields.

use bytes::BufMut;

use super::Error;

/// A field's value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    /// No field that we know has this type.
    Fixed32,
    Bytes(&'a [u8]),
}

fn truncated() -> Error {
    Error("unexpected EOF".into())
}

/// Takes the next field off `rest`; `None` at the end.
pub(crate) fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Field<'a>)>, Error> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0);
    let tag = tag.ok_or_else(|| Error(format!("proto: illegal tag {} (wire type {})", key >> 3, key & 7)))?;
    let field = match key & 7 {
        0 => Field::Varint(varint(rest)?),
        1 => Field::Fixed64(u64::from_le_bytes(take(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| truncated())?;
            let (bytes, tail) = rest.split_at_checked(length).ok_or_else(truncated)?;
            *rest = tail;
            Field::Bytes(bytes)
        }
        5 => {
            take::<4>(rest)?;
            Field::Fixed32
        }
        other => return Err(Error(format!("proto: illegal wireType {other}"))),
    };
    Ok(Some((tag, field)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(truncated)?;
    *rest = tail;
    Ok(*head)
}

pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or_else(truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error("proto: integer overflow".into()))
}

/// Text; bytes that are not UTF-8 become U+FFFD, as they would on the way to JSON in upstream.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

pub(crate) fn varint_len(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).div_ceil(7).max(1)
}

pub(crate) fn put_tag(out: &mut impl BufMut, tag: u32, wire_type: u8) {
    put_varint(out, u64::from(tag) << 3 | u64::from(wire_type));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_tag(out, tag, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A nested message. Most are shorter than 128 bytes, so one byte is kept for the length and the rare long one is moved.
pub(crate) fn put_nested<E>(
    out: &mut Vec<u8>,
    tag: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(out, tag, 2);
    let start = out.len();
    out.push(0);
    write(out)?;
    let length = (out.len() - start - 1) as u64;
    let mut prefix = Vec::with_capacity(varint_len(length));
    put_varint(&mut prefix, length);
    out.splice(start..=start, prefix);
    Ok(())
}
