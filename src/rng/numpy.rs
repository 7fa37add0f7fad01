//! NumPy's legacy `RandomState`, number for number.

use super::Mt19937;

/// What `numpy.random.RandomState(seed)` returns.
///
/// Pixel permutations and rotation angles of Avalanche's benchmarks are drawn from it.
///
/// ```
/// use unforget::rng::NumpyRandomState;
/// // numpy.random.RandomState(0).permutation(784)
/// let permutation = NumpyRandomState::new(0).permutation(784);
/// assert_eq!(permutation[..4], [693, 85, 647, 392]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumpyRandomState {
    engine: Mt19937,
}

impl NumpyRandomState {
    /// The state that `RandomState(seed)` starts from.
    pub fn new(seed: u32) -> Self {
        NumpyRandomState {
            engine: Mt19937::new(seed),
        }
    }

    /// `permutation(n)`: Fisher-Yates downwards, position i swapped with a uniform one in 0..=i.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut permutation: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.bounded(i);
            permutation.swap(i as usize, j as usize);
        }
        permutation
    }

    /// `randint(low, high)`: uniform in `low..high`, the upper end excluded.
    ///
    /// # Panics
    /// If the range is empty.
    #[track_caller]
    pub fn randint(&mut self, low: i32, high: i32) -> i32 {
        assert!(low < high, "randint: the range {low}..{high} is empty");
        let width = high.wrapping_sub(low) as u32;
        low.wrapping_add(self.bounded(width - 1) as i32)
    }

    /// `random_sample()`: 53 random bits over 2^53, in [0, 1).
    pub fn random_sample(&mut self) -> f64 {
        let high = f64::from(self.engine.next_u32() >> 5);
        let low = f64::from(self.engine.next_u32() >> 6);
        (high * (1u64 << 26) as f64 + low) / (1u64 << 53) as f64
    }

    /// A uniform integer in `0..=max` by masked rejection; draws nothing when `max` is 0.
    fn bounded(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let candidate = self.engine.next_u32() & mask;
            if candidate <= max {
                return candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_numpys() {
        let mut state = NumpyRandomState::new(0);
        assert_eq!(
            state.permutation(784)[..8],
            [693, 85, 647, 392, 765, 14, 299, 711]
        );
        assert_eq!(state.permutation(784)[..4], [378, 159, 524, 744]);
        assert_eq!(
            NumpyRandomState::new(1).permutation(784)[..4],
            [649, 265, 111, 301]
        );
        assert_eq!(
            NumpyRandomState::new(42).permutation(784)[..4],
            [598, 590, 209, 637]
        );
    }

    #[test]
    fn permutation_is_a_permutation() {
        for n in [0, 1, 2, 3, 255, 256, 257] {
            let mut permutation = NumpyRandomState::new(9).permutation(n);
            permutation.sort_unstable();
            assert!(permutation.into_iter().eq(0..n));
        }
    }

    #[test]
    fn integers_are_numpys() {
        let angles = |seed| {
            let mut state = NumpyRandomState::new(seed);
            (0..6).map(|_| state.randint(-180, 181)).collect::<Vec<_>>()
        };
        assert_eq!(angles(0), [-8, -133, -63, 12, 143, 71]);
        assert_eq!(angles(1), [-143, 55, -108, 75, 23, -47]);
        assert_eq!(angles(42), [-78, 168, 90, -74, -109, 8]);
    }

    #[test]
    fn integers_reach_both_ends_of_the_widest_range() {
        let mut state = NumpyRandomState::new(0);
        assert_eq!(state.randint(5, 6), 5);
        assert_eq!(
            state,
            NumpyRandomState::new(0),
            "one possible value draws nothing"
        );
        let wide: Vec<i32> = (0..64).map(|_| state.randint(i32::MIN, i32::MAX)).collect();
        assert!(wide.iter().any(|&x| x < -1_000_000_000));
        assert!(wide.iter().any(|&x| x > 1_000_000_000));
    }

    #[test]
    #[should_panic(expected = "the range 3..3 is empty")]
    fn empty_range_is_a_callers_bug() {
        NumpyRandomState::new(0).randint(3, 3);
    }

    /// `numpy.random.RandomState(0).random_sample(3)`.
    #[test]
    fn floats_are_numpys() {
        let mut state = NumpyRandomState::new(0);
        for want in [
            0.548_813_503_927_324_8,
            0.715_189_366_372_419_5,
            0.602_763_376_071_643_9,
        ] {
            assert_eq!(state.random_sample(), want);
        }
    }
}
