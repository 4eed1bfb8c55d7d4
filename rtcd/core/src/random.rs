//! The core's only source of chance: a generator seeded by the shell, so that a simulated run can be repeated.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Random numbers from the seed in the configuration.
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// The generator itself.
    pub(crate) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A media source number: never 0, which some stacks take for "none".
    pub(crate) fn ssrc(&mut self) -> u32 {
        self.0.next_u32().max(1)
    }

    /// First sequence number of a stream: below 2^15, so that a packet lost at the start cannot hide a wrap (RFC 3711 §3.3.1).
    pub(crate) fn first_seq(&mut self) -> u64 {
        u64::from(self.0.next_u32() & 0x3FFF) + 1
    }
}
