//! Normal numbers as `tensor.normal_` draws them on a CPU with AVX2.
//!
//! Both recipes are Box-Muller's, `sqrt(-2·ln u)·cos(2π·v)` and the sine beside it. Fewer than 16
//! numbers come one by one in f64, the sine kept for the next call. 16 or more are uniform f32
//! first and then turned into normal numbers by blocks of 16, eight pairs a block, with polynomials
//! for logarithm, sine and cosine (those of Moshier's Cephes library in f32); if the count does not
//! divide by 16, sixteen further draws overwrite the last sixteen places. The fused multiply-adds
//! below are where PyTorch's compiler puts them, so every bit is the same; on a CPU without AVX2
//! PyTorch itself differs in the last place.

use super::TorchGenerator;

impl TorchGenerator {
    /// `tensor.normal_(mean, std)` on a contiguous f32 tensor of `out.len()` numbers.
    ///
    /// ```
    /// use unforget::rng::TorchGenerator;
    /// // torch.manual_seed(5); torch.empty(5).normal_()
    /// let mut numbers = [0.0; 5];
    /// TorchGenerator::manual_seed(5).fill_normal(&mut numbers, 0.0, 1.0);
    /// assert_eq!(numbers[..2], [-0.48678076, -0.6038216]);
    /// ```
    pub fn fill_normal(&mut self, out: &mut [f32], mean: f64, std: f64) {
        if out.len() < BLOCK {
            out.iter_mut()
                .for_each(|x| *x = (self.normal() * std + mean) as f32);
            return;
        }
        out.iter_mut().for_each(|x| *x = self.rand_f32());
        let (blocks, tail) = out.as_chunks_mut();
        for block in blocks {
            box_muller(block, mean as f32, std as f32);
        }
        if !tail.is_empty() {
            let last = out.last_chunk_mut().expect("at least one block");
            last.iter_mut().for_each(|x| *x = self.rand_f32());
            box_muller(last, mean as f32, std as f32);
        }
    }

    /// One standard normal number; every second one was made by the call before.
    fn normal(&mut self) -> f64 {
        if let Some(bits) = self.next_normal.take() {
            return f64::from_bits(bits);
        }
        let (u, v) = (self.rand_f64(), self.rand_f64());
        let radius = (-2.0 * (-v).ln_1p()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * u;
        self.next_normal = Some((radius * angle.sin()).to_bits());
        radius * angle.cos()
    }

    /// A uniform number in [0, 1): the low 53 bits of two outputs, high word first.
    fn rand_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.next_u32()), u64::from(self.next_u32()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// Numbers in a block.
const BLOCK: usize = 16;

/// Turns 16 uniform numbers into normal ones: number i and number i + 8 make a pair.
fn box_muller(block: &mut [f32; BLOCK], mean: f32, std: f32) {
    for i in 0..BLOCK / 2 {
        let radius = (-2.0 * ln(1.0 - block[i])).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * block[i + BLOCK / 2]);
        block[i] = (radius * cos).mul_add(std, mean);
        block[i + BLOCK / 2] = (radius * sin).mul_add(std, mean);
    }
}

/// The natural logarithm of a normal number above 0.
fn ln(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // ln 2 in two parts.
    const LOW: f32 = -2.121_944_4e-4;
    const HIGH: f32 = 0.693_359_4;
    let bits = x.to_bits();
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000); // in [0.5, 1)
    let exponent = (bits >> 23) as i32 - 126;
    let (x, e) = if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        ((mantissa - 1.0) + mantissa, (exponent - 1) as f32)
    } else {
        (mantissa - 1.0, exponent as f32)
    };
    let square = x * x;
    let sum = |sum: f32, c: &f32| sum.mul_add(x, *c);
    let series = COEFFICIENTS[1..].iter().fold(COEFFICIENTS[0], sum);
    let y = (series * x).mul_add(square, e * LOW);
    let y = square.mul_add(-0.5, y);
    e.mul_add(HIGH, x + y)
}

