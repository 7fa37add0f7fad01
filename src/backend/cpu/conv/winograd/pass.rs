//! Winograd's convolution strip by strip: the transformed weight is there.

use super::tiles::Tiles;
use super::{NARROW, PLACES, PLACES_TOGETHER, REACH, TILE, apart, square};
use crate::backend::Write;
use crate::backend::cpu::after::After;
use crate::backend::cpu::isa::Tap;
use crate::backend::cpu::isa::winograd::{Places, Transform};
use crate::backend::cpu::scratch;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::tiles::TileMut;
use crate::backend::cpu::widths::Widths;
use crate::shape::Images;
use rayon::prelude::*;
use std::ops::Range;

/// Channels that are read from which the products take so long that it does not matter what the sums wait for when
/// they are written.
const MANY_CHANNELS: usize = 64;

/// Rows of the products that are worth having in one go.
const ROWS: usize = 48;

/// Numbers of both transformed images, the transformed weight and its gradient that are in use at a time where there is
/// a gradient of the weight, if a tile has no more: those that a second-level cache of two megabytes holds beside the
/// rest. One of a megabyte is no slower with as many.
const TOGETHER: usize = 400_000;

/// Vectors of CPUs whose second-level cache is smaller: those without AVX-512.
const SMALL_LANES: usize = 8;

/// Strips of a block that keep the threads busy.
const ENOUGH_STRIPS: usize = 4;

/// A convolution under way, forward or backward.
pub(super) struct Pass<'a> {
    pub table: &'a Table,
    pub src: &'a [f32],
    pub u: &'a [f32],
    /// Columns in a panel of `u`.
    pub cols: usize,
    /// The image that is read.
    pub from: Images,
    /// The image that is computed, in tiles.
    pub to: Images,
    pub tiles: Tiles,
    pub padding: [usize; 2],
    pub write: Write,
    pub parallel: bool,
    pub after: Option<After<'a>>,
    /// The input of the convolution whose data gradient this is, if the gradient of its weight is wanted as well: at the
    /// places of the image that is computed.
    pub input: Option<&'a [f32]>,
}

