//! PyTorch's CPU generator, number for number.

use super::mt19937::{Mt19937, N};
use crate::{Error, Result};

/// The longest permutation [`TorchGenerator::randperm`] can draw, 2^32 / 20 - 2 elements: beyond
/// it PyTorch changes to another algorithm.
pub const MAX_RANDPERM: u32 = u32::MAX / 20 - 1;

/// What a `torch.Generator` on the CPU returns for a seed.
///
/// The engine is [`Mt19937`] seeded with the low 32 bits of the seed, so seeds that agree in them
/// give the same numbers, as in PyTorch. Checked against PyTorch 2.3.1
/// and 2.15.
///
/// ```
/// use unforget::rng::TorchGenerator;
/// // torch.manual_seed(42); torch.randperm(10)
/// let mut generator = TorchGenerator::manual_seed(42);
/// assert_eq!(generator.randperm(10), [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchGenerator {
    engine: Mt19937,
    seed: u64,
    /// The bits of a normal number (f64) that the last pair left over.
    pub(super) next_normal: Option<u64>,
}

impl TorchGenerator {
    /// The generator after `torch.manual_seed(seed)`.
    pub fn manual_seed(seed: u64) -> Self {
        TorchGenerator {
            engine: Mt19937::new(seed as u32),
            seed,
            next_normal: None,
        }
    }

    /// The seed that this generator started from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next 32 bits of the engine.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.engine.next_u32()
    }

    /// `torch.empty((), dtype=torch.int64).random_()`: two outputs, high word first, modulo 2^63.
    ///
    /// Data loaders draw one as the base seed of their workers at every start of an iteration, and
    /// shuffling samplers draw one as the seed of their own private generator.
    pub fn random_i64(&mut self) -> i64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        ((high << 32 | low) & (u64::MAX >> 1)) as i64
    }

    /// One element of `torch.rand`: the low 24 bits of one output over 2^24, in [0, 1).
    #[inline]
    pub fn rand_f32(&mut self) -> f32 {
        const SCALE: f32 = 1.0 / (1 << 24) as f32;
        (self.next_u32() & 0x00ff_ffff) as f32 * SCALE
    }

    /// One element of `tensor.uniform_(low, high)` on f32: `rand * (high - low) + low`, rounded
    /// once, as PyTorch computes it on every CPU with fused multiply-add.
    #[inline]
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.rand_f32().mul_add(high - low, low)
    }

    /// `torch.randperm(n)`.
    ///
    /// # Panics
    /// If `n` exceeds [`MAX_RANDPERM`].
    #[track_caller]
    pub fn randperm(&mut self, n: usize) -> Vec<u32> {
        let mut permutation = Vec::new();
        self.randperm_into(&mut permutation, n);
        permutation
    }

    /// `torch.randperm(n)` into `out`, whose content is replaced; allocates only if the capacity
    /// of `out` is less than `n`.
    ///
    /// Fisher-Yates upwards: position i is swapped with i + (u32 mod (n - i)), for i up to n - 2.
    ///
    /// # Panics
    /// If `n` exceeds [`MAX_RANDPERM`].
    #[track_caller]
    pub fn randperm_into(&mut self, out: &mut Vec<u32>, n: usize) {
        assert!(
            n <= MAX_RANDPERM as usize,
            "randperm: {n} elements, PyTorch's algorithm for at most {MAX_RANDPERM} is implemented"
        );
        out.clear();
        out.extend(0..n as u32);
        for i in 0..n.saturating_sub(1) {
            let offset = self.next_u32() % (n - i) as u32;
            out.swap(i, i + offset as usize);
        }
    }

    /// The complete state as bytes, for checkpoints: seed, position, 624 words, the normal
    /// number left over (NaN for none), little endian.
    pub fn state(&self) -> Vec<u8> {
        let (words, position) = self.engine.parts();
        let mut bytes = Vec::with_capacity(STATE_BYTES);
        bytes.extend(self.seed.to_le_bytes());
        bytes.extend((position as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.next_normal.unwrap_or(NO_NORMAL).to_le_bytes());
        bytes
    }

    /// Goes on from where [`TorchGenerator::state`] was taken.
    ///
    /// # Errors
    /// [`Error::Config`] if `bytes` is not such a state; the generator is then unchanged.
    pub fn set_state(&mut self, bytes: &[u8]) -> Result<()> {
        const NAME: &str = "state of the random generator";
        if bytes.len() != STATE_BYTES {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::config(NAME, format!("{STATE_BYTES} bytes"), found));
        }
        let (seed, rest) = bytes.split_at(8);
        let (rest, normal) = rest.split_at(rest.len() - 8);
        let mut words = rest.chunks_exact(4).map(le_u32);
        let position = words.next().map_or(0, |word| word as usize);
        if position > N {
            return Err(Error::config(
                NAME,
                format!("a position of at most {N}"),
                position,
            ));
        }
        let mut state = [0; N];
        state
            .iter_mut()
            .zip(words)
            .for_each(|(slot, word)| *slot = word);
        self.seed = le_u64(seed);
        self.next_normal = Some(le_u64(normal)).filter(|&bits| bits != NO_NORMAL);
        self.engine = Mt19937::from_parts(state, position);
        Ok(())
    }
}

const STATE_BYTES: usize = 8 + 4 + 4 * N + 8;

/// The bits that stand for "no number left over": a NaN, which no draw gives.
const NO_NORMAL: u64 = u64::MAX;

