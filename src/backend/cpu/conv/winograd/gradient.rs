//! The gradient of the weight by Winograd's transforms.

use super::tiles::{Squares, Tiles};
use super::{NARROW, PLACES, PLACES_TOGETHER, REACH, TILE, apart, large};
use crate::backend::Write;
use crate::backend::cpu::elementwise;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::Conv;
use rayon::prelude::*;
use std::ops::Range;

/// Terms that are added before the sums go back to memory.
const TERMS: usize = 192;

/// Most numbers of a transformed gradient of which each part of the tiles gets one of its own, so that
/// threads need not wait for one another after every few tiles.
const PART_NUMBERS: usize = 1 << 16;

/// Parts of the tiles, and the tiles of one where there are fewer.
const PARTS: usize = 8;
const PART_TILES: usize = 4;

/// Numbers of each place of the kernel that one thread adds up from all parts and transforms back: 36 places
/// of the transform are 72 KiB.
const CELL: usize = 512;

/// What the gradient of the weight reads: the squares of the input, and those of the output.
pub(super) fn squares<'a>(
    table: &'a Table,
    tiles: Tiles,
    x: &'a [f32],
    dy: &'a [f32],
    conv: Conv,
) -> [Squares<'a>; 2] {
    let read = Squares {
        table,
        tiles,
        src: x,
        images: conv.input,
        padding: conv.padding,
        reach: REACH,
    };
    let written = Squares {
        src: dy,
        images: conv.output(),
        padding: [0; 2],
        reach: TILE,
        ..read
    };
    [read, written]
}

/// `dw = ` (or `+=`) the gradient of the weight. The parts that it is added up from depend on the sizes
/// alone.
pub(in crate::backend::cpu::conv) fn weight_gradient(
    table: &Table,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    if large::suits(conv, conv.output()) {
        return large::weight_gradient(table, dw, x, dy, conv, write);
    }
    let parallel = super::super::parallel(conv);
    let tiles = Tiles::new(conv.output());
    let matrix = conv.input.c * conv.out_c;
    let step = apart(matrix);
    let parts = if parallel && PLACES * matrix <= PART_NUMBERS {
        tiles.count().div_ceil(PART_TILES).min(PARTS)
    } else {
        1
    };
    let squares = squares(table, tiles, x, dy, conv);
    scratch::numbers(parts * PLACES * step, |all| {
        let each = all.par_chunks_mut(PLACES * step).enumerate();
        let each = each.with_min_len(if parallel { 1 } else { usize::MAX });
        each.for_each(|(part, du)| {
            let range = tiles.count() * part / parts..tiles.count() * (part + 1) / parts;
            sum(du, &squares, range, parallel && parts == 1);
        });
        finish(table, dw, (all, parts), matrix, parallel, write, false);
    });
}

/// What is read for the gradient of a weight beside the gradient of the output, and where it goes.
pub(crate) struct WeightGradient<'a> {
    /// The input of the convolution.
    pub x: &'a [f32],
    /// The gradient, which is set.
    pub dw: &'a mut [f32],
}

/// Writes the gradient of a weight that `sum` adds up in so many parts as it is told, each of which has as many of the
/// strips: with `OutputGradient` of the input of the convolution and `Input` of the gradient of its output, as if the one
/// were the other. What comes out is turned over.
///
/// Where a strip is one sum (`at_once`) it is the same to add one after the other as to add them up afterwards: a thread
/// by itself does with memory for one.
pub(super) fn in_parts(
    table: &Table,
    weight: WeightGradient<'_>,
    conv: Conv,
    (strips, at_once): (usize, bool),
    sum: impl FnOnce(&mut [f32], usize),
) {
    let matrix = conv.input.c * conv.out_c;
    let parallel = super::super::parallel(conv);
    let one = !parallel || (at_once && strips <= PARTS && rayon::current_num_threads() == 1);
    let parts = if one { 1 } else { strips.min(PARTS) };
    scratch::numbers(parts * PLACES * apart(matrix), |all| {
        sum(all, parts);
        finish(
            table,
            weight.dw,
            (all, parts),
            matrix,
            parallel,
            Write::Set,
            true,
        );
    });
}

