//! Our side's ICE user fragment and password.

use super::ufrag;
use crate::stun::IntegrityKey;

const PASSWORD_RANDOM_LEN: usize = 18;
/// Random bytes that a pair of credentials needs: 56 bits in the fragment, 144 in the password.
pub const RANDOM_LEN: usize = ufrag::RANDOM_LEN + PASSWORD_RANDOM_LEN;

/// Fragment and password of one ICE generation. No `Debug`: the password is a secret between us and the peer.
pub struct LocalCredentials {
    ufrag: String,
    password: String,
    key: IntegrityKey,
}

impl LocalCredentials {
    /// Makes them for a transport in `slot` of `shard`; `random` must be fresh.
    #[must_use]
    pub fn new(shard: u8, slot: u32, random: [u8; RANDOM_LEN]) -> Self {
        let (mut for_ufrag, mut for_password) = ([0; ufrag::RANDOM_LEN], [0; PASSWORD_RANDOM_LEN]);
        for (place, byte) in for_ufrag.iter_mut().chain(&mut for_password).zip(random) {
            *place = byte;
        }
        let password = ufrag::base64(&for_password);
        Self { ufrag: ufrag::encode(shard, slot, for_ufrag), key: IntegrityKey::new(&password), password }
    }

    /// For `a=ice-ufrag`.
    #[must_use]
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// For `a=ice-pwd`.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn key(&self) -> &IntegrityKey {
        &self.key
    }
}
