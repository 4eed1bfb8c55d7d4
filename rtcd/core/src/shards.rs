//! Sets of shards.

/// Shards there can be: the bits of a [`ShardSet`].
pub const SHARDS_MAX: usize = 128;

/// Some of the shards of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u128);

impl ShardSet {
    /// No shard.
    pub const EMPTY: Self = Self(0);

    /// One more; beyond [`SHARDS_MAX`] there is none.
    pub fn insert(&mut self, shard: u8) {
        self.0 |= Self::bit(shard);
    }

    /// One less.
    pub fn remove(&mut self, shard: u8) {
        self.0 &= !Self::bit(shard);
    }

    /// Is it one of them?
    #[must_use]
    pub fn contains(self, shard: u8) -> bool {
        self.0 & Self::bit(shard) != 0
    }

    /// None at all?
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
            left &= left - 1;
            Some(first)
        })
    }

    fn bit(shard: u8) -> u128 {
        1_u128.checked_shl(u32::from(shard)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order_and_strangers_are_none() {
        let mut set = ShardSet::EMPTY;
        for shard in [127, 3, 0, 200] {
            set.insert(shard);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 127]);
        set.remove(3);
        assert!(!set.contains(3) && set.contains(127) && !set.contains(200));
        assert!(ShardSet::EMPTY.iter().next().is_none());
    }
}
