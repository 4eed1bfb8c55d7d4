//! AV1 (RTP payload format 1.0, section 4): OBU elements to a temporal unit in the low-overhead format, sizes put back in.

use super::Piece;

const TEMPORAL_DELIMITER: u8 = 2;
const TILE_LIST: u8 = 8;

/// Adds a packet's elements; each part is one OBU as it came.
pub(super) fn add(payload: &[u8], parts: &mut Vec<Vec<u8>>) -> Option<Piece> {
    let head = *payload.first()?;
    let (continues, count, new_sequence) = (head & 0x80 != 0, head >> 4 & 0x03, head & 0x08 != 0);
    let mut rest = payload.get(1..)?;
    let mut n = 0;
    let starts_frame = !continues;
    while !rest.is_empty() {
        n += 1;
        // With a count the last element has no length: it fills the packet.
        let length = if count != 0 && n == count {
            rest.len()
        } else {
            let (length, used) = leb128(rest)?;
            rest = &rest[used..];
            length
        };
        let element = rest.get(..length)?;
        rest = &rest[length..];
        if n == 1 && continues {
            parts.last_mut()?.extend_from_slice(element);
        } else {
            parts.push(element.to_vec());
        }
    }
    (n > 0).then_some(Piece { starts_frame, key: new_sequence })
}

/// One temporal unit.
pub(super) fn finish(obus: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut unit = vec![TEMPORAL_DELIMITER << 3 | 0x02, 0];
    for obu in obus {
        let header = *obu.first()?;
        let kind = header >> 3 & 0x0f;
        if kind == TEMPORAL_DELIMITER || kind == TILE_LIST {
            continue;
        }
        let header_bytes = 1 + usize::from(header & 0x04 != 0);
        if header & 0x02 != 0 {
            // A sender should leave the size out, but may not.
            unit.extend_from_slice(&obu);
            continue;
        }
        unit.push(header | 0x02);
        unit.extend_from_slice(obu.get(1..header_bytes)?);
        let body = obu.get(header_bytes..)?;
        let mut size = body.len();
        loop {
            let byte = (size & 0x7f) as u8;
            size >>= 7;
            unit.push(if size > 0 { byte | 0x80 } else { byte });
            if size == 0 {
                break;
            }
        }
        unit.extend_from_slice(body);
    }
    (unit.len() > 2).then(|| vec![unit])
}

fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_joined_and_sizes_put_back() {
        let mut parts = Vec::new();
        // N set, W = 2: a sequence header (3 bytes with its length), then the beginning of a frame (Y).
        let key = add(&[0x68, 3, 0x08, 0xaa, 0xbb, 0x30, 1, 2], &mut parts).unwrap();
        assert!(key.key && key.starts_frame);
        let more = add(&[0x90, 3, 4], &mut parts).unwrap();
        assert!(!more.key && !more.starts_frame);
        let unit = finish(parts).unwrap();
        assert_eq!(unit, [vec![0x12, 0, 0x0a, 2, 0xaa, 0xbb, 0x32, 4, 1, 2, 3, 4]]);
        assert!(add(&[0x80, 1], &mut Vec::new()).is_none(), "nothing to continue");
        assert!(add(&[0x10], &mut Vec::new()).is_none());
    }
}
