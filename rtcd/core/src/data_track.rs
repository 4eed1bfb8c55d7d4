//! Packets of LiveKit's data tracks: a header of twelve bytes, extensions, a piece of a frame. The server reads the handle that names the
//! track and writes another one in its place; everything else is between publisher and subscribers.
//!
//! ```text
//!  0 1 2 3 4 5 6 7 8               16                              32
//! | V   |S|F|X| reserved          | handle                        |
//! | sequence number               | frame number                  |
//! | timestamp                                                     |
//! | X=1: extension words - 1      | id, length, value, id, … zeros |
//! ```

/// Bytes before the extensions.
pub const HEADER_LEN: usize = 12;

const EXTENSIONS: u8 = 1 << 2;

/// Why something is no packet of a data track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its header, or than its extensions say.
    #[error("a data track's packet is cut short")]
    Short,
    /// An extension is longer than the room for all of them.
    #[error("an extension of a data track's packet is longer than its block")]
    Extension,
}

/// The publisher's handle of a packet that is whole as far as a server can see.
///
/// # Errors
/// See [`Malformed`].
pub fn handle(packet: &[u8]) -> Result<u16, Malformed> {
    let Some((header, rest)) = packet.split_first_chunk::<HEADER_LEN>() else { return Err(Malformed::Short) };
    if header[0] & EXTENSIONS != 0 {
        extensions(rest)?;
    }
    Ok(u16::from_be_bytes([header[2], header[3]]))
}

/// Walks the extensions at the head of `rest`.
fn extensions(rest: &[u8]) -> Result<(), Malformed> {
    let Some((words, rest)) = rest.split_first_chunk::<2>() else { return Err(Malformed::Short) };
    // The field itself is part of the first word.
    let len = (usize::from(u16::from_be_bytes(*words)) + 1) * 4 - 2;
    let mut block = rest.get(..len).ok_or(Malformed::Short)?;
    while let Some((id, after)) = block.split_first() {
        // Zeros fill the last word.
        if *id == 0 {
            break;
        }
        let (len, after) = after.split_first().ok_or(Malformed::Extension)?;
        block = after.get(usize::from(*len)..).ok_or(Malformed::Extension)?;
    }
    Ok(())
}

/// Writes the handle under which a subscriber knows the track.
pub fn set_handle(packet: &mut [u8], handle: u16) {
    if let Some(place) = packet.get_mut(2..4) {
        place.copy_from_slice(&handle.to_be_bytes());
    }
}

/// Handle and frame number: what the packets of a frame have in common.
#[must_use]
pub fn frame(packet: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    Some((word(2)?, word(6)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|char| !char.is_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
    }

    /// A whole frame in one packet: handle 3333, number 6666, frame 9999, six bytes.
    const PLAIN: &str = "18000d05 1a0a270f deadbeef fffefdfcfbfa";
    /// With a participant's sid of eleven letters, and a zero to fill the word.
    const PADDED: &str = "14000d05 1a0a270f deadbeef 0003 010b 7061727469636970616e74 00 fffefdfc";
    /// With one of sixteen, and nothing to fill.
    const EVEN: &str = "14000d05 1a0a270f deadbeef 0004 0110 746573745f7061727469636970616e74 fffefdfc";

    #[test]
    fn the_handle_is_read_and_written_and_nothing_else_changes() {
        for hex in [PLAIN, PADDED, EVEN] {
            let mut packet = bytes(hex);
            assert_eq!((handle(&packet), frame(&packet)), (Ok(3333), Some((3333, 9999))), "{hex}");
            set_handle(&mut packet, 0xabcd);
            assert_eq!(packet, bytes(&hex.replacen("0d05", "abcd", 1)));
        }
        // A frame may be empty, and versions are the subscriber's to know.
        assert_eq!(handle(&bytes("f8000001 00000000 00000000")), Ok(1));
        // Extensions that nobody knows pass, and so do empty ones and more zeros than needed.
        assert_eq!(handle(&bytes("04000001 00000000 00000000 0002 0700 0801ff 000000 0000")), Ok(1));
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        let plain = bytes(PLAIN);
        for len in 0..HEADER_LEN {
            assert_eq!(handle(&plain[..len]), Err(Malformed::Short), "{len}");
        }
        let padded = bytes(PADDED);
        for len in HEADER_LEN..padded.len() - 4 {
            assert_eq!(handle(&padded[..len]), Err(Malformed::Short), "{len}");
        }
        assert_eq!(handle(&padded[..padded.len() - 4]), Ok(3333), "with nothing in it");
    }

    #[test]
    fn an_extension_longer_than_its_block_is_none() {
        for block in ["0000 01ff", "0000 0101", "0001 0105 11223344 55", "0001 0a03 112233 01 00", "ffff 0100"] {
            let packet = bytes(&format!("04000001 00000000 00000000 {block}"));
            assert!(handle(&packet).is_err(), "{block}");
        }
        // The last byte of a block is an id without a length.
        assert_eq!(handle(&bytes("04000001 00000000 00000000 0001 0103112233 02 ffff")), Err(Malformed::Extension));
        // Not one byte beyond the block is looked at.
        assert_eq!(handle(&bytes("04000001 00000000 00000000 0000 0102 ffff")), Err(Malformed::Extension));
    }
}
