//! The weight of a convolution in the order in which the products read it.

use super::parallel;
use crate::backend::cpu::table::Table;
use crate::backend::cpu::tiles::TileMut;
use crate::shape::Conv;

/// Numbers of a weight up to which it is used as it lies: a quarter of a megabyte stays in cache.
pub(super) const SMALL_WEIGHT: usize = 1 << 16;

/// Vectors in a row of a panel of a large weight.
const PANEL_VECTORS: usize = 2;

/// Places of a panel that one thread packs at a time.
const PACKED_PLACES: usize = 3;

/// How the products find the weight: place by place a matrix of `depth x width`, cut into panels of
/// `cols` columns, each of which holds all places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    /// Places of the kernel.
    pub places: usize,
    /// Rows of each matrix: channels of the image that is read.
    pub depth: usize,
    /// Columns of each matrix: channels of the image that is computed.
    pub width: usize,
    /// Columns in a panel, which are also the distance between its rows.
    pub cols: usize,
    /// The weight is turned over: its rows are the output channels.
    transposed: bool,
}

impl Panels {
    /// The panels for a pass forward, or for the gradient of the input if `transposed`.
    pub fn new(table: &Table, conv: Conv, transposed: bool) -> Self {
        let (depth, width) = if transposed {
            (conv.out_c, conv.input.c)
        } else {
            (conv.input.c, conv.out_c)
        };
        let cols = if conv.weight_len() <= SMALL_WEIGHT {
            width
        } else {
            width.min(PANEL_VECTORS * table.lanes())
        };
        Panels {
            places: conv.kernel[0] * conv.kernel[1],
            depth,
            width,
            cols,
            transposed,
        }
    }

    /// The panels of a weight of words, whose matrices have `depth` rows.
    pub fn of_words(table: &Table, conv: Conv, transposed: bool, depth: usize) -> Self {
        let numbers = Panels::new(table, conv, transposed);
        let places = numbers.places;
        let small = places * depth * numbers.width <= SMALL_WEIGHT;
        let most = PANEL_VECTORS * table.lanes();
        Panels {
            depth,
            cols: if small {
                numbers.width
            } else {
                numbers.width.min(most)
            },
            ..numbers
        }
    }

    /// The panel and the place of the matrix that starts at `at`.
    pub fn find(&self, at: usize) -> (usize, usize) {
        let matrix = at / (self.depth * self.cols);
        (matrix / self.places, matrix % self.places)
    }

    /// Whether the weight is used as it lies.
    pub fn as_stored(&self) -> bool {
        !self.transposed && self.cols == self.width
    }

    /// Where the matrix of a place starts in a panel.
    pub fn at(&self, panel: usize, place: usize) -> usize {
        (panel * self.places + place) * self.depth * self.cols
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        self.width.div_ceil(self.cols.max(1))
    }

    /// Numbers in all panels.
    pub fn len(&self) -> usize {
        self.at(self.count(), 0)
    }

    /// Copies or transposes the weight into panels.
    pub fn pack(&self, table: &Table, out: &mut [f32], w: &[f32], conv: Conv) {
        if out.is_empty() {
            return;
        }
        let matrix = self.depth * self.cols;
        let parallel = parallel(conv);
        let out = TileMut::new(out, out.len() / matrix, matrix, matrix);
        out.for_each_cell(PACKED_PLACES, matrix, parallel, &|first, _, mut out| {
            for i in 0..out.rows() {
                let (panel, place) = ((first + i) / self.places, (first + i) % self.places);
                let start = panel * self.cols;
                let cols = self.cols.min(self.width - start);
                let w = &w[place * self.depth * self.width..][..self.depth * self.width];
                let out = (out.row(i), self.cols);
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
