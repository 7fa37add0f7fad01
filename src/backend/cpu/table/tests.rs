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
        // Terms that are neighbours, and rows that are.
        let steps = [(11, 1), (1, 50)];
        for ((m, n), (a_row, a_step)) in sizes.flat_map(|size| steps.map(|step| (size, step))) {
            let (k, b_row, c_row) = (7, n + 1, n + 3);
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
                    "{isa} {m} x {n}, steps {a_row} {a_step}, {write:?}"
                );
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