/// Sine and cosine of an angle from 0 to 2π.
fn sin_cos(angle: f32) -> (f32, f32) {
    // π/4 in three parts.
    const PARTS: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    let octant = ((angle * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let reduce = |x: f32, part: &f32| (octant as f32).mul_add(*part, x);
    let x = PARTS.iter().fold(angle, reduce);
    let z = x * x;
    let series = |c: [f32; 3]| c[0].mul_add(z, c[1]).mul_add(z, c[2]) * z;
    let cos = series([2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cos = cos.mul_add(z, -(z * 0.5)) + 1.0;
    let sin = series([-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sin = sin.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 {
        (sin, cos)
    } else {
        (cos, sin)
    };
    let negative = |yes: bool, x: f32| if yes { -x } else { x };
    (
        negative(octant & 4 != 0, sin),
        negative((octant - 2) & 4 == 0, cos),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(numbers: &[f32]) -> u64 {
        (numbers.iter()).fold(14_695_981_039_346_656_037, |hash, x| {
            (hash ^ u64::from(x.to_bits())).wrapping_mul(1_099_511_628_211)
        })
    }

    fn normal(generator: &mut TorchGenerator, n: usize, mean: f64, std: f64) -> Vec<f32> {
        let mut out = vec![0.0; n];
        generator.fill_normal(&mut out, mean, std);
        out
    }

    /// FNV-1a over the bits of `torch.manual_seed(3)` and then `torch.empty(n).normal_(mean, std)`,
    /// from PyTorch 2.15 with AVX2 and with AVX-512.
    #[test]
    fn blocks_of_normal_numbers_are_torchs_to_the_last_bit() {
        let mut generator = TorchGenerator::manual_seed(3);
        let numbers = normal(&mut generator, 10_000, 0.0, 1.0 / 28.0);
        assert_eq!(hash(&numbers), 1_466_408_761_564_248_412);
        // 10,007 = 625·16 + 7: the last sixteen are drawn again.
        let mut generator = TorchGenerator::manual_seed(3);
        let numbers = normal(&mut generator, 10_007, 0.5, 2.0);
        assert_eq!(hash(&numbers), 9_409_941_510_003_177_510);
        let numbers = normal(&mut generator, 16, 0.0, 1.0);
        assert_eq!(hash(&numbers), 6_200_707_770_086_679_809);
        assert_eq!(generator.rand_f32(), 0.568_297_1);
    }

    /// `torch.manual_seed(7)`, then tensors of 1, 4 and 3 numbers with standard deviation 0.5, one
    /// of 16, and one of 1.
    #[test]
    fn single_normal_numbers_come_in_pairs_as_in_torch() {
        let want = [
            0xbd965174u32,
            0x3ec9408e,
            0x3ef262e7,
            0xbf0ea2d3,
            0x3f586bd0,
            0xbee51371,
            0xbe36147c,
            0x3f1dbed1,
        ];
        let mut generator = TorchGenerator::manual_seed(7);
        let numbers = [1, 4, 3].map(|n| normal(&mut generator, n, 0.0, 0.5));
        assert_eq!(numbers.concat(), want.map(f32::from_bits));
        let block = normal(&mut generator, 16, 0.0, 1.0);
        assert_eq!(hash(&block), 6_228_801_373_557_150_699);
        let one = normal(&mut generator, 1, 0.0, 1.0);
        assert_eq!(one[0].to_bits(), 0x401c0b9a);
        // The kept half of a pair is part of the state.
        let mut restored = TorchGenerator::manual_seed(0);
        restored.set_state(&generator.state()).unwrap();
        assert_eq!(restored, generator);
        assert_eq!(
            normal(&mut restored, 3, 0.0, 1.0),
            normal(&mut generator, 3, 0.0, 1.0)
        );
    }
}
