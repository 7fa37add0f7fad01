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
        let all = &*all;
        let dw = TileMut::new(dw, 9, matrix, matrix);
        dw.for_each_cell(9, CELL, parallel, &|_, start, dw| {
            let to = Places::all(3, 0, 3, 1);
            let cols = dw.cols();
            let places = |step: usize| Places::all(REACH, 0, REACH * step, step);
            if parts == 1 {
                let du = (&all[start..], &places(step));
                return table.winograd_rows(
                    Transform::WeightGradient,
                    (dw, &to),
                    du,
                    (1, 0),
                    write,
                );
            }
            scratch::numbers(PLACES * apart(cols), |du| {
                for (place, du) in du.chunks_exact_mut(apart(cols)).enumerate() {
                    for part in 0..parts {
                        let part_of = &all[(part * PLACES + place) * step + start..][..cols];
                        let write = if part == 0 { Write::Set } else { Write::Add };
                        elementwise::map(&mut du[..cols], part_of, write, |x| x);
                    }
                }
                let du = (&*du, &places(apart(cols)));
                table.winograd_rows(Transform::WeightGradient, (dw, &to), du, (1, 0), write);
            });
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
