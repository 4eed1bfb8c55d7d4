//! Bearer tokens: one per client, in memory only, for a time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Random bytes of a token: 32 letters.
const TOKEN_BYTES: usize = 24;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// Nobody has it.
    Invalid,
    /// Its time is over.
    Expired,
}

/// Whose a token is.
#[derive(Debug)]
struct Token {
    client: String,
    /// Of the key that it was given for.
    hash: String,
    until: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Tokens {
    life: Duration,
    by_token: HashMap<String, Token>,
    by_client: HashMap<String, String>,
}

impl Tokens {
    /// None yet.
    #[must_use]
    pub fn new(life: Duration) -> Self {
        Self { life, by_token: HashMap::new(), by_client: HashMap::new() }
    }

    /// A new one for a client whose key has this hash, instead of the one it had. `None`: the operating system gives no randomness.
    pub fn give(&mut self, client: &str, hash: &str, now: Instant) -> Option<String> {
        let mut random = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let letters = random.chunks_exact(3).flat_map(|three| {
            let bits = three.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
            [18, 12, 6, 0].map(|shift| LETTERS.get((bits >> shift) & 63).copied().map_or('A', char::from))
        });
        let token: String = letters.collect();
        self.revoke(client);
        self.by_client.insert(client.to_owned(), token.clone());
        let given = Token { client: client.to_owned(), hash: hash.to_owned(), until: now + self.life };
        self.by_token.insert(token.clone(), given);
        Some(token)
    }

    /// Whose it is, and the hash of the key that it was given for.
    ///
    /// # Errors
    /// Nobody's any more.
    pub fn client_of(&mut self, token: &str, now: Instant) -> Result<(String, String), BadToken> {
        // Looked up by its hash under a random key: the time tells nothing about what is nearly right.
        match self.by_token.get(token) {
            None => Err(BadToken::Invalid),
            Some(token) if now < token.until => Ok((token.client.clone(), token.hash.clone())),
            Some(token) => {
                let client = token.client.clone();
                self.revoke(&client);
                Err(BadToken::Expired)
            }
        }
    }

    /// A client's token opens nothing any more.
    pub fn revoke(&mut self, client: &str) {
        if let Some(token) = self.by_client.remove(client) {
            self.by_token.remove(&token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_token_for_its_time() {
        let (mut tokens, start) = (Tokens::new(Duration::from_secs(60)), Instant::now());
        let first = tokens.give("a", "hash", start).expect("random");
        let other = tokens.give("b", "hash", start).expect("random");
        assert!(first.len() == 32 && first.bytes().all(|letter| LETTERS.contains(&letter)) && first != other, "{first}");
        let of_a = Ok(("a".to_owned(), "hash".to_owned()));
        assert_eq!(tokens.client_of(&first, start), of_a);
        let second = tokens.give("a", "hash", start).expect("random");
        assert_eq!(tokens.client_of(&first, start), Err(BadToken::Invalid), "a new login revokes the older");
        assert_eq!(tokens.client_of(&second, start + Duration::from_secs(59)), of_a);
        assert_eq!(tokens.client_of(&second, start + Duration::from_secs(60)), Err(BadToken::Expired));
        assert_eq!(tokens.client_of(&second, start), Err(BadToken::Invalid), "forgotten by then");
        tokens.revoke("b");
        assert_eq!(tokens.client_of(&other, start), Err(BadToken::Invalid));
    }
}
