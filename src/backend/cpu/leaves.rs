//! The leaves of the sums of batch normalisation over groups of samples: of rows that lie in memory, or of rows that a
//! convolution is about to compute, each while it is in the cache. Who adds them up when does not change a bit.

use super::BATCH_BLOCK;
use super::after::RowsDone;
use super::parallel::min_leaves;
use super::reduce::Runs;
use super::scratch;
use crate::backend::SpatialLayout;
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A leaf that has just been computed.
pub(super) struct Leaf<'a> {
    /// Its group.
    pub(super) group: usize,
    /// Numbers of the tensor from a row on in which its rows are, and which row that is.
    pub(super) numbers: (&'a mut [f32], usize),
    runs: &'a Runs,
    index: usize,
}

impl<'a> Leaf<'a> {
    /// Its rows, of `c` numbers.
    pub(super) fn rows(&self, c: usize) -> impl Iterator<Item = Range<usize>> + use<'a> {
        self.runs.leaf(self.index, c)
    }
}

/// The rows of each group, with its number.
pub(super) fn group_runs(images: Images, groups: &[usize]) -> impl Iterator<Item = (usize, Runs)> {
    let layout = SpatialLayout::new(images, BATCH_BLOCK);
    let mut end = 0;
    groups.iter().enumerate().map(move |(g, samples)| {
        let start = end;
        end += samples;
        (g, Runs::of_samples(layout, start..end))
    })
}

/// Whether no block of samples belongs to two groups.
pub(super) fn of_whole_blocks(images: Images, groups: &[usize]) -> bool {
    let block = SpatialLayout::new(images, BATCH_BLOCK).block;
    let mut end = 0;
    groups.iter().all(|samples| {
        end += samples;
        end == images.n || end.is_multiple_of(block)
    })
}

/// Calls `total` with the sums of all leaves of a group, `kept` numbers for each, which `sum(part, leaf)` makes; or with
/// the first of `known`, those of this group and of all after it, which then are those of all after it.
pub(super) fn of_group(
    runs: &Runs,
    c: usize,
    kept: usize,
    known: &mut Option<&[f32]>,
    sum: impl Fn(&mut [f32], usize) + Sync,
    total: impl FnOnce(&[f32]),
) {
    let len = runs.leaves(c) * kept;
    if let Some(known) = known {
        let (of_group, rest) = known.split_at(len);
        *known = rest;
        return total(of_group);
    }
    scratch::numbers(len, |parts| {
        let tasks = parts.par_chunks_mut(kept.max(1)).enumerate();
        tasks
            .with_min_len(min_leaves(runs.rows() * c))
            .for_each(|(i, part)| sum(part, i));
        total(parts);
    });
}

/// Fills `parts` with the sums of [all leaves](count) of all groups, as many numbers for each. `make` computes the rows,
/// a few of a block at a time: from a multiple of four to another or to the last. It says so for each, and `sum` adds
/// their leaves up there and then. Only for groups of [whole blocks](of_whole_blocks).
pub(super) fn while_computed(
    parts: &mut [f32],
    images: Images,
    groups: &[usize],
    sum: impl Fn(&mut [f32], Leaf<'_>) + Sync,
    make: impl FnOnce(&RowsDone<'_>),
) {
    let c = images.c;
    let kept = parts.len() / count(images, groups).max(1);
    let parts = Mutex::new(parts);
    make(&|block, rows, numbers| {
        let (group, runs, block, before) = group_of(images, groups, block);
        let leaves = runs.leaves_of(block, rows, c);
        let first = runs.leaf(leaves.start, c).next();
        let first = first.map_or(0, |rows| rows.start);
        scratch::numbers(kept, |part| {
            for index in leaves {
                let leaf = Leaf {
                    group,
                    numbers: (&mut *numbers, first),
                    runs: &runs,
                    index,
                };
                sum(part, leaf);
                let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
                parts[(before + index) * kept..][..kept].copy_from_slice(part);
            }
        });
    });
}

/// The leaves of all groups.
pub(super) fn count(images: Images, groups: &[usize]) -> usize {
    let leaves = group_runs(images, groups).map(|(_, runs)| runs.leaves(images.c));
    leaves.sum()
}

/// The group of a block: its number and its rows, which of its blocks it is, and the leaves of the groups before.
fn group_of(images: Images, groups: &[usize], mut block: usize) -> (usize, Runs, usize, usize) {
    let mut leaves = 0;
    for (g, runs) in group_runs(images, groups) {
        if block < runs.blocks() {
            return (g, runs, block, leaves);
        }
        block -= runs.blocks();
        leaves += runs.leaves(images.c);
    }
    unreachable!("the groups hold all samples");
}
