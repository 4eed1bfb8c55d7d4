//! Colours of a rendered picture.

/// A colour as luma and the two chromas (BT.601, limited range, as browsers encode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// Luma.
    pub y: u8,
    /// Blue.
    pub u: u8,
    /// Red.
    pub v: u8,
}

impl Colour {
    /// From red, green, blue.
    pub const fn rgb(r: u8, g: u8, b: u8) -> Self {
        let (r, g, b) = (r as i32, g as i32, b as i32);
        Self {
            y: (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8,
            u: (((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128) as u8,
            v: (((112 * r - 94 * g - 18 * b + 128) >> 8) + 128) as u8,
        }
    }
}

/// What a picture is drawn in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Behind everything.
    pub ground: Colour,
    /// A tile without a camera.
    pub tile: Colour,
    /// Text on it.
    pub text: Colour,
    /// The line at the bottom.
    pub line: Colour,
    /// What is said there of a reaction's author, and of who is muted.
    pub quiet: Colour,
}

/// As it is, unless somebody asks for light.
pub const DARK: Theme = Theme {
    ground: Colour::rgb(0x12, 0x15, 0x1b),
    tile: Colour::rgb(0x2a, 0x30, 0x3c),
    text: Colour::rgb(0xf4, 0xf6, 0xf8),
    line: Colour::rgb(0x05, 0x07, 0x0a),
    quiet: Colour::rgb(0xa4, 0xad, 0xbb),
};

/// LiveKit's `-light`.
pub const LIGHT: Theme = Theme {
    ground: Colour::rgb(0xff, 0xff, 0xff),
    tile: Colour::rgb(0xe6, 0xe9, 0xef),
    text: Colour::rgb(0x16, 0x1a, 0x22),
    line: Colour::rgb(0xf1, 0xf3, 0xf6),
    quiet: Colour::rgb(0x5a, 0x64, 0x74),
};

/// Around who is speaking.
pub const SPEAKING: Colour = Colour::rgb(0x3d, 0xd6, 0x8c);
/// Behind a name on a camera's picture, whatever the ground: it must be read over anything.
pub const STRIP: Colour = Colour::rgb(0x05, 0x07, 0x0a);
/// The name on it, and initials.
pub const WHITE: Colour = Colour::rgb(0xf4, 0xf6, 0xf8);
/// A raised hand stands on it.
pub const HAND: Colour = Colour::rgb(0xff, 0xbc, 0x1f);
/// On that.
pub const BLACK: Colour = Colour::rgb(0x16, 0x1a, 0x22);

/// Behind the initials of who has no portrait: dark enough for white letters on either ground.
const DISCS: [Colour; 8] = [
    Colour::rgb(0x3a, 0x6e, 0xa5),
    Colour::rgb(0x8a, 0x4f, 0x9e),
    Colour::rgb(0x2e, 0x7d, 0x5b),
    Colour::rgb(0xa3, 0x55, 0x3a),
    Colour::rgb(0x5b, 0x5f, 0xb0),
    Colour::rgb(0x9c, 0x3f, 0x5f),
    Colour::rgb(0x3f, 0x7a, 0x85),
    Colour::rgb(0x7d, 0x6b, 0x2c),
];

/// The same person always has the same.
pub fn disc_of(identity: &str) -> Colour {
    // FNV-1a: any spread does.
    let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    DISCS[((hash ^ hash >> 29) % DISCS.len() as u64) as usize]
}
