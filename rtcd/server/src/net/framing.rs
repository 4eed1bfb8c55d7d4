//! RFC 4571 framing: two bytes of length, then the datagram.

use crate::limits::TCP_FRAME_MAX;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than anything the core takes; the rest of the stream cannot be trusted.
    TooLong,
}

/// Bytes of a connection until they are whole frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// Room for the next read. The reader never holds more than one partial frame and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, FrameError> {
        loop {
            let rest = self.bytes.get(self.taken..).unwrap_or_default();
            let Some(&[high, low]) = rest.get(..2).and_then(|head| head.first_chunk::<2>()) else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len > TCP_FRAME_MAX {
                return Err(FrameError::TooLong);
            }
            if rest.len() < 2 + len {
                return Ok(None);
            }
            let start = self.taken + 2;
            self.taken = start + len;
            // An empty frame is legal and says nothing.
            if len > 0 {
                return Ok(self.bytes.get_mut(start..start + len));
            }
        }
    }
}

/// The head of a frame. Datagrams we send always fit.
#[must_use]
pub fn head(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_too_long_ends_the_stream() {
        let mut reader = FrameReader::default();
        reader.push(&[0xff, 0xff, 1]);
        assert_eq!(reader.next_frame().err(), Some(FrameError::TooLong));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_whatever_the_reads(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in proptest::collection::vec(1_usize..64, 1..50),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend_from_slice(&head(frame.len()));
                stream.extend_from_slice(frame);
                stream.extend_from_slice(&[0, 0]);
            }
            let mut reader = FrameReader::default();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                reader.push(now);
                while let Some(frame) = reader.next_frame().expect("short frames") {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, frames);
        }
    }
}
