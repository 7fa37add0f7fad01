//! Which samples go into which mini-batch, with PyTorch's draws.
//!
//! Starting to iterate a PyTorch loader draws one 64-bit seed for its workers; a shuffling sampler
//! draws another when the first batch is asked for, seeds a private generator with it, and takes a
//! permutation from that.

use crate::rng::TorchGenerator;

/// One pass over the samples of a data set, shuffled, in batches.
#[derive(Default)]
pub(super) struct Shuffled {
    order: Vec<u32>,
    next: usize,
}

impl Shuffled {
    /// Starts a pass over `n` samples.
    pub fn start(&mut self, n: usize, generator: &mut TorchGenerator) {
        generator.random_i64();
        let seed = generator.random_i64() as u64 & 0xffff_ffff;
        TorchGenerator::manual_seed(seed).randperm_into(&mut self.order, n);
        self.next = 0;
    }

    /// The next samples, at most `size`; empty at the end of the pass.
    pub fn batch(&mut self, size: usize) -> &[u32] {
        let start = self.next;
        self.next = self.order.len().min(start + size);
        &self.order[start..self.next]
    }
}

/// An endless sequence of full batches: passes over the buffer without replacement, each shuffled
/// anew; what is left over at the end of a pass is dropped.
#[derive(Default)]
pub(super) struct Endless {
    pass: Shuffled,
    batches_left: usize,
}

impl Endless {
    /// The next `size` of `n` samples; `size` is at least 1 and at most `n`.
    pub fn batch(&mut self, n: usize, size: usize, generator: &mut TorchGenerator) -> &[u32] {
        if self.batches_left == 0 {
            self.pass.start(n, generator);
            self.batches_left = n / size;
        }
        self.batches_left -= 1;
        self.pass.batch(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_visits_every_sample_once_and_keeps_the_last_short_batch() {
        let mut loader = Shuffled::default();
        loader.start(23, &mut TorchGenerator::manual_seed(1));
        let sizes: Vec<usize> = (0..4).map(|_| loader.batch(10).len()).collect();
        assert_eq!(sizes, [10, 10, 3, 0]);
        let mut all = loader.order.clone();
        all.sort_unstable();
        assert_eq!(all, (0..23).collect::<Vec<_>>());
    }

    #[test]
    fn endless_batches_are_full_and_do_not_repeat_within_a_pass() {
        let mut generator = TorchGenerator::manual_seed(1);
        let mut loader = Endless::default();
        for _ in 0..5 {
            let mut seen = Vec::new();
            for _ in 0..2 {
                seen.extend_from_slice(loader.batch(10, 4, &mut generator));
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 8);
        }
    }
}
