//! Products whose factors are rounded to bfloat16, and whose sums are f32.
//!
//! Everything is stored in f32: activations, gradients, weights. A product converts each factor once per
//! call into words of two terms ([`PairKernels`]), then runs the register tiles (or tile registers) of
//! the hardware over them. In the precision `high` each number is split into two bfloat16 numbers and a
//! product becomes three, `high·low + high·high + low·high`: three taps in place of one, and the same
//! kernels. What is lost, `low·low`, is some `2⁻¹⁸` of the result.
//!
//! An overflow of the splitting (a number above bfloat16's largest, 3.39e38) becomes NaN, and numbers below
//! f32's smallest normal one count as zero: both are the hardware's.
//!
//! Not every product is done so: see [`Factors::multiply`] and [`Factors::convolve`].

mod gemm;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use gemm::{Prepared, gemm};

use super::BATCH_BLOCK;
use super::dispatch::select_pairs;
use super::isa::Tap;
use super::isa::bf16::PairKernels;
use crate::backend::{Gemm, Precision, SpatialLayout};
use crate::error::{Error, Result};
use crate::shape::Conv;
use std::sync::Once;

/// How factors are rounded, and what multiplies them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    kernels: &'static PairKernels,
    /// Each number becomes two.
    split: bool,
    /// Products that would be faster in f32 are done in bfloat16 too.
    always: bool,
}

/// Multiply-adds for each number converted from which a product gains by it. Measured where conversion
/// costs most beside the product, on AVX512-BF16.
const WORTH: usize = 32;

/// Terms of a sum below which writing it down takes most of the time.
const TERMS: usize = 32;

impl Factors {
    /// What `precision` asks for on this CPU; `None` is f32. Where the hardware is missing, or would only
    /// be slower, a warning says so once and f32 it is.
    ///
    /// # Errors
    /// [`Error::Device`] for a precision that is a GPU's.
    pub fn new(precision: Precision) -> Result<Option<Self>> {
        static SAID: [Once; 2] = [const { Once::new() }; 2];
        let kernels = select_pairs();
        let factors = |kernels, split| Factors {
            kernels,
            split,
            always: false,
        };
        match precision {
            Precision::Full => Ok(None),
            Precision::Tf32 => Err(Error::Device(
                "the precision tf32 needs a GPU: use --device cuda, or --precision high, which rounds \
                 less"
                    .into(),
            )),
            Precision::Bf16 => {
                let found = kernels.is_some();
                let kernels = kernels.filter(|kernels| kernels.fast());
                if kernels.is_none() {
                    let missing = if found {
                        "AMX is missing here (or UNFORGET_ISA leaves it out), and this CPU is faster in \
                         f32 than with AVX512-BF16"
                    } else {
                        "AVX512-BF16 and AMX are missing here (or UNFORGET_ISA leaves them out)"
                    };
                    SAID[0].call_once(|| {
                        log::warn!("precision bf16: {missing}, so it computes in f32");
                    });
                }
                Ok(kernels.map(|kernels| factors(kernels, false)))
            }
            Precision::High => {
                // Three products at the speed of AVX512-BF16 take longer than one in f32.
                let kernels = kernels.filter(|kernels| kernels.upright());
                if kernels.is_none() {
                    SAID[1].call_once(|| {
                        log::warn!(
                            "precision high: AMX is missing here (or UNFORGET_ISA leaves it out), \
                             without which f32 is faster, so it computes in f32"
                        );
                    });
                }
                Ok(kernels.map(|kernels| factors(kernels, true)))
            }
        }
    }

    /// Given kernels for every product, however small.
    pub fn always(kernels: &'static PairKernels, split: bool) -> Self {
        Factors {
            kernels,
            split,
            always: true,
        }
    }

    /// The same for products that gain by it only.
    pub fn where_it_pays(self) -> Self {
        Factors {
            always: false,
            ..self
        }
    }

    /// The kernels.
    pub fn kernels(self) -> &'static PairKernels {
        self.kernels
    }

    /// Planes of words: one, or two if numbers are split.
    pub fn planes(self) -> usize {
        1 + usize::from(self.split)
    }

    /// Words of so many terms, in each plane.
    pub fn depth(self, terms: usize) -> usize {
        terms.div_ceil(2).next_multiple_of(self.kernels.unit())
    }

    /// A distance between planes, if there are two.
    pub fn low(self, distance: usize) -> Option<usize> {
        self.split.then_some(distance)
    }

    /// Whether a matrix product gains by it: enough multiply-adds for each number of all three matrices, and
    /// not too much padding.
    pub fn multiply(self, Gemm { m, n, k, .. }: Gemm) -> bool {
        self.always
            || (k >= TERMS
                && self.fits(k)
                && m.saturating_mul(n) >= WORTH.saturating_mul(m.saturating_add(n)))
    }

    /// Whether leaving out the terms that are mostly one value, in f32, is faster than rounding all of them:
    /// beside vectors of words, not beside tile registers.
    pub fn leave_out(self) -> bool {
        !self.always && !self.kernels.upright()
    }

    /// Whether one of the three passes of a convolution gains by it, if f32 would not be
    /// helped by Winograd's transforms, which save more than vectors of words.
    pub fn convolve(self, conv: Conv, pass: Pass, transformed: bool) -> bool {
        let (input, output) = (conv.input, conv.output());
        let weight = conv.weight_len();
        let work = (output.n * output.pixels()).saturating_mul(weight);
        let (converted, terms) = match pass {
            Pass::Forward => (input.len() + weight, input.c),
            Pass::Data => (output.len() + weight, output.c),
            Pass::Weight => {
                let block = SpatialLayout::new(input, BATCH_BLOCK).block;
                (input.len() + output.len(), block)
            }
        };
        self.always || (!transformed && self.fits(terms) && work >= WORTH.saturating_mul(converted))
    }

    /// Whether so many terms fill the words that they are padded to well enough: three quarters for
    /// vectors, a quarter for tile registers, which are that much faster.
    fn fits(self, terms: usize) -> bool {
        let filled = if self.kernels.upright() { 1 } else { 3 };
        4 * terms >= filled * 2 * self.depth(terms)
    }
}

/// A pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The output.
    Forward,
    /// The gradient of the input.
    Data,
    /// The gradient of the weight.
    Weight,
}

/// Lists a tap, or the three of split numbers whose low planes lie at the distances given. The small
/// products come first.
pub(super) fn push(taps: &mut Vec<Tap>, tap: Tap, low: Option<(usize, usize)>) {
    let Tap { a, b } = tap;
    if let Some((low_a, low_b)) = low {
        let (a_low, b_low) = (a + low_a, b + low_b);
        taps.extend([Tap { a, b: b_low }, tap, Tap { a: a_low, b }]);
    } else {
        taps.push(tap);
    }
}