/// The little-endian word in the first four bytes of `bytes`.
fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The little-endian double word in the first eight bytes of `bytes`.
fn le_u64(bytes: &[u8]) -> u64 {
    u64::from(le_u32(bytes)) | u64::from(le_u32(&bytes[4..])) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randperm(seed: u64, n: usize) -> Vec<u32> {
        TorchGenerator::manual_seed(seed).randperm(n)
    }

    /// Vectors printed by PyTorch 2.3.1.
    #[test]
    fn randperm_is_torchs() {
        assert_eq!(randperm(0, 10), [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]);
        assert_eq!(randperm(1, 10), [5, 6, 1, 2, 0, 8, 9, 3, 7, 4]);
        assert_eq!(randperm(42, 10), [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
        assert_eq!(randperm(1234, 10), [5, 4, 8, 2, 6, 9, 1, 7, 0, 3]);
        assert_eq!(
            randperm(0, 100)[..12],
            [44, 19, 93, 90, 71, 69, 37, 95, 53, 91, 81, 42]
        );
        assert_eq!(
            randperm(42, 100)[..12],
            [42, 96, 62, 98, 46, 95, 60, 24, 78, 16, 68, 70]
        );
        assert_eq!(
            randperm(7, 200)[..12],
            [15, 95, 135, 56, 103, 62, 93, 85, 36, 188, 48, 66]
        );
        assert_eq!(
            randperm((5 << 32) + 1, 10),
            randperm(1, 10),
            "only 32 bits seed the engine"
        );
    }

    #[test]
    fn randperm_of_nothing_and_of_one_draw_nothing() {
        let mut generator = TorchGenerator::manual_seed(3);
        assert!(generator.randperm(0).is_empty());
        assert_eq!(generator.randperm(1), [0]);
        assert_eq!(generator, TorchGenerator::manual_seed(3));
    }

    #[test]
    fn randperm_into_reuses_the_allocation() {
        let mut generator = TorchGenerator::manual_seed(3);
        let mut order = Vec::with_capacity(100);
        let address = order.as_ptr();
        for n in [100, 7, 0, 99] {
            generator.randperm_into(&mut order, n);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..n as u32));
        }
        assert_eq!(order.as_ptr(), address);
    }

    #[test]
    #[should_panic(expected = "randperm: 300000000 elements")]
    fn randperm_beyond_the_algorithm_is_refused() {
        randperm(0, 300_000_000);
    }

    /// `torch.manual_seed(0); torch.nn.Linear(3, 2)`: the bits of the six weights, then of the two
    /// biases, each uniform in +-1/sqrt(3). Printed by PyTorch 2.15.
    #[test]
    fn linear_layer_initialisation_is_torchs() {
        let want = [
            0xbb8da3e8, 0x3e9e9313, 0xbef34b7e, 0xbed98bc9, 0xbe63b4b1, 0x3e1e8953, 0xbc3b6b40,
            0x3eea617a,
        ];
        let mut generator = TorchGenerator::manual_seed(0);
        let bound = (1.0 / 3f64.sqrt()) as f32;
        assert_eq!(
            want.map(|_| generator.uniform(-bound, bound).to_bits()),
            want
        );
    }

    /// FNV-1a over the bits of `torch.manual_seed(3); torch.empty(10000).uniform_(-1/28, 1/28)`.
    /// Half of these values differ when the product is rounded before the sum.
    #[test]
    fn uniform_is_torchs_to_the_last_bit() {
        let mut generator = TorchGenerator::manual_seed(3);
        let bound = (1.0 / 28.0) as f32;
        let hash = (0..10_000).fold(14_695_981_039_346_656_037u64, |hash, _| {
            let bits = generator.uniform(-bound, bound).to_bits();
            (hash ^ u64::from(bits)).wrapping_mul(1_099_511_628_211)
        });
        assert_eq!(hash, 2_543_144_206_342_350_559);
    }

    /// `torch.manual_seed(11)`, then three times `torch.empty((), dtype=torch.int64).random_()`.
    #[test]
    fn i64_takes_the_high_word_first_and_drops_the_sign() {
        let mut generator = TorchGenerator::manual_seed(11);
        let want = [
            3_325_388_913_236_545_215,
            359_254_775_711_865_947,
            8_544_873_655_684_927_415,
        ];
        assert_eq!(want.map(|_| generator.random_i64()), want);
    }

    #[test]
    fn rand_stays_below_one_and_has_24_bits() {
        let mut generator = TorchGenerator::manual_seed(5);
        for _ in 0..100_000 {
            let r = generator.rand_f32();
            assert!((0.0..1.0).contains(&r) && (r * (1 << 24) as f32).fract() == 0.0);
        }
    }

    #[test]
    fn state_goes_round_and_refuses_rubbish() {
        let mut generator = TorchGenerator::manual_seed(u64::MAX - 6);
        (0..1000).for_each(|_| _ = generator.next_u32());
        let state = generator.state();
        let mut restored = TorchGenerator::manual_seed(0);
        restored.set_state(&state).unwrap();
        assert_eq!(restored, generator);
        assert_eq!(restored.seed(), u64::MAX - 6);

        assert!(restored.set_state(&state[1..]).is_err());
        let mut far = state.clone();
        far[8..12].copy_from_slice(&625u32.to_le_bytes());
        let message = restored.set_state(&far).unwrap_err().to_string();
        assert!(message.contains("at most 624, found 625"), "{message}");
        assert_eq!(restored, generator, "a refused state changes nothing");
    }
}
