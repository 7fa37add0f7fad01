//! Python's `random`, number for number.

use super::Mt19937;

/// What `random.Random(seed)` returns in CPython 3.
///
/// Avalanche draws the class order of SplitCIFAR110 from it.
///
/// ```
/// use unforget::rng::PythonRandom;
/// // random.seed(0); random.sample(range(10), 10)
/// assert_eq!(PythonRandom::new(0).permutation(10), [6, 9, 0, 2, 4, 3, 5, 1, 8, 7]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonRandom {
    engine: Mt19937,
}

impl PythonRandom {
    /// The generator after `random.seed(seed)`.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let engine = if high == 0 {
            Mt19937::from_array(&[low])
        } else {
            Mt19937::from_array(&[low, high])
        };
        PythonRandom { engine }
    }

    /// `random.sample(range(n), n)`: each draw takes from what is left, whose last element fills the
    /// gap.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut rest: Vec<u32> = (0..n).collect();
        (0..n)
            .map(|i| rest.swap_remove(self.below(n - i) as usize))
            .collect()
    }

    /// Uniform in `0..n`, from as many leading bits as `n` has, until they fit.
    fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let candidate = self.engine.next_u32() >> (u32::BITS - bits);
            if candidate < n {
                return candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_pythons() {
        for (seed, want) in [
            (0, [49, 97, 53, 5, 33, 65, 62, 51]),
            (1, [17, 72, 97, 8, 32, 15, 63, 57]),
            (42, [81, 14, 3, 94, 35, 31, 28, 17]),
            (1234, [99, 56, 14, 0, 11, 74, 4, 85]),
            ((1 << 40) + 5, [64, 66, 34, 84, 3, 67, 5, 21]),
        ] {
            let order = PythonRandom::new(seed).permutation(100);
            assert_eq!(order[..8], want, "seed {seed}");
            assert_eq!(order.iter().sum::<u32>(), 4950);
        }
        assert!(PythonRandom::new(0).permutation(0).is_empty());
    }
}
