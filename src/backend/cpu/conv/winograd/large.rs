//! Winograd's convolution where the transformed weight, four times the weight, is too large for the
//! cache and there are few tiles to multiply it with: the last stage of a ResNet.
//!
//! Here the tiles of all images are transformed first. Then a piece of the weight at a time is
//! transformed and multiplied with all of them before it leaves the cache, instead of the whole
//! being written to memory and read back.

use super::tiles::{Squares, Tiles, piece};
use super::{PLACES, REACH, TILE, apart, square, weight};
use crate::backend::Write;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::Conv;
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers of a transformed weight that the second-level cache holds beside the rest: a megabyte.
const CACHED: usize = 1 << 18;

/// Most channels along each side of a piece of the weight: 36 places of it are 576 KiB.
const DEPTH: usize = 128;
const WIDTH: usize = 32;

/// Whether the transformed weight is large, and larger than the transformed tiles of `output`.
pub(in crate::backend::cpu::conv) fn suits(conv: Conv, output: Images) -> bool {
    PLACES * conv.input.c * conv.out_c > CACHED
        && Tiles::new(output).each * output.n <= conv.input.c.min(conv.out_c)
}

/// `channels` in pieces of nearly the same length.
fn pieces(channels: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = channels.div_ceil(DEPTH);
    (0..pieces).map(move |i| channels * i / pieces..channels * (i + 1) / pieces)
}

/// Calls `f(column, cell)` for cells of [`WIDTH`] columns. Several threads start with half of the columns
/// each: of five cells one would have three.
fn columns(tile: TileMut<'_>, parallel: bool, f: &(impl Fn(usize, TileMut<'_>) + Sync)) {
    let (rows, width) = (tile.rows(), tile.cols());
    let cells = |tile: TileMut<'_>, first: usize| {
        tile.for_each_cell(rows, WIDTH, parallel, &|_, at, cell| f(first + at, cell));
    };
    if parallel && rayon::current_num_threads() > 1 {
        let half = width.div_ceil(2).next_multiple_of(16).min(width);
        let (left, right) = tile.split_cols(half);
        rayon::join(|| cells(left, 0), || cells(right, half));
    } else {
        cells(tile, 0);
    }
}

/// [`convolve`](super::convolve) with the weight piece by piece.
pub(super) fn convolve(
    table: &Table,
    dst: &mut [f32],
    src: &[f32],
    w: &[f32],
    conv: Conv,
    transposed: bool,
    write: Write,
) {
    let (x, y, parallel) = (conv.input, conv.output(), super::super::parallel(conv));
    let (from, to) = if transposed { (y, x) } else { (x, y) };
    let padding = conv.padding.map(|p| if transposed { 2 - p } else { p });
    let tiles = Tiles::new(to);
    let block = tiles.layout.block;
    let v_step = apart(block * from.c);
    // A row to spare between places keeps them off the same lines of the caches.
    let m_rows = block + 1;
    let m_step = m_rows * to.c;
    let (v_tile, m_tile) = (PLACES * v_step, PLACES * m_step);
    scratch::numbers(tiles.count() * (v_tile + m_tile), |memory| {
        let (v, m) = memory.split_at_mut(tiles.count() * v_tile);
        let squares = Squares {
            table,
            tiles,
            src,
            images: from,
            padding,
            reach: REACH,
        };
        squares.transform(Transform::Input, (v, v_step), 0, parallel);
        let v = &*v;
        let all = TileMut::new(m, tiles.count() * PLACES * m_rows, to.c, to.c);
        columns(all, parallel, &|start, mut m| {
            let cols = m.cols();
            scratch::numbers(PLACES * apart(DEPTH.min(from.c) * cols), |u| {
                for depth in pieces(from.c) {
                    let u_step = apart(depth.len() * cols);
                    let u = &mut u[..PLACES * u_step];
                    let each = TileMut::new(u, PLACES, depth.len() * cols, u_step);
                    weight(
                        table,
                        each,
                        w,
                        conv,
                        transposed,
                        (start, cols),
                        depth.clone(),
                    );
                    let write = if depth.start == 0 {
                        Write::Set
                    } else {
                        Write::Add
                    };
                    for i in 0..tiles.count() {
                        let samples = tiles.block(i).1;
                        let rows = (PLACES - 1) * m_rows + samples;
                        let m = m.rows_every(i * PLACES * m_rows, rows, 1);
                        let terms = Terms {
                            a: &v[i * v_tile + depth.start..],
                            b: u,
                            taps: &[Tap { a: 0, b: 0 }],
                            k: depth.len(),
                            a_row: from.c,
                            a_step: 1,
                            b_row: cols,
                        };
                        let next = [v_step, u_step];
                        table.products_every(
                            m,
                            [PLACES, samples, m_rows],
                            &terms,
                            next,
                            write,
                            &[],
                        );
                    }
                }
            });
        });
        let m = &*m;
        let blocks = dst.par_chunks_mut(block * to.sample()).enumerate();
        let blocks = blocks.with_min_len(if parallel { 1 } else { usize::MAX });
        blocks.for_each(|(b, dst)| {
            let pixel = dst.len() / to.pixels();
            let dst = TileMut::new(dst, to.pixels(), pixel, pixel);
            dst.for_each_cell(to.pixels(), piece(pixel), parallel, &|_, at, mut dst| {
                for i in b * tiles.each..(b + 1) * tiles.each {
                    let from = Places::all(REACH, i * m_tile + at, REACH * m_step, m_step);
                    let pixels = Images { n: 1, c: 1, ..to };
                    let place = square(tiles.at(i), [0; 2], TILE, pixels, 1);
                    let (dst, m) = ((dst.reborrow(), &place), (m, &from));
                    table.winograd_rows(Transform::Output, dst, m, (1, 0), write);
                }
            });
        });
    });
}

