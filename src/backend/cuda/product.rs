//! Matrix products, convolutions as products, and sums over rows.

use super::driver::Buffer;
use super::kernels::Kernel;
use super::sequence::Arg;
use super::window::conv_geometry;
use super::{BLOCK, Cuda, args, int};
use crate::backend::{Gemm, Precision, View, ViewMut, Write};
use crate::shape::Conv;

/// Rows and columns of C that a block computes: `TILE` in `kernels/product.cuh`, `ROWS` and `COLS` in
/// `kernels/tensor.cuh`.
const TILE: [usize; 2] = [64, 64];
const TENSOR_TILE: [usize; 2] = [128, 64];

/// Fewest terms that are worth a block of their own.
const LEAST_TERMS: usize = 64;

/// Most numbers that the parts of a product divided by terms may have.
const MOST_PARTIAL: usize = 1 << 24;

/// Rows that one block of a column sum adds up before it is worth dividing them.
const ROWS: usize = 512;

/// The kernels of one product: in f32, TF32 and bfloat16.
type Kinds = [Kernel; 3];

impl Cuda {
    /// Into how many ranges the `k` terms of a product with `tiles` tiles and `size` numbers are divided:
    /// with too few tiles to fill the GPU, several blocks share one.
    fn splits(&self, tiles: usize, size: usize, k: usize) -> usize {
        let idle = 2 * self.driver.processors / tiles.max(1);
        let room = MOST_PARTIAL / size.max(1);
        idle.min(k / LEAST_TERMS).min(room).max(1)
    }

    /// Launches a kernel that is built on `product` of `kernels/product.cuh` or, if it may (`in_fours`:
    /// numbers lie in memory as that wants), on `tensor_product` of `kernels/tensor.cuh`. `rest` are
    /// its arguments after the scratch memory.
    fn product(
        &self,
        kinds: Kinds,
        in_fours: bool,
        c: ViewMut<'_, Buffer>,
        [m, n, k]: [usize; 3],
        rest: &[Arg<'_>],
    ) {
        let (kernel, tile) = match self.precision {
            Precision::Tf32 if in_fours => (kinds[1], TENSOR_TILE),
            Precision::Bf16 if in_fours => (kinds[2], TENSOR_TILE),
            _ => (kinds[0], TILE),
        };
        let tiles = [m.div_ceil(tile[0]), n.div_ceil(tile[1])];
        let splits = self.splits(tiles[0] * tiles[1], m * n, k);
        let partial = if splits > 1 { splits * m * n } else { 0 };
        self.with_scratch(partial, tiles[0] * tiles[1], |partial, counters| {
            let mut args = [Arg::Word(0); 8];
            args[..3].copy_from_slice(args![&c, partial, counters]);
            args[3..3 + rest.len()].copy_from_slice(rest);
            let (args, grid) = (&args[..3 + rest.len()], [tiles[0], tiles[1], splits]);
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
        use Kernel as K;
        let kinds = match (dims.a_transposed, dims.b_transposed) {
            (false, false) => [K::GemmNn, K::GemmNnTf32, K::GemmNnBf16],
            (true, false) => [K::GemmTn, K::GemmTnTf32, K::GemmTnBf16],
            (false, true) => [K::GemmNt, K::GemmNtTf32, K::GemmNtBf16],
            (true, true) => [K::GemmTt, K::GemmTtTf32, K::GemmTtBf16],
        };
        let along_a = if dims.a_transposed { m } else { k };
        let along_b = if dims.b_transposed { k } else { n };
        let in_fours = fours(a, along_a) && fours(b, along_b);
        let extent = [m, n, k].map(int);
        self.product(kinds, in_fours, c, [m, n, k], args![a, b, &extent, write]);
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
        let kinds = [
            Kernel::ConvForward,
            Kernel::ConvForwardTf32,
            Kernel::ConvForwardBf16,
        ];
        let in_fours = fours(x, conv.input.c) && fours(w, conv.out_c);
        self.product(kinds, in_fours, y, dims, args![x, w, &geometry]);
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
        let kinds = [
            Kernel::ConvBackwardData,
            Kernel::ConvBackwardDataTf32,
            Kernel::ConvBackwardDataBf16,
        ];
        let in_fours = fours(dy, conv.out_c) && fours(w, conv.out_c);
        self.product(kinds, in_fours, dx, dims, args);
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
        let kinds = [
            Kernel::ConvBackwardWeight,
            Kernel::ConvBackwardWeightTf32,
            Kernel::ConvBackwardWeightBf16,
        ];
        let in_fours = fours(x, conv.input.c) && fours(dy, conv.out_c);
        self.product(kinds, in_fours, dw, dims, args);
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

/// Whether rows of `along` numbers can be copied in fours: each starts at a multiple of 16 bytes, as
/// memory itself does.
fn fours(x: View<'_, Buffer>, along: usize) -> bool {
    along.is_multiple_of(4) && x.offset.is_multiple_of(4)
}

/// Positions of the kernel.
fn taps(conv: Conv) -> usize {
    conv.kernel[0] * conv.kernel[1]
}
