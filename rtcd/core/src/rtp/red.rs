//! Redundant audio (RFC 2198): a primary block and earlier ones that may have been lost.

use thiserror::Error;

/// Blocks in one RED packet: Opus in browsers uses 2, Meet up to 3; more would only serve to make us work.
pub const RED_BLOCKS_MAX: usize = 8;

/// Why a RED payload cannot be read. The sender's fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RedError {
    /// Shorter than its block headers announce.
    #[error("RED payload shorter than its blocks announce")]
    Truncated,
    /// More than [`RED_BLOCKS_MAX`] blocks.
    #[error("RED payload has more than {RED_BLOCKS_MAX} blocks")]
    TooMany,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedBlock<'a> {
    /// The block's own payload type.
    pub payload_type: u8,
    /// How far its timestamp lies before the packet's; 0 for the primary block.
    pub timestamp_offset: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

/// The blocks of one RED payload, oldest first, the primary last.
#[derive(Clone, Copy, Debug)]
pub struct RedBlocks<'a> {
    blocks: [RedBlock<'a>; RED_BLOCKS_MAX],
    count: usize,
}

impl<'a> RedBlocks<'a> {
    /// Reads all block headers and cuts the payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RedError> {
        let mut blocks = [RedBlock { payload_type: 0, timestamp_offset: 0, payload: &[] }; RED_BLOCKS_MAX];
        let mut lens = [0usize; RED_BLOCKS_MAX];
        let mut count = 0;
        let mut rest = payload;
        loop {
            let (block, len) = match (blocks.get_mut(count), lens.get_mut(count)) {
                (Some(block), Some(len)) => (block, len),
                _ => return Err(RedError::TooMany),
            };
            count += 1;
            let (&first, after) = rest.split_first().ok_or(RedError::Truncated)?;
            block.payload_type = first & 0x7F;
            if first & 0x80 == 0 {
                rest = after;
                break;
            }
            let (&[_, a, b, c], after) = rest.split_first_chunk::<4>().ok_or(RedError::Truncated)?;
            block.timestamp_offset = (u16::from(a) << 6) | (u16::from(b) >> 2);
            *len = (usize::from(b & 0x03) << 8) | usize::from(c);
            rest = after;
        }
        for (block, len) in blocks.iter_mut().zip(lens).take(count - 1) {
            (block.payload, rest) = rest.split_at_checked(len).ok_or(RedError::Truncated)?;
        }
        if let Some(primary) = blocks.get_mut(count - 1) {
            primary.payload = rest;
        }
        Ok(Self { blocks, count })
    }

    /// All blocks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &RedBlock<'a>> {
        self.blocks.iter().take(self.count)
    }

    /// The newest block.
    #[must_use]
    pub fn primary(&self) -> RedBlock<'a> {
        self.blocks.get(self.count.saturating_sub(1)).copied().unwrap_or(RedBlock { payload_type: 0, timestamp_offset: 0, payload: &[] })
    }
}

/// Lengths of the block headers that stand before the payloads.
#[must_use]
pub(crate) fn red_headers_len(blocks: usize) -> usize {
    4 * blocks.saturating_sub(1) + 1
}

/// Longest redundant block (10 bits).
const BLOCK_LEN_MAX: usize = 0x3FF;
/// Furthest that a redundant block lies back (14 bits of timestamp): of Opus a third of a second.
pub(crate) const RED_OFFSET_MAX: u32 = 0x3FFF;

/// Writes what stands before the primary payload: block headers, then the earlier payloads. `earlier`: how far back in
/// timestamps, and the payload; oldest first. Answers the length; `None` where a block or the slot does not fit.
#[must_use]
pub fn write_red_prefix(slot: &mut [u8], payload_type: u8, earlier: &[(u32, &[u8])]) -> Option<usize> {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        slot.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        at += bytes.len();
        Some(at)
    };
    for (offset, payload) in earlier {
        if *offset > RED_OFFSET_MAX || payload.len() > BLOCK_LEN_MAX {
            return None;
        }
        let [_, a, b, c] = ((*offset << 10) | payload.len() as u32).to_be_bytes();
        put(&[0x80 | payload_type, a, b, c])?;
    }
    let mut len = put(&[payload_type & 0x7F])?;
    for (_, payload) in earlier {
        len = put(payload)?;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks() {
        // payload type 111, offset 960, length 3; then the primary
        let payload = [0x80 | 111, (960u16 >> 6) as u8, ((960u16 << 2) & 0xFF) as u8, 3, 111, 1, 2, 3, 9, 9];
        let red = RedBlocks::parse(&payload).unwrap();
        let blocks: Vec<_> = red.iter().copied().collect();
        assert_eq!(blocks[0], RedBlock { payload_type: 111, timestamp_offset: 960, payload: &[1, 2, 3] });
        assert_eq!(blocks[1], RedBlock { payload_type: 111, timestamp_offset: 0, payload: &[9, 9] });
        assert_eq!(red.primary().payload, [9, 9]);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut slot = [0; 64];
        let len = write_red_prefix(&mut slot, 96, &[(1920, &[1, 2]), (960, &[3])]).unwrap();
        slot[len..len + 2].copy_from_slice(&[7, 8]);
        let red = RedBlocks::parse(&slot[..len + 2]).unwrap();
        let blocks: Vec<_> = red.iter().map(|block| (block.payload_type, block.timestamp_offset, block.payload)).collect();
        assert_eq!(blocks, [(96, 1920, &[1, 2][..]), (96, 960, &[3]), (96, 0, &[7, 8])]);
        assert_eq!(write_red_prefix(&mut slot, 96, &[(0x4000, &[1])]), None);
        assert_eq!(write_red_prefix(&mut slot, 96, &[(960, &[0; 64])]), None);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(RedBlocks::parse(&[]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedBlocks::parse(&[0x80 | 111, 0, 0]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedBlocks::parse(&[0x80 | 111, 0, 0, 9, 111, 1]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedBlocks::parse(&[0x80; 64]).unwrap_err(), RedError::TooMany);
    }
}
