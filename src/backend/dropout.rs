//! The random decisions of dropout, the same on every backend.
//!
//! A counter-based generator (Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011) turns the place of an element directly into a random
//! number: no state, so neither the order of evaluation nor the thread count can change a mask.

use super::DropoutMask;
use crate::rng::philox4x32_10;

/// Elements served by one evaluation of the generator.
pub(crate) const DROPOUT_BLOCK: usize = 4;

/// The decisions for the elements `DROPOUT_BLOCK·block ..` of sample `sample`: true where kept.
///
/// An element is dropped when its uniform number in `[0, 1)` (24 bits, so exact in f32) is below `p`.
#[inline(always)]
pub(crate) fn dropout_block(mask: &DropoutMask, sample: u32, block: u32) -> [bool; DROPOUT_BLOCK] {
    let counter = [block, sample, mask.layer, mask.step as u32];
    // The upper half of the step is 0 in any run of less than four billion steps.
    let key = [
        mask.seed as u32,
        (mask.seed >> 32) as u32 ^ (mask.step >> 32) as u32,
    ];
    philox4x32_10(counter, key).map(|bits| (bits >> 8) as f32 / (1 << 24) as f32 >= mask.p)
}

/// Whether dropout keeps element `element` of sample `sample`.
pub(crate) fn dropout_keeps(mask: &DropoutMask, sample: u32, element: u32) -> bool {
    let block = DROPOUT_BLOCK as u32;
    dropout_block(mask, sample, element / block)[(element % block) as usize]
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
    fn philox_gives_the_published_numbers() {
        // The known-answer vectors that come with the authors' own implementation (Random123).
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
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
