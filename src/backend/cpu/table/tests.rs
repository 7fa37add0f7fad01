//! The kernels behind their checks.

use super::*;
use crate::backend::cpu::check;
use crate::backend::cpu::dispatch::select;
use crate::backend::cpu::isa::Tap;

#[test]
fn copies_and_transpositions_of_every_size_stay_inside() {
    for table in check::tables() {
        for (rows, cols) in [
            (0, 3),
            (1, 1),
            (3, 17),
            (16, 16),
            (17, 33),
            (40, 15),
            (5, 2),
            (33, 6),
        ] {
            let (src_row, dst_row) = (cols + 2, rows.max(cols) + 3);
            let src = check::noise(1, rows * src_row);
            let mut copied = vec![9.0; rows * dst_row];
            let mut transposed = vec![9.0; cols * dst_row];
            table.copy((&mut copied, dst_row), (&src, src_row), (rows, cols));
            table.transpose((&mut transposed, dst_row), (&src, src_row), (rows, cols));
            for i in 0..rows {
                for j in 0..dst_row {
                    let want = if j < cols { src[i * src_row + j] } else { 9.0 };
                    assert_eq!(copied[i * dst_row + j], want, "{} {i} {j}", table.isa());
                }
            }
            for j in 0..cols {
                for i in 0..dst_row {
                    let want = if i < rows { src[i * src_row + j] } else { 9.0 };
                    assert_eq!(transposed[j * dst_row + i], want, "{} {i} {j}", table.isa());
                }
            }
        }
    }
}

#[test]
fn rows_that_share_a_vector_have_the_bits_of_rows_that_do_not() {
    for table in check::tables() {
        let plain = Table {
            shared: &[],
            ..*table
        };
        let sizes = [4, 20, 24, 36, 40, 52, 56, 72, 84]
            .into_iter()
            .flat_map(|n| (1..=24).chain([45]).map(move |m| (m, n)));
        // Terms that are neighbours, but not in fours or pairs; rows that are; neither.
        let steps = [(7, 11, 1), (7, 1, 50), (8, 1, 50), (8, 11, 3)];
        for ((m, n), (k, a_row, a_step)) in sizes.flat_map(|size| steps.map(|step| (size, step))) {
            let (b_row, c_row) = (n + 1, n + 3);
            let (a, b) = (check::noise(1, m * 11 + 400), check::noise(2, 20 * b_row));
            let taps = [
                Tap { a: 0, b: 3 },
                Tap {
                    a: 23,
                    b: 11 * b_row,
                },
            ];
            let terms = Terms {
                a: &a,
                b: &b,
                taps: &taps,
                k,
                a_row,
                a_step,
                b_row,
            };
            for write in [Write::Set, Write::Add] {
                let before = check::noise(3, m * c_row);
                let (mut c, mut want) = (before.clone(), before);
                let (widths, ahead) = (table.widths(m, n), &a);
                let destination = TileMut::new(&mut c, m, n, c_row);
                table.product_cut(destination, &terms, write, &widths, ahead);
                plain.product(TileMut::new(&mut want, m, n, c_row), &terms, write);
                let isa = table.isa();
                assert_eq!(
                    c, want,
                    "{isa} {m} x {n} x {k}, steps {a_row} {a_step}, {write:?}"
                );
            }
        }
    }
}

/// Operands of `rows` rows whose terms are neighbours, with NaN before, between and behind what belongs to them.
struct Neighbours {
    a: Vec<f32>,
    b: Vec<f32>,
    taps: Vec<Tap>,
    k: usize,
    rows: usize,
    n: usize,
}

/// NaN before and behind each operand.
const AROUND: usize = 40;

impl Neighbours {
    fn new(rows: usize, n: usize, k: usize, taps: usize) -> Self {
        let (a_tap, b_tap) = (k + 5, (k + 1) * (n + 2));
        let mut operands = Neighbours {
            a: vec![f32::NAN; rows * taps * a_tap + 2 * AROUND],
            b: vec![f32::NAN; taps * b_tap + 2 * AROUND],
            taps: Vec::new(),
            k,
            rows,
            n,
        };
        // Not in the order in which they lie.
        let place = |i: usize| if i < 2 && taps > 1 { 1 - i } else { i };
        operands.taps = (0..taps)
            .map(|i| Tap {
                a: place(i) * a_tap,
                b: i * b_tap,
            })
            .collect();
        let (a_row, b_row) = (operands.a_row(), operands.b_row());
        for (t, tap) in operands.taps.clone().into_iter().enumerate() {
            for i in 0..rows {
                let at = AROUND + tap.a + i * a_row;
                let seed = 100 + i * taps + t;
                operands.a[at..][..k].copy_from_slice(&check::noise(seed as u64, k));
            }
            for p in 0..k {
                let at = AROUND + tap.b + p * b_row;
                let seed = 10_000 + p * taps + t;
                operands.b[at..][..n].copy_from_slice(&check::noise(seed as u64, n));
            }
        }
        operands
    }

