//! Primitives on whole images: changes of order, dropout.

use super::driver::Buffer;
use super::kernels::Kernel;
use super::sequence::Arg;
use super::{Cuda, args, int};
use crate::backend::{Backend, DropoutMask, View, ViewMut, Write};
use crate::shape::Images;

/// Most blocks along the second and third axis of a grid.
const MAX_GRID: usize = 65_535;

/// Rows and columns of the tile that a block transposes.
const TILE: usize = 32;

impl Cuda {
    /// The transpose of the `rows x cols` matrix that each sample is.
    pub(super) fn transpose(
        &self,
        y: ViewMut<'_, Buffer>,
        x: View<'_, Buffer>,
        samples: usize,
        rows: usize,
        cols: usize,
        write: Write,
    ) {
        if rows == 1 || cols == 1 {
            return self.scale_add(y, x, 1.0, write);
        }
        let grid = [
            cols.div_ceil(TILE),
            rows.div_ceil(TILE).min(MAX_GRID),
            samples.min(MAX_GRID),
        ];
        let args = args![&y, x, int(samples), int(rows), int(cols), write];
        self.driver
            .launch(Kernel::Transpose, grid, [TILE as u32, 8, 1], args);
    }

    pub(super) fn drop_elements(
        &self,
        y: ViewMut<'_, Buffer>,
        x: View<'_, Buffer>,
        images: Images,
        mask: DropoutMask,
        write: Write,
    ) {
        let (samples, size) = (images.n, images.sample());
        let DropoutMask {
            p,
            seed,
            step,
            layer,
        } = mask;
        let scale = (1.0 / (1.0 - f64::from(p))) as f32;
        let (n, size_arg) = (int(samples), size as i64);
        let mut scratch = self.scratch.borrow_mut();
        let words = [step as u32, (step >> 32) as u32].map(f32::from_bits);
        let cell = ViewMut {
            buf: &mut scratch.step,
            offset: 0,
            len: words.len(),
        };
        let address = Arg::from(&cell);
        self.driver.upload(cell, &words);
        let args = args![&y, x, n, size_arg, p, scale, seed, address, layer, write];
        // A thread decides about four elements.
        self.each(Kernel::Dropout, samples * size.div_ceil(4), args);
    }
}
