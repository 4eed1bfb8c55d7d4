//! Ids and secret tokens: unguessable, and kept only as hashes where they open something.

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// 128 random bits with a prefix that says what the id names: `u-`, `g-`, `c-`, `call-`.
pub fn id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(random::<16>()))
}

/// 256 random bits for links and sessions.
pub fn token() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// What is stored of a token. A plain hash suffices: the token is random and long.
pub fn token_hash(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

/// Bytes from the operating system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The generator fails only when the operating system has none: no server should run on then.
    #[allow(clippy::panic, reason = "without randomness every id and token would be guessable")]
    if rand::fill(&mut bytes).is_err() {
        panic!("the operating system gives no random bytes");
    }
    bytes
}
