//! Random numbers that a seed reproduces.

/// The `SplitMix64` generator (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", 2014): one word of state, good enough to vary tests and to fill streams.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `bound`, which must not be 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: its bias is below bound / 2^64.
        ((self.word() as u128 * bound as u128) >> 64) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.word(), 6_457_827_717_110_365_317);
        assert_eq!(random.word(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_number_below_the_bound_comes_up_and_no_other() {
        let mut random = Random::new(7);
        let seen: std::collections::BTreeSet<u64> = (0..1000).map(|_| random.below(5)).collect();
        assert_eq!(seen, (0..5).collect());
    }
}