/// Adds up the parts of a transformed gradient and transforms it back.
fn finish(
    table: &Table,
    dw: &mut [f32],
    (all, parts): (&[f32], usize),
    matrix: usize,
    parallel: bool,
    write: Write,
    turned: bool,
) {
    let step = apart(matrix);
    let dw = TileMut::new(dw, 9, matrix, matrix);
    dw.for_each_cell(9, CELL, parallel, &|_, start, mut dw| {
        let cols = dw.cols();
        let apart = apart(cols);
        scratch::numbers((PLACES + 9) * apart, |memory| {
            let (du, out) = memory.split_at_mut(PLACES * apart);
            let (du, step) = if parts == 1 {
                (&all[start..], step)
            } else {
                for (place, du) in du.chunks_exact_mut(apart).enumerate() {
                    for part in 0..parts {
                        let part_of = &all[(part * PLACES + place) * step + start..][..cols];
                        let write = if part == 0 { Write::Set } else { Write::Add };
                        elementwise::map(&mut du[..cols], part_of, write, |x| x);
                    }
                }
                (&*du, apart)
            };
            let du = (du, &Places::all(REACH, 0, REACH * step, step));
            if !turned {
                let to = Places::all(3, 0, 3, 1);
                let back = Transform::WeightGradient;
                return table.winograd_rows(back, (dw, &to), du, (1, 0), write);
            }
            let to = Places::all(3, 0, 3 * apart, apart);
            table.winograd(Transform::WeightGradient, (out, &to), du, cols, Write::Set);
            for (place, out) in out.chunks_exact(apart).enumerate() {
                elementwise::map(dw.row(8 - place), &out[..cols], write, |x| x);
            }
        });
    });
}

/// `du[place] = ` the sum over a range of tiles, of which there is at least one; places lie [`apart`].
fn sum(du: &mut [f32], [read, written]: &[Squares<'_>; 2], range: Range<usize>, parallel: bool) {
    let (table, tiles) = (read.table, read.tiles);
    let (inputs, outputs) = (read.images.c, written.images.c);
    let (v_step, g_step) = (
        apart(tiles.layout.block * inputs),
        apart(tiles.layout.block * outputs),
    );
    let (v_tile, g_tile) = (PLACES * v_step, PLACES * g_step);
    let most = (TERMS / tiles.layout.block).clamp(1, tiles.each);
    let widths = table.widths(inputs, outputs);
    let min_len = if parallel { 1 } else { usize::MAX };
    // Places whose products are few vectors wide go together.
    let (narrow, step) = (outputs <= NARROW * table.lanes(), apart(inputs * outputs));
    let together = if narrow { PLACES_TOGETHER } else { 1 };
    scratch::numbers(most * (v_tile + g_tile), |memory| {
        let (v, g) = memory.split_at_mut(most * v_tile);
        let mut first = range.start;
        while first < range.end {
            let samples = tiles.block(first).1;
            let block_end = (first / tiles.each + 1) * tiles.each;
            let count = most.min(range.end.min(block_end) - first);
            let (v, g) = (&mut v[..count * v_tile], &mut g[..count * g_tile]);
            read.transform(Transform::Input, (&mut *v, v_step), first, parallel);
            let gradient = Transform::OutputGradient;
            written.transform(gradient, (&mut *g, g_step), first, parallel);
            let (v, g) = (&*v, &*g);
            let write = if first == range.start {
                Write::Set
            } else {
                Write::Add
            };
            let groups = du.par_chunks_mut(together * step).enumerate();
            groups.with_min_len(min_len).for_each(|(i, du)| {
                scratch::taps(|taps| {
                    let place = i * together;
                    taps.extend((0..count).map(|i| Tap {
                        a: i * v_tile + place * v_step,
                        b: i * g_tile + place * g_step,
                    }));
                    let terms = Terms {
                        a: v,
                        b: g,
                        taps,
                        k: samples,
                        a_row: 1,
                        a_step: inputs,
                        b_row: outputs,
                    };
                    let du = TileMut::new(du, together, inputs * outputs, step);
                    let next = [v_step, g_step];
                    table.products(du, outputs, &terms, next, write, &widths, &[]);
                });
            });
            first += count;
        }
    });
}
