//! Shapes of tensors and the geometry of convolution and pooling. No layout: how the numbers of a
//! shape lie in memory is the business of [`backend`](crate::backend).
//!
//! Letters used throughout the engine: `n` samples, `c` channels, `h` rows and `w` columns of an
//! image, `m`, `k`, `n` the three dimensions of a matrix product.

use std::fmt;

/// The dimensions of a tensor of rank 0 to 4, in PyTorch's logical order: `[]`, `[C]`, `[N, C]`
/// or `[N, C, H, W]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [u32; 4],
    rank: u8,
}

impl Shape {
    /// The shape of one number.
    pub const SCALAR: Shape = Shape {
        dims: [1; 4],
        rank: 0,
    };

    /// A shape from its dimensions.
    ///
    /// # Panics
    /// If there are more than four dimensions or one does not fit 32 bits.
    #[track_caller]
    pub fn new(dims: &[usize]) -> Self {
        assert!(
            dims.len() <= 4,
            "a tensor has at most 4 dimensions, got {dims:?}"
        );
        let mut out = [1; 4];
        for (o, &d) in out.iter_mut().zip(dims) {
            *o = u32::try_from(d).unwrap_or_else(|_| panic!("dimension {d} of {dims:?} too large"));
        }
        Shape {
            dims: out,
            rank: dims.len() as u8,
        }
    }

    /// How many dimensions there are.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Dimension `axis`; 1 beyond the rank.
    pub fn dim(&self, axis: usize) -> usize {
        self.dims[axis] as usize
    }

    /// The dimensions, in a fixed array without an allocation: only the first
    /// [`rank`](Self::rank) count, the others are 1.
    pub fn dims(&self) -> [usize; 4] {
        self.dims.map(|d| d as usize)
    }

    /// How many numbers the tensor holds (1 for a scalar).
    pub fn len(&self) -> usize {
        self.dims.iter().map(|&d| d as usize).product()
    }

    /// Whether the tensor holds no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape as a batch of images: `[N, C]` is `[N, C, 1, 1]`.
    pub fn images(&self) -> Images {
        Images {
            n: self.dim(0),
            c: self.dim(1),
            h: self.dim(2),
            w: self.dim(3),
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.dims[..self.rank()]).finish()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The dimensions of a batch of images (or, with `h = w = 1`, of plain rows).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Images {
    /// Samples.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows of pixels.
    pub h: usize,
    /// Columns of pixels.
    pub w: usize,
}

impl Images {
    /// Numbers in the whole batch.
    pub fn len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// Whether the batch holds no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers in one sample.
    pub fn sample(&self) -> usize {
        self.c * self.h * self.w
    }

    /// Pixels of one sample.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// The tensor's shape: `[N, C, H, W]`.
    pub fn shape(&self) -> Shape {
        Shape::new(&[self.n, self.c, self.h, self.w])
    }
}

/// The geometry of a two-dimensional convolution (cross-correlation, as in PyTorch's `Conv2d` with
/// dilation 1 and one group).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv {
    /// The input.
    pub input: Images,
    /// Output channels.
    pub out_c: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Step between two windows, vertically and horizontally.
    pub stride: [usize; 2],
    /// Zeros added on each side, vertically and horizontally.
    pub padding: [usize; 2],
}

impl Conv {
    /// The output: `out = (in + 2·padding - kernel) / stride + 1`, rounded down.
    pub fn output(&self) -> Images {
        Images {
            n: self.input.n,
            c: self.out_c,
            h: windows(
                self.input.h,
                self.kernel[0],
                self.stride[0],
                self.padding[0],
            ),
            w: windows(
                self.input.w,
                self.kernel[1],
                self.stride[1],
                self.padding[1],
            ),
        }
    }

    /// Numbers in the weight, which is stored as `[kernel rows][kernel columns][in C][out C]`.
    pub fn weight_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.input.c * self.out_c
    }
}

