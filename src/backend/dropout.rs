//! The random decisions of dropout, the same on every backend.
//!
//! A counter-based generator (Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011) turns the place of an element directly into a random
//! number: no state, so neither the order of evaluation nor the thread count can change a mask.

use super::DropoutMask;
use crate::rng::philox4x32_10_lanes;

/// Elements served by one evaluation of the generator.
pub(crate) const DROPOUT_BLOCK: usize = 4;

/// The decisions for `N` blocks of elements of sample `sample`, from block `block` on: `[j][i]` is true
/// where element `j` of block `block + i` is kept.
///
/// An element is dropped when its uniform number in `[0, 1)` (24 bits, so exact in f32) is below `p`.
#[inline(always)]
pub(crate) fn dropout_blocks<const N: usize>(
    mask: &DropoutMask,
    sample: u32,
    block: u32,
) -> [[bool; N]; DROPOUT_BLOCK] {
    let mut counter = [[0; N], [sample; N], [mask.layer; N], [mask.step as u32; N]];
    for (i, at) in counter[0].iter_mut().enumerate() {
        *at = block.wrapping_add(i as u32);
    }
    // The upper half of the step is 0 in any run of less than four billion steps.
    let key = [
        mask.seed as u32,
        (mask.seed >> 32) as u32 ^ (mask.step >> 32) as u32,
    ];
    let mut keeps = [[false; N]; DROPOUT_BLOCK];
    let bits = philox4x32_10_lanes(counter, key);
    for (keeps, bits) in keeps.iter_mut().zip(&bits) {
        for (keep, &bits) in keeps.iter_mut().zip(bits) {
            *keep = (bits >> 8) as f32 / (1 << 24) as f32 >= mask.p;
        }
    }
    keeps
}

/// Whether dropout keeps element `element` of sample `sample`.
pub(crate) fn dropout_keeps(mask: &DropoutMask, sample: u32, element: u32) -> bool {
    let block = DROPOUT_BLOCK as u32;
    dropout_blocks::<1>(mask, sample, element / block)[(element % block) as usize][0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: DropoutMask = DropoutMask {
        p: 0.3,
        seed: 7,
        step: 11,
        layer: 2,
    };

    #[test]
    fn dropout_drops_a_share_of_p() {
        let kept = (0..100_000)
            .filter(|&i| dropout_keeps(&MASK, i / 100, i % 100))
            .count();
        // Five standard deviations of a binomial with p = 0.3.
        assert!(
            kept.abs_diff(70_000) < 725,
            "{kept} of 100000 kept at p = 0.3"
        );
        let nothing = DropoutMask { p: 0.0, ..MASK };
        assert!((0..1000).all(|i| dropout_keeps(&nothing, 0, i)));
    }

    #[test]
    fn every_part_of_the_key_changes_the_mask() {
        let pattern = |mask: DropoutMask, sample| -> Vec<bool> {
            (0..64).map(|i| dropout_keeps(&mask, sample, i)).collect()
        };
        let all = [
            pattern(MASK, 0),
            pattern(MASK, 1),
            pattern(DropoutMask { seed: 8, ..MASK }, 0),
            pattern(
                DropoutMask {
                    seed: 7 + (1 << 32),
                    ..MASK
                },
                0,
            ),
            pattern(DropoutMask { step: 12, ..MASK }, 0),
            pattern(
                DropoutMask {
                    step: 11 + (1 << 33),
                    ..MASK
                },
                0,
            ),
            pattern(DropoutMask { layer: 3, ..MASK }, 0),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(a, b);
            }
        }
    }
}