    fn a_row(&self) -> usize {
        self.taps.len().max(1) * (self.k + 5)
    }

    fn b_row(&self) -> usize {
        self.n + 2
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            a: &self.a[AROUND..],
            b: &self.b[AROUND..],
            taps: &self.taps,
            k: self.k,
            a_row: self.a_row(),
            a_step: 1,
            b_row: self.b_row(),
        }
    }

    /// The sum of number `j` of row `i`, and that of the sizes of its terms.
    fn sum(&self, i: usize, j: usize) -> (f64, f64) {
        let (mut sum, mut size) = (0.0, 0.0);
        for tap in &self.taps {
            for p in 0..self.k {
                let a = f64::from(self.a[AROUND + tap.a + i * self.a_row() + p]);
                let b = f64::from(self.b[AROUND + tap.b + p * self.b_row() + j]);
                sum += a * b;
                size += (a * b).abs();
            }
        }
        (sum, size)
    }
}

/// Where the rows of a destination start, and what lies in it before: NaN where nothing may be read.
fn destination(rows: usize, n: usize, finish: Finish) -> (usize, Vec<f32>) {
    let (row, mut before) = (n + 3, check::noise(3, rows * (n + 3)));
    for before in before.chunks_exact_mut(row) {
        if finish == Finish::Set {
            before[..n].fill(f32::NAN);
        }
    }
    (row, before)
}

const FINISHES: [Finish; 3] = [Finish::Set, Finish::Add, Finish::Descend(0.3)];

