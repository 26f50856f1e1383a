//! `numpy.random.default_rng(seed)`, as far as vLLM's random data set uses it, so that the same seed gives the same prompts.
//!
//! Sources: NumPy, `numpy/random/bit_generator.pyx` (SeedSequence, after M. E. O'Neill's `seed_seq` proposal),
//! `src/pcg64/pcg64.h` (PCG XSL RR 128/64, O'Neill 2014) and `src/distributions/distributions.c` (bounded integers by
//! D. Lemire, "Fast Random Integer Generation in an Interval", 2019, on the two halves of each 64-bit number).

/// NumPy's default generator.
#[derive(Debug, Clone)]
pub struct DefaultRng {
    state: u128,
    increment: u128,
    /// The upper half of the last number, where only the lower one was used.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

impl DefaultRng {
    /// `default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let wide = |high: usize| (u128::from(words[high]) << 64) | u128::from(words[high + 1]);
        let mut rng = Self { state: 0, increment: (wide(2) << 1) | 1, half: None };
        rng.step();
        rng.state = rng.state.wrapping_add(wide(0));
        rng.step();
        rng
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let (high, low) = ((self.state >> 64) as u64, self.state as u64);
        (high ^ low).rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let next = self.next_u64();
        self.half = Some((next >> 32) as u32);
        next as u32
    }

    /// One of `integers(low, high)`: `low` included, `high` excluded; ranges below 2^32. `low` where there is no range.
    pub fn integer(&mut self, low: u64, high: u64) -> u64 {
        let range = high.saturating_sub(low);
        if range <= 1 {
            return low;
        }
        let range = u32::try_from(range).unwrap_or(u32::MAX);
        let mut product = u64::from(self.next_u32()) * u64::from(range);
        if (product as u32) < range {
            let threshold = range.wrapping_neg() % range;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(range);
            }
        }
        low + (product >> 32)
    }

    /// `integers(low, high, size)`.
    pub fn integers(&mut self, low: u64, high: u64, size: usize) -> Vec<u64> {
        (0..size).map(|_| self.integer(low, high)).collect()
    }
}

/// Four numbers from a seed.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let entropy = [seed as u32, (seed >> 32) as u32];
    let used = if entropy[1] == 0 { 1 } else { 2 };
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let mix = |x: u32, y: u32| {
        let mixed = 0xca01_f9ddu32.wrapping_mul(x).wrapping_sub(0x4973_f715u32.wrapping_mul(y));
        mixed ^ (mixed >> 16)
    };
    let mut pool = [0u32; 4];
    for (at, slot) in pool.iter_mut().enumerate() {
        *slot = hash(if at < used { entropy[at] } else { 0 });
    }
    for from in 0..4 {
        for to in 0..4 {
            if from != to {
                pool[to] = mix(pool[to], hash(pool[from]));
            }
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let mut next = |at: usize| {
        let value = pool[at % 4] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        u64::from(value ^ (value >> 16))
    };
    let mut words = [0u64; 4];
    for (at, word) in words.iter_mut().enumerate() {
        let low = next(2 * at);
        *word = low | (next(2 * at + 1) << 32);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values from NumPy (`default_rng(seed)`; `bit_generator.random_raw()`, `integers(low, high, size)`).
    #[test]
    fn the_numbers_are_numpy_s() {
        let mut rng = DefaultRng::new(7);
        let raw = [11_530_976_094_092_348_043, 16_550_673_365_885_938_325, 14_308_875_409_591_826_786];
        assert_eq!([rng.next_u64(), rng.next_u64(), rng.next_u64()], raw);
        let mut rng = DefaultRng::new(7);
        assert_eq!(rng.integers(0, 1000, 5), [944, 625, 684, 897, 578]);
        assert_eq!(rng.integers(3, 4, 2), [3, 3]);
        assert_eq!(rng.integers(0, 17, 3), [13, 14, 3]);
        assert_eq!(DefaultRng::new(0).integers(900, 1100, 6), [1070, 1027, 1002, 953, 961, 908]);
        assert_eq!(DefaultRng::new(12_345_678_901).integers(0, 151_643, 4), [13_335, 126_794, 111_978, 48_025]);
    }
}
