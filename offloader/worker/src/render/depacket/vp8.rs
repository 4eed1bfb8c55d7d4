//! VP8 (RFC 7741 section 4.2).

use super::Piece;

pub(super) fn add(payload: &[u8], parts: &mut Vec<Vec<u8>>) -> Option<Piece> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extension = *payload.get(at)?;
        at += 1;
        if extension & 0x80 != 0 {
            // Picture id: one byte, or two with the top bit set.
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0);
        at += usize::from(extension & 0x30 != 0);
    }
    let data = payload.get(at..).filter(|d| !d.is_empty())?;
    let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
    // The first bit of a frame's own header is 0 in key frames (RFC 6386 section 9.1).
    let key = starts_frame && data[0] & 0x01 == 0;
    match parts.last_mut() {
        Some(frame) => frame.extend_from_slice(data),
        None => parts.push(data.to_vec()),
    }
    Some(Piece { starts_frame, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_taken_off() {
        let mut parts = Vec::new();
        // X, S; I with a 15-bit picture id, L, T.
        let piece = add(&[0x90, 0xe0, 0x81, 0x23, 7, 0x40, 0x00, 0xaa], &mut parts).unwrap();
        assert!(piece.starts_frame && piece.key);
        assert_eq!(parts, [vec![0x00, 0xaa]]);
        assert!(add(&[0x90, 0x80], &mut parts).is_none());
    }
}
