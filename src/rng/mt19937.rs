//! The Mersenne Twister MT19937 with 32-bit output.
//!
//! M. Matsumoto and T. Nishimura, "Mersenne Twister: A 623-dimensionally equidistributed uniform
//! pseudo-random number generator", ACM TOMACS 8(1), 1998; seeding is `init_genrand` of their 2002
//! revision. PyTorch's CPU generator and NumPy's `RandomState` are this engine with this seeding.

use rand::rand_core::utils;
use rand::{SeedableRng, TryRng};
use std::convert::Infallible;

/// Words of state.
pub(super) const N: usize = 624;
const M: usize = 397;
const MATRIX_A: u32 = 0x9908_b0df;
const UPPER: u32 = 0x8000_0000;

/// The MT19937 engine: 32 random bits a call, period 2^19937 - 1.
///
/// It implements `rand`'s core traits. [`SeedableRng::seed_from_u64`] takes the low 32 bits as the
/// seed of `init_genrand`, which is what `torch.manual_seed` does with its argument.
///
/// ```
/// use unforget::rng::Mt19937;
/// // The published self-check of the algorithm: seed 5489, 10,000th output.
/// let mut mt = Mt19937::new(5489);
/// let last = (0..10_000).map(|_| mt.next_u32()).last();
/// assert_eq!(last, Some(4123659995));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Mt19937 {
    state: [u32; N],
    /// Index of the next word to hand out; `N` means that the state must be renewed first.
    position: usize,
}

impl Mt19937 {
    /// The engine after `init_genrand(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [0; N];
        state[0] = seed;
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32
                .wrapping_mul(previous ^ (previous >> 30))
                .wrapping_add(i as u32);
        }
        Mt19937 { state, position: N }
    }

    /// The engine after `init_by_array(key)`, which Python seeds with.
    pub(super) fn from_array(key: &[u32]) -> Self {
        let mut engine = Mt19937::new(19_650_218);
        let state = &mut engine.state;
        let mixed = |state: &[u32; N], i: usize, factor: u32| {
            let previous = state[i - 1];
            state[i] ^ (previous ^ (previous >> 30)).wrapping_mul(factor)
        };
        let (mut i, mut j) = (1, 0);
        let next = |state: &mut [u32; N], i: &mut usize| {
            *i += 1;
            if *i >= N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for _ in 0..N.max(key.len()) {
            let word = mixed(state, i, 1_664_525);
            state[i] = word.wrapping_add(key[j]).wrapping_add(j as u32);
            next(state, &mut i);
            j = (j + 1) % key.len();
        }
        for _ in 1..N {
            state[i] = mixed(state, i, 1_566_083_941).wrapping_sub(i as u32);
            next(state, &mut i);
        }
        state[0] = 0x8000_0000;
        engine
    }

    /// The next 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.position == N {
            self.renew();
        }
        let mut y = self.state[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The state words and the position of the next one, for checkpoints.
    pub(super) fn parts(&self) -> (&[u32; N], usize) {
        (&self.state, self.position)
    }

    /// The engine that [`Mt19937::parts`] described. `position` must be at most [`N`].
    pub(super) fn from_parts(state: [u32; N], position: usize) -> Self {
        debug_assert!(position <= N);
        Mt19937 { state, position }
    }

    /// Computes the next `N` words of the recurrence in place.
    fn renew(&mut self) {
        let s = &mut self.state;
        for i in 0..N {
            let mixed = (s[i] & UPPER) | (s[(i + 1) % N] & !UPPER);
            let odd = if mixed & 1 == 1 { MATRIX_A } else { 0 };
            s[i] = s[(i + M) % N] ^ (mixed >> 1) ^ odd;
        }
        self.position = 0;
    }
}

/// Hides the 624 words of state, which nobody wants in a log.
impl std::fmt::Debug for Mt19937 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mt19937")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl TryRng for Mt19937 {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_u32())
    }

    /// Two outputs, low word first (`rand`'s convention; PyTorch puts the high word first, see
    /// [`TorchGenerator::random_i64`](super::TorchGenerator::random_i64)).
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_u64_via_u32(self)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(dst, || self.try_next_u32())
    }
}

impl SeedableRng for Mt19937 {
    /// The `init_genrand` seed, little endian.
    type Seed = [u8; 4];

    fn from_seed(seed: [u8; 4]) -> Self {
        Self::new(u32::from_le_bytes(seed))
    }

    fn seed_from_u64(seed: u64) -> Self {
        Self::new(seed as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn first_outputs_of_the_default_seed() {
        let mut mt = Mt19937::new(5489);
        let first: Vec<u32> = (0..5).map(|_| mt.next_u32()).collect();
        assert_eq!(
            first,
            [3499211612, 581869302, 3890346734, 3586334585, 545404204]
        );
    }

    #[test]
    fn rand_distributions_work_on_it() {
        let mut mt = Mt19937::seed_from_u64((7 << 32) + 5489);
        let word: u32 = mt.random();
        assert_eq!(word, 3499211612);
        assert!((0..10).contains(&mt.random_range(0..10)));
        let mut low_first = Mt19937::new(5489);
        assert_eq!(low_first.random::<u64>(), 3499211612 | (581869302u64 << 32));
    }

    #[test]
    fn parts_restore_the_engine_anywhere() {
        for drawn in [0, 1, 623, 624, 625, 1500] {
            let mut mt = Mt19937::new(1);
            (0..drawn).for_each(|_| _ = mt.next_u32());
            let (state, position) = mt.parts();
            let mut copy = Mt19937::from_parts(*state, position);
            assert!(
                (0..700).all(|_| mt.next_u32() == copy.next_u32()),
                "after {drawn}"
            );
        }
    }
}