impl Pass<'_> {
    /// The strips of some of `count` parts, all of which have nearly as many. Each part writes its share of the numbers of
    /// `du`, the transformed gradient of the weight.
    pub fn parts(&self, dst: &mut [f32], du: &mut [f32], parts: Range<usize>, count: usize) {
        let strips = self.tiles.strips();
        let first = |part: usize| strips * part / count;
        let start = |strip: usize| self.tiles.start(strip) * self.to.c;
        if parts.len() > 1 {
            let mid = parts.start + parts.len() / 2;
            let cut = start(first(mid)) - start(first(parts.start));
            let (dst, dst2) = dst.split_at_mut(cut);
            let (du, du2) = du.split_at_mut(du.len() / parts.len() * (mid - parts.start));
            let mut one = || self.parts(dst, du, parts.start..mid, count);
            let mut two = || self.parts(dst2, du2, mid..parts.end, count);
            if self.parallel {
                rayon::join(one, two);
            } else {
                one();
                two();
            }
            return;
        }
        let mut rest = dst;
        let mut sum = Write::Set;
        for strip in first(parts.start)..first(parts.end) {
            let all = start(strip)..start(strip + 1);
            let (dst, more) = std::mem::take(&mut rest).split_at_mut(all.len());
            rest = more;
            self.strip(dst, du, sum, strip, all);
            sum = Write::Add;
        }
    }

    /// One of the strips, `TILE` rows of pixels if there are so many, which takes the `place` among the numbers of the image.
    fn strip(
        &self,
        dst: &mut [f32],
        du: &mut [f32],
        sum: Write,
        strip: usize,
        place: Range<usize>,
    ) {
        let first_tile = strip * self.tiles.across;
        let (start, samples) = self.tiles.block(first_tile);
        let [y, _] = self.tiles.at(first_tile);
        let src = &self.src[start * self.from.sample()..][..samples * self.from.sample()];
        let beside = self.after.map_or([&[][..]; 2], |after| after.beside);
        let beside = beside.map(|all| match all {
            [] => all,
            _ => &all[place.clone()],
        });
        let input = self.input.map(|input| {
            let block = &input[start * self.to.sample()..][..samples * self.to.sample()];
            (block, &input[place])
        });
        let (read, written) = (samples * self.from.c, samples * self.to.c);
        let across = self.tiles.across;
        let together = self.together(samples);
        let (v_step, m_step) = (apart(together * read), apart(together * written));
        let image = Images {
            h: dst.len() / (self.to.w * written),
            ..self.to
        };
        let mut sum = sum;
        scratch::numbers(PLACES * (v_step + m_step), |memory| {
            let (v, m) = memory.split_at_mut(PLACES * v_step);
            for first in (0..across).step_by(together) {
                let tiles = first..(first + together).min(across);
                for (i, tile) in tiles.clone().enumerate() {
                    let at = [y, tile * TILE];
                    let from = square(at, self.padding, REACH, self.from, samples);
                    let to = Places::all(REACH, i * read, REACH * v_step, v_step);
                    let (v, src) = ((&mut *v, &to), (src, &from));
                    (self.table).winograd(Transform::Input, v, src, read, Write::Set);
                }
                let rows = tiles.len() * samples;
                let v = &*v;
                // What the next strip reads first.
                let coming = |row| {
                    let read = y + REACH - self.padding[0] + row;
                    let input = input.map_or(&[][..], |(block, _)| {
                        self.pixels(block, self.to, y + TILE + row, &tiles, samples)
                    });
                    [self.pixels(src, self.from, read, &tiles, samples), input]
                };
                if let Some((_, input)) = input {
                    // The products of the convolution take its place.
                    let g = &mut *m;
                    for (i, tile) in tiles.clone().enumerate() {
                        let from = square([0, tile * TILE], [0; 2], TILE, image, samples);
                        let to = Places::all(REACH, i * written, REACH * m_step, m_step);
                        let (g, x) = ((&mut *g, &to), (input, &from));
                        let gradient = Transform::OutputGradient;
                        (self.table).winograd(gradient, g, x, written, Write::Set);
                    }
                    let (g, v) = ((&*g, m_step), (v, v_step));
                    self.gradients(du, g, v, rows, sum, &coming);
                    sum = Write::Add;
                }
                let widths = self.table.widths(rows, self.cols);
                let out = &*dst;
                let groups = m.par_chunks_mut(PLACES_TOGETHER * m_step).enumerate();
                groups.with_min_len(self.min_groups()).for_each(|(row, m)| {
                    let strips = [out, beside[0], beside[1]];
                    let [out, x, y] =
                        strips.map(|strip| self.pixels(strip, image, row, &tiles, samples));
                    let src = match input {
                        Some(_) => &[],
                        None => coming(row)[0],
                    };
                    let first = row * PLACES_TOGETHER;
                    let v = (&v[first * v_step..], v_step);
                    self.products((m, m_step), rows, v, first, &widths, [out, x, y, src]);
                });
                for (i, tile) in tiles.enumerate() {
                    let from = Places::all(REACH, i * written, REACH * m_step, m_step);
                    let to = square([0, tile * TILE], [0; 2], TILE, image, samples);
                    let (dst, m) = ((&mut *dst, &to), (&*m, &from));
                    (self.table).winograd(Transform::Output, dst, m, written, self.write);
                }
            }
        });
        if let Some(after) = self.after {
            let rows = y..(y + TILE).min(self.to.h);
            (after.rows_done)(start / self.tiles.layout.block, rows, dst);
        }
    }

    /// Tiles beside one another that are multiplied in one go.
    pub fn together(&self, samples: usize) -> usize {
        let most = if self.input.is_some() && self.table.lanes() > SMALL_LANES {
            let (read, written) = (self.from.c, self.to.c);
            let left = (TOGETHER / PLACES).saturating_sub(2 * read * written);
            (left / (samples * (read + written))).max(1)
        } else {
            ROWS.div_ceil(samples)
        };
        let across = self.tiles.across;
        across.div_ceil(across.div_ceil(most))
    }

    /// Groups of places that one thread multiplies at least: where there are hardly any strips for the threads, places are.
    fn min_groups(&self) -> usize {
        let few = self.parallel && self.to.h.div_ceil(TILE) < ENOUGH_STRIPS;
        if few { 1 } else { usize::MAX }
    }

    /// `du[place] = ` (or `+=`) `g[place]ᵀ·v[place]`, over so many rows. The `i`th group of narrow ones asks for `coming(i)`.
    fn gradients<'a>(
        &self,
        du: &mut [f32],
        (g, g_step): (&[f32], usize),
        (v, v_step): (&[f32], usize),
        rows: usize,
        sum: Write,
        coming: &(impl Fn(usize) -> [&'a [f32]; 2] + Sync),
    ) {
        let (inputs, outputs) = (self.to.c, self.from.c);
        let (matrix, step) = (inputs * outputs, apart(inputs * outputs));
        let widths = self.table.widths(inputs, outputs);
        let narrow = outputs <= NARROW * self.table.lanes();
        let together = if narrow { PLACES_TOGETHER } else { 1 };
        let groups = du.par_chunks_mut(together * step).enumerate();
        groups.with_min_len(self.min_groups()).for_each(|(i, du)| {
            let ahead = if narrow { coming(i) } else { [&[][..]; 2] };
            for (first, du, ahead) in asking(du, step, &ahead) {
                let place = i * together + first;
                let terms = Terms {
                    a: &g[place * g_step..],
                    b: &v[place * v_step..],
                    taps: &[Tap { a: 0, b: 0 }],
                    k: rows,
                    a_row: 1,
                    a_step: inputs,
                    b_row: outputs,
                };
                let du = TileMut::new(du, du.len() / step, matrix, step);
                let next = [g_step, v_step];
                (self.table).products(du, outputs, &terms, next, sum, &widths, ahead);
            }
        });
    }

    /// What a group of products asks for in a row of pixels of an image: those of `tiles`. Nothing where there is no such
    /// row, or no hurry.
    fn pixels<'a>(
        &self,
        image: &'a [f32],
        images: Images,
        row: usize,
        tiles: &Range<usize>,
        samples: usize,
    ) -> &'a [f32] {
        let pixel = samples * images.c;
        let width = images.w * pixel;
        if self.from.c >= MANY_CHANNELS || (row + 1) * width > image.len() {
            return &[];
        }
        let row = &image[row * width..(row + 1) * width];
        &row[(tiles.start * TILE * pixel).min(width)..(tiles.end * TILE * pixel).min(width)]
    }

    /// `m = v·u` of so many rows at some places from `first` on. Where there is one narrow panel, all places go together.
    /// Otherwise each goes by itself, so that its rows of `v` stay in the nearest cache from panel to panel.
    fn products(
        &self,
        (m, m_step): (&mut [f32], usize),
        rows: usize,
        (v, v_step): (&[f32], usize),
        first: usize,
        widths: &Widths,
        ahead: [&[f32]; 4],
    ) {
        let (depth, outputs) = (self.from.c, self.to.c);
        let u_step = apart(depth * self.cols);
        let terms = |panel: usize, place: usize| Terms {
            a: &v[place * v_step..],
            b: &self.u[(panel * PLACES + first + place) * u_step..],
            taps: &[Tap { a: 0, b: 0 }],
            k: depth,
            a_row: depth,
            a_step: 1,
            b_row: self.cols,
        };
        if self.cols == outputs && outputs <= NARROW * self.table.lanes() {
            for (place, m, ahead) in asking(m, m_step, &ahead) {
                let (terms, next) = (terms(0, place), [v_step, u_step]);
                let m = TileMut::new(m, m.len() / m_step, rows * outputs, m_step);
                (self.table).products(m, outputs, &terms, next, Write::Set, widths, ahead);
            }
            return;
        }
        for (place, m) in m.chunks_exact_mut(m_step).enumerate() {
            for (panel, column) in (0..outputs).step_by(self.cols).enumerate() {
                let width = self.cols.min(outputs - column);
                // Made from `m` itself: to split it off from a tile that has only just been written to memory takes
                // longer.
                let m = TileMut::new(&mut m[column..], rows, width, outputs);
                let terms = terms(panel, place);
                self.table.product_cut(m, &terms, Write::Set, widths, &[]);
            }
        }
    }
}

