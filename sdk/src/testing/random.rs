//! Numbers out of a seed.
//!
//! Ten lines instead of a crate: everything here comes from one printed seed, on every machine and
//! in every version, and policies get no dependency (proptest would be a normal one of theirs, as
//! the properties are part of the library).

/// SplitMix64, by Steele, Lea and Flood.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    pub(crate) fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From `low` to below `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.share() * (high - low)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low + 1)
    }

    /// As [`Random::whole`], of instances.
    pub(crate) fn count(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.whole(low.into(), high.into())).unwrap_or(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_others_make_of_the_seed() {
        // The first three of the reference implementation for seed 1234567.
        let mut random = Random::new(1_234_567);
        let three = [random.bits(), random.bits(), random.bits()];
        assert_eq!(three, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn everything_is_within_its_bounds() {
        let mut random = Random::new(1);
        let mut ends = [false; 2];
        for _ in 0..10_000 {
            assert!((2.0..3.0).contains(&random.between(2.0, 3.0)));
            match random.count(3, 6) {
                3 => ends[0] = true,
                6 => ends[1] = true,
                other => assert!((3..=6).contains(&other)),
            }
        }
        assert_eq!(ends, [true; 2]);
    }
}
