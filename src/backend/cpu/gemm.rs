//! Matrix products.

use crate::backend::{Gemm, Write};

/// `C = op(A)·op(B)` or `C += op(A)·op(B)`
pub(crate) fn gemm(c: &mut [f32], a: &[f32], b: &[f32], dims: Gemm, write: Write) {
    let Gemm { m, n, k, .. } = dims;
    if write == Write::Set {
        c.fill(0.0);
    }
    for i in 0..m {
        for l in 0..k {
            let a = a[if dims.a_transposed {
                l * m + i
            } else {
                i * k + l
            }];
            for j in 0..n {
                c[i * n + j] += a * b[if dims.b_transposed {
                    j * k + l
                } else {
                    l * n + j
                }];
            }
        }
    }
}
