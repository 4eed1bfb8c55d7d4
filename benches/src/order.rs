//! Who is measured when: in each repetition everybody once, in another order.

/// A small generator (xorshift64*); nothing depends on its quality.
pub(crate) struct Order(u64);

impl Order {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Fisher–Yates.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            let other = usize::try_from(random).unwrap_or_default() % (at + 1);
            list.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_and_the_seed_decides() {
        let orders = |seed| {
            let mut order = Order::new(seed);
            (0..200)
                .map(|_| {
                    let mut list = [0, 1, 2];
                    order.shuffle(&mut list);
                    list
                })
                .collect::<Vec<_>>()
        };
        let mut seen = orders(42);
        assert_eq!(seen, orders(42));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }
}
