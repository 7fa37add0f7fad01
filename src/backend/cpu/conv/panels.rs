//! The weight of a convolution in the order in which the products read it.

use super::flops;
use crate::backend::cpu::dispatch::Table;
use crate::backend::cpu::gemm::PARALLEL_FLOPS;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::Conv;

/// Numbers of a weight up to which it is used as it lies: a quarter of a megabyte stays in cache.
pub(super) const SMALL_WEIGHT: usize = 1 << 16;

/// Rows of output from which a large weight is worth copying into panels.
const ROWS_TO_PACK: usize = 128;

/// Vectors in a row of a panel of a large weight.
const PANEL_VECTORS: usize = 2;

/// How the products find the weight: at place `t`, rows `k` of a matrix of which panel `p` holds
/// some columns, at `p·panel + t·place + k·row`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    /// Places of the kernel.
    pub places: usize,
    /// Rows of each matrix: channels of the image that is read.
    pub depth: usize,
    /// Columns of each matrix: channels of the image that is computed.
    pub width: usize,
    /// Columns in a panel.
    pub cols: usize,
    /// Distance between rows of a matrix.
    pub row: usize,
    /// Distance between the matrices of two places.
    pub place: usize,
    /// Distance between panels.
    pub panel: usize,
    /// The weight is turned over: its rows are the output channels.
    transposed: bool,
}

impl Panels {
    /// The panels for a pass forward, or for the gradient of the input if `transposed`.
    pub fn new(table: &Table, conv: Conv, transposed: bool) -> Self {
        let places = conv.kernel[0] * conv.kernel[1];
        let to = if transposed {
            conv.input
        } else {
            conv.output()
        };
        let (depth, width) = if transposed {
            (conv.out_c, conv.input.c)
        } else {
            (conv.input.c, conv.out_c)
        };
        let small = conv.weight_len() <= SMALL_WEIGHT;
        let cols = if small {
            width
        } else {
            width.min(PANEL_VECTORS * table.lanes())
        };
        if !transposed && (small || to.n * to.pixels() < ROWS_TO_PACK) {
            return Panels {
                places,
                depth,
                width,
                cols,
                row: width,
                place: depth * width,
                panel: cols,
                transposed,
            };
        }
        Panels {
            places,
            depth,
            width,
            cols,
            row: cols,
            place: depth * cols,
            panel: places * depth * cols,
            transposed,
        }
    }

    /// Whether the weight is used as it lies.
    pub fn as_stored(&self) -> bool {
        !self.transposed && self.row == self.width
    }

    /// Numbers in all panels.
    pub fn len(&self) -> usize {
        self.width.div_ceil(self.cols.max(1)) * self.panel
    }

    /// Copies or transposes the weight into panels.
    pub fn pack(&self, table: &Table, out: &mut [f32], w: &[f32], conv: Conv) {
        if out.is_empty() {
            return;
        }
        let matrices = out.len() / self.place;
        let parallel = flops(conv) >= PARALLEL_FLOPS;
        let out = TileMut::new(out, matrices, self.place, self.place);
        out.for_each_cell(self.places, self.place, parallel, &|first, _, mut out| {
            for i in 0..out.rows() {
                let (panel, place) = ((first + i) / self.places, (first + i) % self.places);
                let start = panel * self.cols;
                let cols = self.cols.min(self.width - start);
                let w = &w[place * self.depth * self.width..][..self.depth * self.width];
                let out = (out.row(i), self.row);
                if self.transposed {
                    let w = (&w[start * self.depth..], self.depth);
                    table.transpose(out, w, (cols, self.depth));
                } else {
                    table.copy(out, (&w[start..], self.width), (self.depth, cols));
                }
            }
        });
    }
}
