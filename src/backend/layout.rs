//! Where the pixels of a batch lie.

use crate::shape::Images;

/// Where the numbers of a batch of images lie: see the [module](super#layout).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpatialLayout {
    /// The batch.
    pub images: Images,
    /// Samples in each block but the last, which may be smaller; at least 1.
    pub block: usize,
}

impl SpatialLayout {
    /// The layout of `images` on a backend whose blocks hold at most `max_block` samples: the batch
    /// is divided evenly, so that 33 samples make blocks of 17 and 16 rather than 32 and 1.
    pub fn new(images: Images, max_block: usize) -> Self {
        let blocks = images.n.div_ceil(max_block).max(1);
        SpatialLayout {
            images,
            block: images.n.div_ceil(blocks).max(1),
        }
    }

    /// The blocks in order: `(first sample, samples)`.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + use<> {
        let (n, block) = (self.images.n, self.block);
        (0..n.div_ceil(block)).map(move |b| (b * block, block.min(n - b * block)))
    }

    /// The index of the first channel of pixel `(y, x)` of sample `sample`.
    pub fn index(&self, sample: usize, y: usize, x: usize) -> usize {
        let Images { n, c, h, w } = self.images;
        let first = sample / self.block * self.block;
        let size = self.block.min(n - first);
        (first * h * w + (y * w + x) * size + (sample - first)) * c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spatial_layout_is_a_permutation_with_even_blocks() {
        for (n, max, block) in [
            (1, 32, 1),
            (20, 32, 20),
            (33, 32, 17),
            (96, 32, 32),
            (5, 1, 1),
        ] {
            let images = Images {
                n,
                c: 3,
                h: 2,
                w: 4,
            };
            let layout = SpatialLayout::new(images, max);
            assert_eq!(layout.block, block, "{n} samples");
            let mut seen = vec![false; images.len() / 3];
            for s in 0..n {
                for y in 0..2 {
                    for x in 0..4 {
                        let at = layout.index(s, y, x);
                        assert!(
                            at.is_multiple_of(3) && !std::mem::replace(&mut seen[at / 3], true)
                        );
                    }
                }
            }
            assert_eq!(layout.blocks().map(|b| b.1).sum::<usize>(), n);
        }
    }
}