/// [`weight_gradient`](super::weight_gradient) of the weight piece by piece.
pub(super) fn weight_gradient(
    table: &Table,
    dw: &mut [f32],
    x: &[f32],
    dy: &[f32],
    conv: Conv,
    write: Write,
) {
    let (input, output, parallel) = (conv.input, conv.output(), super::super::parallel(conv));
    let tiles = Tiles::new(output);
    let v_step = apart(tiles.layout.block * input.c);
    let g_step = apart(tiles.layout.block * output.c);
    let (v_tile, g_tile) = (PLACES * v_step, PLACES * g_step);
    scratch::numbers(tiles.count() * (v_tile + g_tile), |memory| {
        let (v, g) = memory.split_at_mut(tiles.count() * v_tile);
        let [read, written] = super::gradient::squares(table, tiles, x, dy, conv);
        read.transform(Transform::Input, (v, v_step), 0, parallel);
        written.transform(Transform::OutputGradient, (g, g_step), 0, parallel);
        let (v, g) = (&*v, &*g);
        let dw = TileMut::new(dw, 9 * input.c, output.c, output.c);
        columns(dw, parallel, &|start, mut dw| {
            let cols = dw.cols();
            for depth in pieces(input.c) {
                let matrix = depth.len() * cols;
                let step = apart(matrix);
                scratch::numbers(PLACES * step, |du| {
                    let widths = table.widths(depth.len(), cols);
                    let (mut sum, mut first) = (Write::Set, 0);
                    scratch::taps(|taps| {
                        // Tiles of the same number of samples in one go: all blocks but the last.
                        while first < tiles.count() {
                            let k = tiles.block(first).1;
                            let alike =
                                (first..tiles.count()).take_while(|&i| tiles.block(i).1 == k);
                            taps.clear();
                            taps.extend(alike.map(|i| Tap {
                                a: i * v_tile + depth.start,
                                b: i * g_tile + start,
                            }));
                            first += taps.len();
                            let terms = Terms {
                                a: v,
                                b: g,
                                taps,
                                k,
                                a_row: 1,
                                a_step: input.c,
                                b_row: output.c,
                            };
                            let du = TileMut::new(du, PLACES, matrix, step);
                            let next = [v_step, g_step];
                            table.products(du, cols, &terms, next, sum, &widths, &[]);
                            sum = Write::Add;
                        }
                    });
                    let from = Places::all(REACH, 0, REACH * step, step);
                    let to = Places::all(3, depth.start, 3 * input.c, input.c);
                    let (dw, du) = ((dw.reborrow(), &to), (&*du, &from));
                    let lines = depth.len();
                    table.winograd_lines(Transform::WeightGradient, dw, du, lines, write);
                });
            }
        });
    });
}
