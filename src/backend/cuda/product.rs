//! Matrix products, convolutions as products, and sums over rows.

use super::driver::Buffer;
use super::kernels::Kernel;
use super::sequence::Arg;
use super::window::conv_geometry;
use super::{BLOCK, Cuda, args, int};
use crate::backend::{Gemm, View, ViewMut, Write};
use crate::shape::Conv;

/// Rows and columns of C that a block computes: `TILE` in `kernels/product.cuh`.
const TILE: usize = 64;

/// Fewest terms that are worth a block of their own.
const LEAST_TERMS: usize = 64;

/// Most numbers that the parts of a product divided by terms may have.
const MOST_PARTIAL: usize = 1 << 24;

/// Rows that one block of a column sum adds up before it is worth dividing them.
const ROWS: usize = 512;

impl Cuda {
    /// Into how many ranges the `k` terms of an `m x n` product are divided: with too few tiles to fill
    /// the GPU, several blocks share a tile.
    fn splits(&self, m: usize, n: usize, k: usize) -> usize {
        let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
        let idle = 2 * self.driver.processors / tiles.max(1);
        let room = MOST_PARTIAL / (m * n).max(1);
        idle.min(k / LEAST_TERMS).min(room).max(1)
    }

    /// Launches a kernel that is built on `product` of `kernels/product.cuh`. `rest` are its arguments
    /// after the scratch memory.
    fn product(
        &self,
        kernel: Kernel,
        c: ViewMut<'_, Buffer>,
        [m, n, k]: [usize; 3],
        rest: &[Arg<'_>],
    ) {
        let splits = self.splits(m, n, k);
        let grid = [m.div_ceil(TILE), n.div_ceil(TILE), splits];
        let partial = if splits > 1 { splits * m * n } else { 0 };
        self.with_scratch(partial, grid[0] * grid[1], |partial, counters| {
            let mut args = [Arg::Word(0); 8];
            args[..3].copy_from_slice(args![&c, partial, counters]);
            args[3..3 + rest.len()].copy_from_slice(rest);
            let args = &args[..3 + rest.len()];
            self.driver.launch(kernel, grid, [BLOCK as u32, 1, 1], args);
        });
    }

    pub(super) fn matrix_product(
        &self,
        c: ViewMut<'_, Buffer>,
        a: View<'_, Buffer>,
        b: View<'_, Buffer>,
        dims: Gemm,
        write: Write,
    ) {
        let Gemm { m, n, k, .. } = dims;
        let kernel = match (dims.a_transposed, dims.b_transposed) {
            (false, false) => Kernel::GemmNn,
            (true, false) => Kernel::GemmTn,
            (false, true) => Kernel::GemmNt,
            (true, true) => Kernel::GemmTt,
        };
        let extent = [m, n, k].map(int);
        self.product(kernel, c, [m, n, k], args![a, b, &extent, write]);
    }

    pub(super) fn conv_forward(
        &self,
        y: ViewMut<'_, Buffer>,
        x: View<'_, Buffer>,
        w: View<'_, Buffer>,
        conv: Conv,
    ) {
        let (geometry, output) = (conv_geometry(conv), conv.output());
        let dims = [
            output.n * output.pixels(),
            conv.out_c,
            taps(conv) * conv.input.c,
        ];
        self.product(Kernel::ConvForward, y, dims, args![x, w, &geometry]);
    }

    pub(super) fn conv_backward_data(
        &self,
        dx: ViewMut<'_, Buffer>,
        dy: View<'_, Buffer>,
        w: View<'_, Buffer>,
        conv: Conv,
        write: Write,
    ) {
        let (geometry, input) = (conv_geometry(conv), conv.input);
        let dims = [input.n * input.pixels(), input.c, taps(conv) * conv.out_c];
        let args = args![dy, w, &geometry, write];
        self.product(Kernel::ConvBackwardData, dx, dims, args);
    }

    pub(super) fn conv_backward_weight(
        &self,
        dw: ViewMut<'_, Buffer>,
        x: View<'_, Buffer>,
        dy: View<'_, Buffer>,
        conv: Conv,
        write: Write,
    ) {
        let (geometry, output) = (conv_geometry(conv), conv.output());
        let dims = [
            taps(conv) * conv.input.c,
            conv.out_c,
            output.n * output.pixels(),
        ];
        let args = args![x, dy, &geometry, write];
        self.product(Kernel::ConvBackwardWeight, dw, dims, args);
    }

    pub(super) fn column_sums(
        &self,
        dst: ViewMut<'_, Buffer>,
        src: View<'_, Buffer>,
        cols: usize,
        write: Write,
    ) {
        let (rows, across) = (src.len / cols.max(1), cols.div_ceil(32));
        let idle = 4 * self.driver.processors / across.max(1);
        let splits = rows.div_ceil(ROWS).min(idle).max(1);
        let partial = if splits > 1 { splits * cols } else { 0 };
        self.with_scratch(partial, 0, |partial, _| {
            let (rows, n) = (rows as i64, cols as i64);
            let args = args![&dst, partial, src, rows, int(cols), write];
            self.driver
                .launch(Kernel::SumRows, [across, splits, 1], [32, 32, 1], args);
            if splits > 1 {
                let args = args![&dst, partial, int(splits), n, write];
                self.each(Kernel::SumSplits, cols, args);
            }
        });
    }
}

/// Positions of the kernel.
fn taps(conv: Conv) -> usize {
    conv.kernel[0] * conv.kernel[1]
}