/// How many windows of `kernel` fit along an axis; 0 when the padded axis is shorter than one.
fn windows(len: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (len + 2 * padding)
        .checked_sub(kernel)
        .map_or(0, |rest| rest / stride + 1)
}

/// How the windows of a pooling layer lie along one axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Windows of a fixed size and step; positions outside the image never win a maximum and count
    /// as zero in an average (PyTorch's `count_include_pad=True`).
    Fixed {
        /// Positions in a window.
        kernel: usize,
        /// Step between windows.
        stride: usize,
        /// Positions added on each side.
        padding: usize,
    },
    /// `out` windows that cover the axis: window `i` is `floor(i·len/out) .. ceil((i+1)·len/out)`
    /// (PyTorch's adaptive pooling).
    Adaptive {
        /// Windows along the axis.
        out: usize,
    },
}

impl Window {
    /// Windows along an axis of `len` positions.
    pub fn count(&self, len: usize) -> usize {
        match *self {
            Window::Fixed {
                kernel,
                stride,
                padding,
            } => windows(len, kernel, stride, padding),
            Window::Adaptive { out } => out,
        }
    }

    /// The positions inside the image that window `i` covers.
    pub fn range(&self, i: usize, len: usize) -> std::ops::Range<usize> {
        match *self {
            Window::Fixed {
                kernel,
                stride,
                padding,
            } => {
                let start = i * stride;
                start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(len)
            }
            Window::Adaptive { out } => i * len / out..((i + 1) * len).div_ceil(out),
        }
    }

    /// What an average over window `i` divides by along this axis.
    pub fn divisor(&self, i: usize, len: usize) -> usize {
        match *self {
            Window::Fixed { kernel, .. } => kernel,
            Window::Adaptive { .. } => self.range(i, len).len(),
        }
    }
}

/// The geometry of two-dimensional pooling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    /// The input.
    pub input: Images,
    /// Windows along the rows.
    pub rows: Window,
    /// Windows along the columns.
    pub cols: Window,
}

impl Pool {
    /// The output.
    pub fn output(&self) -> Images {
        Images {
            h: self.rows.count(self.input.h),
            w: self.cols.count(self.input.w),
            ..self.input
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_knows_its_length_and_prints_its_dimensions() {
        let shape = Shape::new(&[2, 3, 4]);
        assert_eq!((shape.rank(), shape.len(), shape.dim(3)), (3, 24, 1));
        assert_eq!(shape.to_string(), "[2, 3, 4]");
        assert_eq!((Shape::SCALAR.len(), Shape::new(&[0, 5]).len()), (1, 0));
    }

    #[test]
    fn conv_output_follows_pytorch() {
        let input = Images {
            n: 1,
            c: 3,
            h: 7,
            w: 6,
        };
        let conv = Conv {
            input,
            out_c: 5,
            kernel: [2, 3],
            stride: [2, 1],
            padding: [1, 0],
        };
        assert_eq!(
            conv.output(),
            Images {
                n: 1,
                c: 5,
                h: 4,
                w: 4
            }
        );
        assert_eq!(conv.weight_len(), 90);
        let too_big = Conv {
            kernel: [9, 9],
            padding: [0, 0],
            ..conv
        };
        assert_eq!((too_big.output().h, too_big.output().w), (0, 0));
    }

    #[test]
    fn adaptive_windows_cover_the_axis_as_pytorch_does() {
        let window = Window::Adaptive { out: 3 };
        let ranges: Vec<_> = (0..3).map(|i| window.range(i, 7)).collect();
        assert_eq!(ranges, [0..3, 2..5, 4..7]);
        let padded = Window::Fixed {
            kernel: 3,
            stride: 2,
            padding: 1,
        };
        assert_eq!(
            (padded.count(5), padded.range(0, 5), padded.range(2, 5)),
            (3, 0..2, 3..5)
        );
    }
}
