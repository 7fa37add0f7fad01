//! Random numbers addressed by what they are for.
//!
//! Philox4x32 with 10 rounds: J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers:
//! as easy as 1, 2, 3", SC 2011. A keyed bijection of 128-bit counters; its outputs at any counters
//! are independent for all practical purposes (it passes BigCrush), and none needs the one before.

use rand::TryRng;
use rand::rand_core::utils;
use std::convert::Infallible;

/// What random numbers are for. Different purposes never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Which activations are dropped.
    Dropout = 1,
    /// How a training image is varied.
    Augmentation = 2,
}

/// The address of one stream of random numbers.
///
/// Number `index` of the stream can be had directly, in any order:
///
/// ```
/// use unforget::rng::{CounterKey, CounterRng, Purpose};
/// let key = CounterKey { seed: 1, purpose: Purpose::Dropout, step: 70, sample: 3 };
/// let mut stream = CounterRng::new(key);
/// let third = (0..3).map(|_| stream.next_u32()).last();
/// assert_eq!(third, Some(key.u32_at(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey {
    /// The seed of the run.
    pub seed: u64,
    /// What the numbers are for.
    pub purpose: Purpose,
    /// The training step; its low 56 bits are used.
    pub step: u64,
    /// The sample within the step, or whatever else tells streams of one step apart.
    pub sample: u32,
}

impl CounterKey {
    /// The four numbers 4 * `block` to 4 * `block` + 3 of the stream.
    #[inline]
    pub fn block(&self, block: u32) -> [u32; 4] {
        let step_and_purpose = (self.step << 8) | self.purpose as u64;
        philox4x32_10(
            [
                block,
                self.sample,
                step_and_purpose as u32,
                (step_and_purpose >> 32) as u32,
            ],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }

    /// Number `index` of the stream; a stream has 2^34 numbers and then repeats.
    #[inline]
    pub fn u32_at(&self, index: u64) -> u32 {
        self.block((index >> 2) as u32)[(index & 3) as usize]
    }

    /// Number `index` of the stream as a multiple of 2^-24 in [0, 1).
    #[inline]
    pub fn uniform_at(&self, index: u64) -> f32 {
        unit_f32(self.u32_at(index))
    }
}

/// The upper 24 bits of `bits` over 2^24, in [0, 1).
#[inline]
fn unit_f32(bits: u32) -> f32 {
    const SCALE: f32 = 1.0 / (1 << 24) as f32;
    (bits >> 8) as f32 * SCALE
}

/// The stream of a [`CounterKey`] from its beginning, as a `rand` generator.
#[derive(Clone, Debug)]
pub struct CounterRng {
    key: CounterKey,
    index: u64,
    block: [u32; 4],
}

impl CounterRng {
    /// The stream of `key`, at its first number.
    pub fn new(key: CounterKey) -> Self {
        CounterRng {
            key,
            index: 0,
            block: [0; 4],
        }
    }

    /// The next 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        let lane = (self.index & 3) as usize;
        if lane == 0 {
            self.block = self.key.block((self.index >> 2) as u32);
        }
        self.index += 1;
        self.block[lane]
    }
}

impl TryRng for CounterRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_u64_via_u32(self)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(dst, || self.try_next_u32())
    }
}

/// The Philox4x32-10 bijection: each round multiplies two words by odd constants, crosses the
/// halves and adds in the key, which moves on by the Weyl constants.
#[inline]
pub(crate) fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox4x32_10_lanes(counter.map(|x| [x]), key).map(|[x]| x)
}

/// [`philox4x32_10`] of `N` counters side by side, so that the compiler can use vectors.
#[inline(always)]
pub(crate) fn philox4x32_10_lanes<const N: usize>(
    mut counter: [[u32; N]; 4],
    mut key: [u32; 2],
) -> [[u32; N]; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9e37_79b9);
            key[1] = key[1].wrapping_add(0xbb67_ae85);
        }
        let [a, b, c, d] = &mut counter;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let even = u64::from(*a) * 0xd251_1f53;
            let odd = u64::from(*c) * 0xcd9e_8d57;
            *a = (odd >> 32) as u32 ^ *b ^ key[0];
            *b = odd as u32;
            *c = (even >> 32) as u32 ^ *d ^ key[1];
            *d = even as u32;
        }
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::RngExt;

    /// The known answers distributed with Random123.
    #[test]
    fn philox_known_answers() {
        let ones = u32::MAX;
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([ones; 4], [ones; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn keys() -> impl Strategy<Value = CounterKey> {
        let purpose = prop_oneof![Just(Purpose::Dropout), Just(Purpose::Augmentation)];
        (any::<u64>(), purpose, 0u64..1 << 56, any::<u32>()).prop_map(
            |(seed, purpose, step, sample)| CounterKey {
                seed,
                purpose,
                step,
                sample,
            },
        )
    }

    proptest! {
        #[test]
        fn sequence_and_random_access_agree(key in keys(), n in 1usize..40) {
            let mut stream = CounterRng::new(key);
            for index in 0..n as u64 {
                prop_assert_eq!(stream.next_u32(), key.u32_at(index));
                let u = key.uniform_at(index);
                prop_assert!((0.0..1.0).contains(&u));
                prop_assert_eq!((u * (1 << 24) as f32) as u32, key.u32_at(index) >> 8);
            }
        }

        /// Every field of the address matters, the highest bit included.
        #[test]
        fn addresses_are_distinct(key in keys(), bit in 0u32..64) {
            let mut others = vec![
                CounterKey { seed: key.seed ^ (1 << bit), ..key },
                CounterKey { step: key.step ^ (1 << (bit % 56)), ..key },
                CounterKey { sample: key.sample ^ (1 << (bit % 32)), ..key },
            ];
            others.push(CounterKey {
                purpose: match key.purpose {
                    Purpose::Dropout => Purpose::Augmentation,
                    Purpose::Augmentation => Purpose::Dropout,
                },
                ..key
            });
            for other in others {
                prop_assert_ne!(key.block(0), other.block(0), "{:?} and {:?}", key, other);
            }
        }
    }

    #[test]
    fn rand_distributions_work_on_it() {
        let key = CounterKey {
            seed: 3,
            purpose: Purpose::Augmentation,
            step: 0,
            sample: 0,
        };
        let mut rng = CounterRng::new(key);
        let heads = (0..10_000).filter(|_| rng.random_bool(0.5)).count();
        assert!((4_800..5_200).contains(&heads), "{heads} of 10000");
    }

    /// Chi-square over 16 cells of the first number of 16,000 neighbouring samples: 15 degrees of
    /// freedom, 99.9 % quantile 37.7.
    #[test]
    fn neighbouring_samples_are_independent() {
        let mut cells = [0f64; 16];
        for sample in 0..16_000 {
            let key = CounterKey {
                seed: 0,
                purpose: Purpose::Dropout,
                step: 5,
                sample,
            };
            cells[(key.uniform_at(0) * 16.0) as usize] += 1.0;
        }
        let chi: f64 = cells.iter().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi <= 37.7, "chi-square {chi}");
    }
}