/// The places of `c`, `step` apart, in one part or in as many as there is to ask for: which is the first of each part, its
/// numbers, and what it asks for.
fn asking<'a, 'c>(
    c: &'c mut [f32],
    step: usize,
    ahead: &[&'a [f32]],
) -> impl Iterator<Item = (usize, &'c mut [f32], &'a [f32])> {
    let wanted = ahead.iter().copied().filter(|ahead| !ahead.is_empty());
    let part = (c.len() / step).div_ceil(wanted.clone().count().max(1));
    let parts = c.chunks_mut(part * step).enumerate();
    let ahead = wanted.chain(std::iter::repeat(&[][..]));
    parts
        .zip(ahead)
        .map(move |((i, c), ahead)| (i * part, c, ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_part_whatever_there_is_to_ask_for() {
        let (some, none) = (&[1.0_f32][..], &[][..]);
        for (ahead, parts) in [
            (&[none; 4][..], 1),
            (&[none, some, none, some], 2),
            (&[some, some, none], 2),
            (&[some; 3], 3),
            // Nine in parts of three.
            (&[some; 4], 3),
        ] {
            let mut places = [0.0; 9 * 16];
            let mut firsts = Vec::new();
            for (first, part, asked) in asking(&mut places, 16, ahead) {
                assert_eq!(asked.is_empty(), parts == 1, "{ahead:?}");
                assert!(part.len().is_multiple_of(16));
                firsts.push((first * 16, part.len()));
                part.iter_mut().for_each(|x| *x += 1.0);
            }
            assert_eq!(firsts.len(), parts, "{ahead:?}");
            let mut end = 0;
            for (first, len) in firsts {
                assert_eq!(first, end);
                end += len;
            }
            assert!(places.iter().all(|&x| x == 1.0), "{ahead:?}");
        }
    }
}
