//! Winograd's transforms behind their checks.
#![allow(unsafe_code)]

use super::Table;
use crate::backend::Write;
use crate::backend::cpu::isa::winograd::{Job, Places, Transform};
use crate::backend::cpu::tiles::TileMut;

impl Table {
    /// Does a Winograd transform for the `len` numbers of each place; `write` says how the
    /// destination is written.
    ///
    /// # Panics
    /// If one of the slices is too short.
    #[track_caller]
    pub fn winograd(
        &self,
        transform: Transform,
        (dst, to): (&mut [f32], &Places),
        (src, from): (&[f32], &Places),
        len: usize,
        write: Write,
    ) {
        let (side_from, side_to) = transform.sides();
        let fits = |places: &Places, side: usize, data: &[f32]| {
            places.rows.end.max(places.cols.end) <= side
                && places.end(len).is_some_and(|end| end <= data.len())
        };
        assert!(
            fits(from, side_from, src) && fits(to, side_to, dst),
            "{transform:?} of {len} numbers from {from:?} of {} to {to:?} of {}",
            src.len(),
            dst.len()
        );
        let job = Job {
            src: src.as_ptr(),
            from,
            dst: dst.as_mut_ptr(),
            to,
            len,
            lines: 1,
            from_line: 0,
            to_line: 0,
            add: write == Write::Add,
        };
        // SAFETY: this CPU has the instructions of its table, and every place that exists lies
        // inside its slice (asserted), of which the one written is exclusive.
        unsafe { (self.winograd)(transform, &job) }
    }

    /// [`winograd`](Self::winograd) of as many numbers as a tile has columns: the places of the destination,
    /// `to`, count its rows. The source has those numbers in so many lines, so far apart.
    ///
    /// # Panics
    /// If the source is too short, the tile has not the rows, or its columns are not as many lines.
    #[track_caller]
    pub fn winograd_rows(
        &self,
        transform: Transform,
        (dst, to): (TileMut<'_>, &Places),
        (src, from): (&[f32], &Places),
        (lines, from_line): (usize, usize),
        write: Write,
    ) {
        assert!(
            lines > 0 && dst.cols().is_multiple_of(lines),
            "{} columns in {lines} lines",
            dst.cols()
        );
        let lines = [lines, from_line, dst.cols() / lines];
        self.transform(transform, (dst, to, 1), (src, from), lines, write);
    }

    /// [`winograd`](Self::winograd) of some lines that follow on one another in each place of the source: in a tile
    /// each of them is a row, that of the first the place of the destination.
    ///
    /// # Panics
    /// If the source is too short or the tile has not the rows.
    #[track_caller]
    pub fn winograd_lines(
        &self,
        transform: Transform,
        (dst, to): (TileMut<'_>, &Places),
        (src, from): (&[f32], &Places),
        lines: usize,
        write: Write,
    ) {
        let lines_apart = [lines, dst.cols(), dst.stride()];
        self.transform(transform, (dst, to, lines), (src, from), lines_apart, write);
    }

    /// A transform into a tile, of whose rows each place takes so many: of lines of which it is given how many there are,
    /// and how far apart they lie in the source and in the destination.
    #[track_caller]
    fn transform(
        &self,
        transform: Transform,
        (mut dst, to, of_place): (TileMut<'_>, &Places, usize),
        (src, from): (&[f32], &Places),
        [lines, from_line, to_line]: [usize; 3],
        write: Write,
    ) {
        let (side_from, side_to) = transform.sides();
        let (rows, row) = (dst.rows(), dst.stride());
        let len = dst.cols() * of_place / lines.max(1);
        let reach = lines.saturating_sub(1).checked_mul(from_line);
        let reach = reach.and_then(|reach| reach.checked_add(len));
        assert!(
            to.rows.end.max(to.cols.end) <= side_to
                && to.end(of_place).is_some_and(|end| end <= rows)
                && from.rows.end.max(from.cols.end) <= side_from
                && reach
                    .and_then(|reach| from.end(reach))
                    .is_some_and(|end| end <= src.len()),
            "{transform:?} of {lines} lines of {len} numbers from {from:?} of {} to {to:?} of {rows} rows",
            src.len()
        );
        if len == 0 || lines == 0 {
            return;
        }
        let job = Job {
            src: src.as_ptr(),
            from,
            dst: dst.as_mut_ptr(),
            to: &Places {
                first: to.first * row,
                row: to.row * row,
                col: to.col * row,
                ..to.clone()
            },
            len,
            lines,
            from_line,
            to_line,
            add: write == Write::Add,
        };
        // SAFETY: this CPU has the instructions of its table, every line of a place of the source that exists lies
        // inside its slice (asserted), and those of the destination are rows of the tile (asserted) or parts of
        // one, which is exclusively ours.
        unsafe { (self.winograd)(transform, &job) }
    }
}
