//! Bounded reading and writing of network bytes: every access answers, none panics.

/// Reads big-endian fields front to back; `None` once the bytes run out.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Nothing left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n)?;
        self.rest = tail;
        Some(head)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes.
    #[inline]
    pub fn u24(&mut self) -> Option<u32> {
        self.array::<3>().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Four bytes.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Writes big-endian fields front to back into a slot; once one does not fit, nothing more is written and [`Writer::finish`] says so.
#[derive(Debug)]
pub struct Writer<'a> {
    slot: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Starts at the front of `slot`.
    pub fn new(slot: &'a mut [u8]) -> Self {
        Self { slot, at: 0, full: false }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at
    }

    /// Nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.full { 0 } else { self.slot.len().saturating_sub(self.at) }
    }

    /// What was written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.slot.get(..self.at).unwrap_or_default()
    }

    /// Appends bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        match self.slot.get_mut(self.at..end) {
            Some(place) if !self.full => {
                place.copy_from_slice(bytes);
                self.at = end;
            }
            Some(_) | None => self.full = true,
        }
    }

    /// Appends one byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends two bytes.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends the low three bytes.
    #[inline]
    pub fn u24(&mut self, value: u32) {
        let [_, a, b, c] = value.to_be_bytes();
        self.bytes(&[a, b, c]);
    }

    /// Appends four bytes.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends eight bytes.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends zeros until the length is a multiple of four.
    pub fn pad4(&mut self) {
        while !self.at.is_multiple_of(4) && !self.full {
            self.u8(0);
        }
    }

    /// Overwrites two bytes written earlier.
    pub fn patch_u16(&mut self, at: usize, value: u16) {
        if let Some(place) = self.slot.get_mut(at..at.saturating_add(2)) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Overwrites one byte written earlier.
    pub fn patch_u8(&mut self, at: usize, value: u8) {
        if let Some(place) = self.slot.get_mut(at) {
            *place = value;
        }
    }

    /// Takes back everything after `at` (a length this writer had before), also a failed attempt to write more.
    pub fn truncate(&mut self, at: usize) {
        self.at = self.at.min(at);
        self.full = false;
    }

    /// True once something did not fit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The length written, or `None` when something did not fit.
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        (!self.full).then_some(self.at)
    }
}
