//! As much of MessagePack as Mattermost's two channels need: read without copying or allocating, written canonically.
//!
//! By hand rather than by a crate: what is accepted is wider than any schema crate takes (texts as bin, integers of any width,
//! unknown keys of any shape), and every byte comes from outside. It depends on nothing, so that the fuzz targets can include it.

/// Why bytes are not the value that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The value is longer than the bytes.
    CutOff,
    /// A value of another kind.
    Unexpected {
        /// What was wanted.
        wanted: &'static str,
        /// The first byte that came.
        byte: u8,
    },
    /// A text that is not UTF-8.
    NotUtf8,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CutOff => f.write_str("it is cut off"),
            Self::Unexpected { wanted, byte } => write!(f, "a value that begins with {byte:#04x} stands where {wanted} belongs"),
            Self::NotUtf8 => f.write_str("a text in it is not UTF-8"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Takes values off the front of some bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a nil if one comes.
    pub fn nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&0xc0);
        if nil {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        nil
    }

    /// A text; also as bin, and nil as an empty one.
    ///
    /// # Errors
    /// Something else.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.blob("a text")?).map_err(|_| Malformed::NotUtf8)
    }

    /// Bytes; also as a text, and nil as none.
    ///
    /// # Errors
    /// Something else.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.blob("bytes")
    }

    /// An integer of any width. One that does not fit is as far away as `i64` goes.
    ///
    /// # Errors
    /// Something else.
    pub fn integer(&mut self) -> Result<i64, Malformed> {
        let byte = self.byte()?;
        match byte {
            0x00..=0x7f => Ok(i64::from(byte)),
            0xe0..=0xff => Ok(i64::from(byte) - 0x100),
            0xcc..=0xcf => Ok(i64::try_from(self.number_of(1 << (byte - 0xcc))?).unwrap_or(i64::MAX)),
            0xd0..=0xd3 => {
                let width = 1_usize << (byte - 0xd0);
                let shift = 64 - 8 * width;
                // Shifted up and down again, so that the sign spreads.
                Ok((self.number_of(width)? << shift).cast_signed() >> shift)
            }
            _ => Err(Malformed::Unexpected { wanted: "an integer", byte }),
        }
    }

    /// A number, whole or not.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&mut self) -> Result<f64, Malformed> {
        match self.rest.first() {
            Some(0xca) => {
                self.byte()?;
                let bits = u32::try_from(self.number_of(4)?).unwrap_or_default();
                Ok(f64::from(f32::from_bits(bits)))
            }
            Some(0xcb) => {
                self.byte()?;
                Ok(f64::from_bits(self.number_of(8)?))
            }
            _ => self.integer().map(|whole| whole as f64).map_err(|error| match error {
                Malformed::Unexpected { byte, .. } => Malformed::Unexpected { wanted: "a number", byte },
                other @ (Malformed::CutOff | Malformed::NotUtf8) => other,
            }),
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// Something else.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            byte => Err(Malformed::Unexpected { wanted: "true or false", byte }),
        }
    }

    /// The head of a map: how many pairs of key and value follow, as far as it says.
    ///
    /// # Errors
    /// Something else.
    pub fn map(&mut self) -> Result<u32, Malformed> {
        let byte = self.byte()?;
        let pairs = match byte {
            0x80..=0x8f => u64::from(byte & 0x0f),
            0xde => self.number_of(2)?,
            0xdf => self.number_of(4)?,
            _ => return Err(Malformed::Unexpected { wanted: "a map", byte }),
        };
        Ok(u32::try_from(pairs).unwrap_or(u32::MAX))
    }

    /// Passes over one value of any kind. Neither depth nor size can hurt: a value that has begun is a number, no stack.
    ///
    /// # Errors
    /// It is cut off, or begins with the one byte that nothing begins with.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let mut values: u64 = 1;
        while values > 0 {
            values -= 1;
            let byte = self.byte()?;
            let (bytes, inner) = match byte {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                0x80..=0x8f => (0, 2 * u64::from(byte & 0x0f)),
                0x90..=0x9f => (0, u64::from(byte & 0x0f)),
                0xa0..=0xbf => (u64::from(byte & 0x1f), 0),
                0xc4..=0xc6 => (self.number_of(1 << (byte - 0xc4))?, 0),
                0xc7..=0xc9 => (self.number_of(1 << (byte - 0xc7))? + 1, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 => (2, 0),
                0xd4..=0xd8 => ((1 << (byte - 0xd4)) + 1, 0),
                0xd9..=0xdb => (self.number_of(1 << (byte - 0xd9))?, 0),
                0xdc | 0xdd => (0, self.number_of(if byte == 0xdc { 2 } else { 4 })?),
                0xde | 0xdf => (0, 2 * self.number_of(if byte == 0xde { 2 } else { 4 })?),
                0xc1 => return Err(Malformed::Unexpected { wanted: "a value", byte }),
            };
            self.take(bytes)?;
            values += inner;
            // Each takes a byte at least.
            if values > self.rest.len() as u64 {
                return Err(Malformed::CutOff);
            }
        }
        Ok(())
    }

    fn blob(&mut self, wanted: &'static str) -> Result<&'a [u8], Malformed> {
        let byte = self.byte()?;
        let len = match byte {
            0xa0..=0xbf => u64::from(byte & 0x1f),
            0xc0 => 0,
            0xc4..=0xc6 => self.number_of(1 << (byte - 0xc4))?,
            0xd9..=0xdb => self.number_of(1 << (byte - 0xd9))?,
            _ => return Err(Malformed::Unexpected { wanted, byte }),
        };
        self.take(len)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::CutOff)?;
        self.rest = rest;
        Ok(*first)
    }

    fn number_of(&mut self, width: usize) -> Result<u64, Malformed> {
        Ok(self.take(width as u64)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::CutOff)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Appends values, each in its shortest form.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The head of a map of so many pairs.
    pub fn map(&mut self, pairs: u16) {
        match u8::try_from(pairs) {
            Ok(pairs) if pairs < 16 => self.out.push(0x80 | pairs),
            Ok(_) | Err(_) => {
                self.out.push(0xde);
                self.out.extend_from_slice(&pairs.to_be_bytes());
            }
        }
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(len) if len < 32 => self.out.push(0xa0 | len),
            Ok(_) | Err(_) => self.head(0xd9, text.len()),
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.head(0xc4, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// True or false.
    pub fn boolean(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Nothing.
    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    /// A small number in one byte, a larger one in two.
    pub fn small(&mut self, number: u8) {
        if number > 0x7f {
            self.out.push(0xcc);
        }
        self.out.push(number);
    }

    /// A small number as Go's data channel messages have it: always in two bytes.
    pub fn small_in_two(&mut self, number: u8) {
        self.out.extend_from_slice(&[0xcc, number]);
    }

    /// A number with a fraction.
    pub fn float(&mut self, number: f64) {
        self.out.push(0xcb);
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    /// The head of texts and bytes: a length of one, two or four bytes.
    fn head(&mut self, first: u8, len: usize) {
        if let Ok(len) = u8::try_from(len) {
            self.out.extend_from_slice(&[first, len]);
        } else if let Ok(len) = u16::try_from(len) {
            self.out.push(first + 1);
            self.out.extend_from_slice(&len.to_be_bytes());
        } else {
            self.out.push(first + 2);
            // Nothing that fits a message is longer than this says.
            self.out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}
