//! Bits, first one highest, as AV1's and VP9's headers have them.

/// Reads numbers of any width front to back; `None` once the bits run out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32.
    #[inline]
    pub(super) fn read(&mut self, count: u32) -> Option<u32> {
        let end = self.at + count as usize;
        let (from, to) = (self.at / 8, end.div_ceil(8));
        let mut value = 0u64;
        for byte in self.bytes.get(from..to)? {
            value = value << 8 | u64::from(*byte);
        }
        self.at = end;
        Some((value >> (to * 8 - end) & ((1 << count) - 1)) as u32)
    }

    /// Bits read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

/// Writes numbers of any width front to back into zeroed bytes; `None` once one does not fit.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { bytes, at: 0 }
    }

    pub(super) fn write(&mut self, value: u32, count: u32) -> Option<()> {
        for bit in (0..count).rev() {
            let byte = self.bytes.get_mut(self.at / 8)?;
            *byte |= ((value >> bit & 1) as u8) << (7 - self.at % 8);
            self.at += 1;
        }
        Some(())
    }

    /// Bytes written, the last one filled up with zeros.
    pub(super) fn len(&self) -> usize {
        self.at.div_ceil(8)
    }
}