#[test]
fn terms_that_are_neighbours_are_all_added_whatever_the_rows() {
    const MOST: usize = 45;
    let depths = [(2, 1), (4, 1), (6, 2), (20, 1), (12, 3), (36, 1), (0, 1)];
    for (n, (k, taps)) in [4, 8, 20, 24, 36, 40, 52, 56, 100]
        .into_iter()
        .flat_map(|n| depths.map(|depth| (n, depth)))
    {
        let operands = Neighbours::new(MOST, n, k, taps);
        let sums: Vec<_> = (0..MOST * n)
            .map(|at| operands.sum(at / n, at % n))
            .collect();
        for (table, finish) in check::tables()
            .into_iter()
            .flat_map(|table| FINISHES.map(|finish| (table, finish)))
        {
            let (c_row, before) = destination(MOST, n, finish);
            let mut all = before.clone();
            let whole = TileMut::new(&mut all, MOST, n, c_row);
            table.product(whole, &operands.terms(), finish);
            let what = format!("{} {n} x {taps} x {k}, {finish:?}", table.isa());
            for (at, &(sum, size)) in sums.iter().enumerate() {
                let (got, before) = (
                    all[at / n * c_row + at % n],
                    f64::from(before[at / n * c_row + at % n]),
                );
                let (want, size) = match finish {
                    Finish::Set => (sum, size),
                    Finish::Add => (before + sum, before.abs() + size),
                    Finish::Descend(lr) => {
                        let lr = f64::from(lr);
                        (before - lr * sum, before.abs() + lr * size)
                    }
                };
                let off = (f64::from(got) - want).abs();
                // A NaN is never close enough.
                assert!(off <= 1e-6 * size, "{what}: {at} is {got}, not {want}");
            }
            for m in 1..=MOST {
                let mut some = before.clone();
                let rows = TileMut::new(&mut some, m, n, c_row);
                table.product(rows, &operands.terms(), finish);
                for (at, &got) in some.iter().enumerate() {
                    let inside = at / c_row < m && at % c_row < n;
                    let want = if inside { all[at] } else { before[at] };
                    assert_eq!(
                        got.to_bits(),
                        want.to_bits(),
                        "{what}: {at} of {m} rows is {got}, not {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn columns_may_be_cut_at_whole_vectors() {
    for (n, k) in [36, 40, 52, 56, 68, 72, 100, 104].map(|n| (n, 12)) {
        let operands = Neighbours::new(9, n, k, 2);
        for table in check::tables() {
            let (c_row, before) = destination(operands.rows, n, Finish::Add);
            let mut whole = before.clone();
            let c = TileMut::new(&mut whole, operands.rows, n, c_row);
            table.product(c, &operands.terms(), Finish::Add);
            for first in (16..n).step_by(16) {
                let mut cut = before.clone();
                let c = TileMut::new(&mut cut, operands.rows, n, c_row);
                let (left, right) = c.split_cols(first);
                let left_terms = operands.terms();
                let right_terms = Terms {
                    b: &left_terms.b[first..],
                    ..left_terms
                };
                for (part, terms) in [(left, left_terms), (right, right_terms)] {
                    let widths = table.widths(part.rows(), part.cols());
                    // What is asked for changes nothing.
                    table.product_cut(part, &terms, Write::Add, &widths, &operands.a);
                }
                assert_eq!(cut, whole, "{} {n} cut at {first}", table.isa());
            }
        }
    }
}

#[test]
#[should_panic(expected = "reads past")]
fn a_product_must_stay_inside_its_operands() {
    let (mut c, a, b) = ([0.0; 6], [0.0; 4], [0.0; 6]);
    let terms = Terms {
        a: &a,
        b: &b,
        taps: &[Tap { a: 0, b: 0 }, Tap { a: 0, b: 1 }],
        k: 2,
        a_row: 2,
        a_step: 1,
        b_row: 3,
    };
    select().product(TileMut::new(&mut c, 2, 3, 3), &terms, Write::Set);
}

#[test]
fn products_in_one_go_have_the_bits_of_each_by_itself() {
    for table in check::tables() {
        for (m, n, k) in [
            (1, 4, 4),
            (20, 20, 20),
            (13, 40, 6),
            (7, 33, 5),
            (24, 100, 3),
        ] {
            let (count, apart) = (5, m * n + 3);
            let (a_next, b_next) = (m * k + 2, k * n + 1);
            let (a, b) = (
                check::noise(1, count * a_next),
                check::noise(2, count * b_next),
            );
            let terms = |i: usize| Terms {
                a: &a[i * a_next..],
                b: &b[i * b_next..],
                taps: &[Tap { a: 0, b: 0 }],
                k,
                a_row: k,
                a_step: 1,
                b_row: n,
            };
            for write in [Write::Set, Write::Add] {
                let before = check::noise(3, count * apart);
                let (mut c, mut want) = (before.clone(), before);
                let widths = table.widths(m, n);
                let all = TileMut::new(&mut c, count, m * n, apart);
                let next = [a_next, b_next];
                table.products(all, n, &terms(0), next, write, &widths, &a);
                for (i, want) in want.chunks_mut(apart).enumerate() {
                    table.product(TileMut::new(want, m, n, n), &terms(i), write);
                }
                assert_eq!(c, want, "{} {m} x {n}, {k} terms, {write:?}", table.isa());
            }
        }
    }
}

#[test]
fn products_into_rows_of_one_tile_have_the_bits_of_each_by_itself() {
    for table in check::tables() {
        // Rows of each, how far one is below the other, columns of the tile and of its matrix, terms.
        for (m, every, n, row, k) in [
            (20, 40, 20, 20, 80),
            (1, 1, 40, 50, 16),
            (13, 14, 33, 64, 32),
            (24, 30, 100, 100, 16),
        ] {
            let (count, rows) = (5, 4 * every + m);
            let [a_next, b_next] = [m * k + 2, k * n + 1];
            let [a, b] =
                [(1, a_next), (2, b_next)].map(|(seed, next)| check::noise(seed, count * next));
            let terms = |i: usize| Terms {
                a: &a[i * a_next..],
                b: &b[i * b_next..],
                taps: &[Tap { a: 0, b: 0 }],
                k,
                a_row: k,
                a_step: 1,
                b_row: n,
            };
            for write in [Write::Set, Write::Add] {
                let before = check::noise(3, rows * row);
                let (mut c, mut want) = (before.clone(), before);
                let tile = TileMut::new(&mut c, rows, n, row);
                let next = [a_next, b_next];
                table.products_every(tile, [count, m, every], &terms(0), next, write, &[]);
                for i in 0..count {
                    let want = &mut want[i * every * row..];
                    table.product(TileMut::new(want, m, n, row), &terms(i), write);
                }
                assert_eq!(c, want, "{} {m} x {n}, {k} terms, {write:?}", table.isa());
            }
        }
    }
}

#[test]
#[should_panic(expected = "3 destinations of 2 rows, every 3, in 7 rows")]
fn products_must_not_reach_past_their_tile() {
    let (mut c, a, b) = ([0.0; 14], [0.0; 12], [0.0; 4]);
    let terms = Terms {
        a: &a,
        b: &b,
        taps: &[Tap { a: 0, b: 0 }],
        k: 2,
        a_row: 2,
        a_step: 1,
        b_row: 2,
    };
    let tile = TileMut::new(&mut c, 7, 2, 2);
    select().products_every(tile, [3, 2, 3], &terms, [4, 0], Write::Set, &[]);
}

#[test]
#[should_panic(expected = "reads past")]
fn the_last_of_several_products_must_stay_inside_its_operands() {
    let (mut c, a, b) = ([0.0; 8], [0.0; 7], [0.0; 8]);
    let terms = Terms {
        a: &a,
        b: &b,
        taps: &[Tap { a: 0, b: 0 }],
        k: 2,
        a_row: 2,
        a_step: 1,
        b_row: 2,
    };
    let (table, all) = (select(), TileMut::new(&mut c, 2, 4, 4));
    let widths = table.widths(2, 2);
    table.products(all, 2, &terms, [4, 4], Write::Set, &widths, &[]);
}
