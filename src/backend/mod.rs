//! The primitives that a device must offer, and the devices that offer them.
//!
//! [`Backend`] is the contract; [`Reference`](reference::Reference) keeps it with plain loops (the
//! oracle of every test), [`Cpu`](cpu::Cpu) keeps it fast. A backend knows numbers and geometry; it
//! knows neither tapes nor derivatives as a whole, only the arithmetic of each step.
//!
//! # Layout
//! Activations are **channels last**. Every primitive but convolution, spatial pooling, dropout,
//! batch normalisation by group, and the conversions sees `rows x channels` and does not care how the
//! rows are ordered. A batch of images is stored in blocks of at most [`Backend::BATCH_BLOCK`]
//! samples, `[block][h][w][sample in block][c]`: [`SpatialLayout`] says exactly which. With a block
//! of one this is plain NHWC; on the CPU the batch sits inside the pixel, so that a convolution is a
//! matrix product over its valid taps. *Row order* is one sample after the other in PyTorch's CHW
//! order, which is how data enters and leaves.
//!
//! Weights are stored output-channel fastest: linear `[in][out]`, convolution
//! `[kernel row][kernel column][in][out]`.
//!
//! # Writing
//! Each primitive that produces a gradient takes a [`Write`]: the first writer of a gradient sets
//! it, later writers add. With [`Write::Set`] the destination must not be read: it may hold
//! anything, NaN included.

mod conv;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod dropout;
mod layout;
mod look_up;
mod norm;
mod outcome;
pub mod reference;
mod view;

#[cfg(test)]
mod conformance;

pub use conv::{ConvBackward, WeightGradient};
pub use layout::SpatialLayout;
pub use look_up::{Factor, LookUp};
pub use norm::{BatchNorm, BatchNormBackward, Convolved, Upstream};
pub use outcome::argmax;
pub use view::{View, ViewMut};

use crate::error::Result;
use crate::pixels::PixelRow;
use crate::shape::{Conv, Images, Pool};
use std::borrow::Cow;
use std::fmt::Debug;

/// A number type of a backend.
pub trait Elem:
    Copy + Default + Debug + PartialOrd + Send + Sync + std::iter::Sum + 'static
{
    /// The nearest value to `x`.
    fn from_f64(x: f64) -> Self;
    /// The value as f64, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value to `x` (exact for every type in use).
    fn from_f32(x: f32) -> Self {
        Self::from_f64(f64::from(x))
    }
    /// The value rounded to f32.
    fn to_f32(self) -> f32 {
        self.to_f64() as f32
    }
    /// The nearest values to `numbers`, which are borrowed where they are of this type.
    fn from_f32s(numbers: &[f32]) -> Cow<'_, [Self]> {
        numbers.iter().map(|&x| Self::from_f32(x)).collect()
    }
    /// The values rounded to f32; borrowed where they are f32.
    fn to_f32s(numbers: &[Self]) -> Cow<'_, [f32]> {
        numbers.iter().map(|&x| x.to_f32()).collect()
    }
}

impl Elem for f32 {
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32s(numbers: &[f32]) -> Cow<'_, [f32]> {
        numbers.into()
    }
    fn to_f32s(numbers: &[f32]) -> Cow<'_, [f32]> {
        numbers.into()
    }
}

impl Elem for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
}

/// How exactly a device multiplies in matrix products and convolutions. Sums, and everything else, are of
/// the backend's own type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// As the backend's numbers are.
    #[default]
    Full,
    /// Factors rounded to two bfloat16 numbers each, `high = round(x)` and `low = round(x - high)`, which
    /// keeps 16 bits of fraction: a relative error of a few millionths (CPUs only).
    High,
    /// Factors rounded to TF32, with 10 bits of fraction (what PyTorch lets convolutions use on a GPU
    /// unless told otherwise).
    Tf32,
    /// Factors rounded to bfloat16, with 7 bits of fraction.
    Bf16,
}

/// Whether a primitive overwrites its destination or adds to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Overwrite; what was there is not read.
    Set,
    /// Add in place.
    Add,
}

/// The matrix product `C = op(A)·op(B)` of row-major matrices: `C` is `m x n`, `op(A)` is `m x k`,
/// `op(B)` is `k x n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gemm {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// A is stored transposed, as `k x m`.
    pub a_transposed: bool,
    /// B is stored transposed, as `n x k`.
    pub b_transposed: bool,
}

/// The random numbers of one dropout: element `i` of sample `s` depends on these and nothing else,
/// so the mask is the same on every device and needs no storage. `i` counts pixel by pixel, channel
/// fastest.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DropoutMask {
    /// Probability of dropping an element, in `[0, 1)`.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Training step.
    pub step: u64,
    /// Which dropout of the step.
    pub layer: u32,
}

/// The geometry of the row-weighted loss, see [`Backend::row_loss`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowLoss {
    /// Rows of the logits.
    pub n: usize,
    /// Columns of the logits.
    pub c: usize,
    /// First row of the current mini-batch; the other rows are replay.
    pub current_start: usize,
    /// End of the rows of the current mini-batch.
    pub current_end: usize,
}

/// Columns of the row table of [`Backend::row_loss`]: label, CE weight, MSE weight, stored width.
pub const ROW_LOSS_COLUMNS: usize = 4;

/// The constants of one step of stochastic gradient descent, see [`Backend::sgd`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f32,
    /// Momentum factor.
    pub momentum: f32,
    /// Dampening of the momentum.
    pub dampening: f32,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
    /// The momentum buffer is empty: it is set to the gradient, not averaged with it.
    pub first: bool,
}

/// Read access to a buffer of `B`.
pub type Src<'a, B> = View<'a, <B as Backend>::Buf>;
/// Write access to a buffer of `B`.
pub type Dst<'a, B> = ViewMut<'a, <B as Backend>::Buf>;

/// What a device must do. Lengths are those of the geometry given; a backend may assume that the
/// views have them (the graph checks when it records).
pub trait Backend: Send {
    /// The numbers it computes with.
    type Elem: Elem;
    /// A piece of device memory.
    type Buf: Send + Sync;
    /// Most samples in one block of a spatial tensor.
    const BATCH_BLOCK: usize;
    /// Whether the device has a memory of its own. Then it keeps stored pixels there, and every number that is
    /// read is waited for.
    const OWN_MEMORY: bool = false;
    /// Whether [`gather_pixels`](Self::gather_pixels) is faster than making rows on the host and copying them.
    const MAKES_ROWS: bool = Self::OWN_MEMORY;
    /// Whether [`descend`](Self::descend) is ever faster than the product and the step. Then the gradient of a weight
    /// may be left as a product until somebody asks for it.
    const DESCENDS: bool = false;

    /// Memory for at least `len` numbers, zeroed.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the memory cannot be had.
    fn alloc(&self, len: usize) -> Result<Self::Buf>;
    /// How many numbers `buf` can hold.
    fn capacity(buf: &Self::Buf) -> usize;
    /// Copies host numbers to the device.
    fn upload(&self, dst: Dst<'_, Self>, src: &[Self::Elem]);
    /// Copies device numbers to the host.
    fn download(&self, src: Src<'_, Self>, dst: &mut [Self::Elem]);
    /// The numbers themselves where device memory is host memory.
    fn host<'a>(&self, src: Src<'a, Self>) -> Option<&'a [Self::Elem]>;
    /// Writes rows of a mini-batch made from stored bytes to `y`, one after the other; they divide it.
    /// What the rows are is said at [`PixelRow`]; a device for which [`OWN_MEMORY`](Self::OWN_MEMORY) holds copies the bytes once and makes the
    /// rows itself.
    fn gather_pixels(&self, y: Dst<'_, Self>, rows: &[PixelRow]) {
        let values = PixelRow::write_all(rows, y.len);
        self.upload(y, &Self::Elem::from_f32s(&values));
    }

    /// Numbers of memory that so many bytes take, where bytes can be looked up in the middle of a product.
    /// Only then are the three primitives below called.
    fn bytes_len(_bytes: usize) -> Option<usize> {
        None
    }
    /// Writes the bytes of rows that have a [common table](PixelRow::common_table) to `y`, `size` for each
    /// row, one row after the other, in the backend's own way.
    fn gather_bytes(&self, _y: Dst<'_, Self>, _rows: &[PixelRow], _size: usize) {
        unreachable!("this backend keeps no bytes");
    }
    /// `y = table[byte]`, in order.
    fn look_up(&self, _y: Dst<'_, Self>, _bytes: LookUp<'_, Self::Buf>) {
        unreachable!("this backend keeps no bytes");
    }
    /// [`gemm`](Self::gemm) with A looked up on the way; `false`, and nothing done, where it is better to
    /// [`look_up`](Self::look_up) A first.
    fn gemm_bytes(
        &self,
        _c: Dst<'_, Self>,
        _a: LookUp<'_, Self::Buf>,
        _b: Src<'_, Self>,
        _dims: Gemm,
        _write: Write,
    ) -> bool {
        unreachable!("this backend keeps no bytes");
    }

    /// `dst = value`
    fn fill(&self, dst: Dst<'_, Self>, value: Self::Elem);
    /// `dst = alpha·src` or `dst += alpha·src`
    fn scale_add(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, alpha: Self::Elem, write: Write);

    /// `C = op(A)·op(B)` or `C += op(A)·op(B)`. Terms with a factor 0 from A may be left out, so that 0·∞ counts as 0.
    fn gemm(&self, c: Dst<'_, Self>, a: Src<'_, Self>, b: Src<'_, Self>, dims: Gemm, write: Write);
    /// Adds `bias` (`cols`) to every row of `y` (`rows x cols`).
    fn add_bias(&self, y: Dst<'_, Self>, bias: Src<'_, Self>, cols: usize);
    /// `dst = Σ rows of src` or `dst += Σ rows of src`; `src` is `rows x cols`.
    fn sum_rows(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, cols: usize, write: Write);

    /// Row order to spatial order.
    fn to_spatial(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write);
    /// Spatial order to row order.
    fn to_rows(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write);
    /// Copies `count` samples of a spatial tensor `src`, from its sample `src_start`, to sample
    /// `dst_start` of `dst`. Source and destination differ in `n` only. With [`Write::Set`] the other
    /// samples of `dst` keep their value.
    #[expect(
        clippy::too_many_arguments,
        reason = "two tensors, each with its own batch and start"
    )]
    fn copy_samples(
        &self,
        dst: Dst<'_, Self>,
        dst_images: Images,
        dst_start: usize,
        src: Src<'_, Self>,
        src_images: Images,
        src_start: usize,
        count: usize,
        write: Write,
    );

    /// `y[i, j] = x[i, j]` where `keep[j]` is not 0, else `value`, or added to `y`; `x` and `y` have as
    /// many columns as `keep` numbers. What stands in a masked column of `x` is not looked at.
    fn mask_columns(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        keep: Src<'_, Self>,
        value: Self::Elem,
        write: Write,
    );
    /// `y[k, j] = x[index[k], j]`, or added to `y`; 0 where `index[k]` is negative or `x` has no column j.
    /// `y` has as many rows as `index` numbers; columns of `x` beyond those of `y` are left out.
    fn gather_rows(
        &self,
        y: Dst<'_, Self>,
        y_cols: usize,
        x: Src<'_, Self>,
        x_cols: usize,
        index: Src<'_, Self>,
        write: Write,
    );

    /// Convolution: `y[o] = Σ over taps t inside the image of x[o·stride + t - padding] · w[t]`;
    /// `x`, `y` spatial.
    fn conv2d(&self, y: Dst<'_, Self>, x: Src<'_, Self>, w: Src<'_, Self>, conv: Conv);
    /// Gradient of the input of [`conv2d`](Self::conv2d).
    fn conv2d_backward_data(
        &self,
        dx: Dst<'_, Self>,
        dy: Src<'_, Self>,
        w: Src<'_, Self>,
        conv: Conv,
        write: Write,
    );
    /// Gradient of the weight of [`conv2d`](Self::conv2d).
    fn conv2d_backward_weight(
        &self,
        dw: Dst<'_, Self>,
        x: Src<'_, Self>,
        dy: Src<'_, Self>,
        conv: Conv,
        write: Write,
    );
    /// Whether [`conv2d_backward`](Self::conv2d_backward) is faster than the two gradients by themselves.
    fn weight_goes_along(&self, _conv: Conv) -> bool {
        false
    }
    /// [`conv2d_backward_data`](Self::conv2d_backward_data) and, if it is wanted,
    /// [`conv2d_backward_weight`](Self::conv2d_backward_weight), in one go where that
    /// [saves work](Self::weight_goes_along).
    fn conv2d_backward(&self, dx: Dst<'_, Self>, args: ConvBackward<'_, Self::Buf>)
    where
        Self: Sized,
    {
        conv::one_after_the_other(self, dx, args);
    }

    /// Batch normalisation with the statistics of each group of samples (`groups` holds their sizes,
    /// which add up to `images.n`): `y = (x - mean) · inv_std · gamma + beta` with the biased
    /// variance; then for each group in order `running = (1 - momentum)·running + momentum·batch`
    /// with the unbiased variance. A group with a single value per channel has no variance: its
    /// output is `beta` and it leaves the running statistics alone; so does an empty group, whose saved
    /// mean is 0. Then [`BatchNorm::residual`] is added and [`BatchNorm::relu`] applied, with the same
    /// numbers as by [`scale_add`](Self::scale_add) and [`relu`](Self::relu). `x`, `y` and the residual
    /// spatial.
    fn batch_norm(
        &self,
        args: BatchNorm<'_, Self::Buf>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    );
    /// [`conv2d`](Self::conv2d) and then [`batch_norm`](Self::batch_norm) of its output: a device may add up what the
    /// statistics need while it has the output at hand. `images` are those that the convolution puts out.
    fn batch_norm_after(
        &self,
        args: BatchNorm<'_, Self::Buf, Convolved<'_, Self::Buf>>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) where
        Self: Sized,
    {
        norm::convolved_first(self, args, images, groups, eps, momentum);
    }
    /// Backward pass of [`batch_norm`](Self::batch_norm); the gradients of scale and shift are
    /// written as `write` says.
    fn batch_norm_backward(
        &self,
        args: BatchNormBackward<'_, Self::Buf>,
        images: Images,
        groups: &[usize],
        write: Write,
    );
    /// Whether [`batch_norm_backward_after`](Self::batch_norm_backward_after) is ever faster than the two by themselves
    /// behind such a convolution. Only then is its data gradient left until that call, with what it reads.
    fn adds_up_after(&self, _conv: Conv) -> bool {
        false
    }
    /// [`conv2d_backward`](Self::conv2d_backward) into the gradient of the output of a batch normalisation,
    /// which is not [kept](Upstream::Kept), and then [`batch_norm_backward`](Self::batch_norm_backward): a device may
    /// add up what the second needs while the first has it at hand.
    fn batch_norm_backward_after(
        &self,
        first: ConvBackward<'_, Self::Buf>,
        args: BatchNormBackward<'_, Self::Buf>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) where
        Self: Sized,
    {
        norm::one_after_the_other(self, first, args, images, groups, write);
    }
    /// Batch normalisation with running statistics (`2 x c`, as in [`BatchNorm::running`]):
    /// `y = (x - mean) / sqrt(var + eps) · gamma + beta`. Saves `mean` and `inv_std` (`c` each).
    /// [`BatchNorm::running`] is not changed.
    fn batch_norm_eval(&self, args: BatchNorm<'_, Self::Buf>, c: usize, eps: f32);
    /// Backward pass of [`batch_norm_eval`](Self::batch_norm_eval): mean and variance are constants.
    fn batch_norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Self::Buf>,
        c: usize,
        write: Write,
    );

    /// `y = max(x, 0)`; NaN stays NaN.
    fn relu(&self, y: Dst<'_, Self>, x: Src<'_, Self>);
    /// `dx = dy where y > 0, else 0`
    fn relu_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write);
    /// `y = tanh(x)`
    fn tanh(&self, y: Dst<'_, Self>, x: Src<'_, Self>);
    /// `dx = dy·(1 - y²)`
    fn tanh_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write);
    /// `y = x·mask / (1 - p)` with a mask of 0 and 1 (a NaN stays NaN), which is its own backward
    /// pass. `x`, `y` spatial.
    fn dropout(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        images: Images,
        mask: DropoutMask,
        write: Write,
    );

    /// Largest value of each window; a NaN counts as larger than every number, and a window with no
    /// position inside the image gives minus infinity. `x`, `y` spatial.
    fn max_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool);
    /// Sends the gradient of each window to its first largest value (first in row-major order, as
    /// PyTorch does; of several NaN to the first, where PyTorch takes the last).
    fn max_pool_backward(
        &self,
        dx: Dst<'_, Self>,
        x: Src<'_, Self>,
        y: Src<'_, Self>,
        dy: Src<'_, Self>,
        pool: Pool,
        write: Write,
    );
    /// Mean of each window, see [`Window::divisor`](crate::shape::Window::divisor). `x`, `y` spatial.
    fn avg_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool);
    /// Gradient of the input of [`avg_pool`](Self::avg_pool).
    fn avg_pool_backward(&self, dx: Dst<'_, Self>, dy: Src<'_, Self>, pool: Pool, write: Write);

    /// The row-weighted loss, the fused loss of DER:
    /// `L = Σ_i w_ce[i]·CE(o_i, label_i) + w_mse[i]·Σ_{j < width_i} (o_ij - z_ij)²`.
    ///
    /// `rows` is `n x 4`: label, `w_ce`, `w_mse`, `width` ([`ROW_LOSS_COLUMNS`]). `targets` (`n x c`)
    /// holds the stored logits z; it is read only where `w_mse` is not 0 and only up to `width`, and
    /// may be `None` when no row needs it. A z that is NaN was not stored: its term is left out. A term whose weight is 0 is not evaluated, so nothing
    /// infinite in it can poison the sum. Writes `terms = [L, CE of current rows, MSE, CE of replay
    /// rows]`, all weighted, so that the last three add up to the first; and the softmax of each row
    /// with `w_ce != 0` into `probs` (`n x c`) for the backward pass; the other rows of `probs`
    /// are unspecified.
    fn row_loss(
        &self,
        terms: Dst<'_, Self>,
        probs: Dst<'_, Self>,
        logits: Src<'_, Self>,
        rows: Src<'_, Self>,
        targets: Option<Src<'_, Self>>,
        dims: RowLoss,
    );
    /// `dx = dl·(w_ce·(softmax(o) - onehot(label)) + 2·w_mse·(o - z))`, row by row, without the last
    /// term where z was not stored; `dl` is one number.
    #[expect(
        clippy::too_many_arguments,
        reason = "what the forward pass saved, and the gradient"
    )]
    fn row_loss_backward(
        &self,
        dx: Dst<'_, Self>,
        probs: Src<'_, Self>,
        logits: Src<'_, Self>,
        rows: Src<'_, Self>,
        targets: Option<Src<'_, Self>>,
        dl: Src<'_, Self>,
        dims: RowLoss,
        write: Write,
    );
    /// Appends what became of a mini-batch of evaluation to `ledger`, whose first number says how many of
    /// those behind it are taken: the first number of `loss`, and for each row of `logits`, which has as many
    /// columns as `keep`, the column of its largest number and that of the largest one whose `keep` is not 0,
    /// both as [`argmax`] finds them, -1 for none. Nothing comes back to the host; the device goes on at once
    /// with what it was given so far.
    fn note_outcome(
        &self,
        ledger: Dst<'_, Self>,
        loss: Src<'_, Self>,
        logits: Src<'_, Self>,
        keep: Src<'_, Self>,
    ) where
        Self: Sized,
    {
        outcome::note_on_host(self, ledger, loss, logits, keep);
    }
    /// `loss = mean (x - t)²`; NaN for no numbers, as in PyTorch.
    fn mse(&self, loss: Dst<'_, Self>, x: Src<'_, Self>, t: Src<'_, Self>);
    /// `dx = sign·dl·2·(x - t)/len`; `sign` is -1 for the gradient of `t`.
    fn mse_backward(
        &self,
        dx: Dst<'_, Self>,
        x: Src<'_, Self>,
        t: Src<'_, Self>,
        dl: Src<'_, Self>,
        sign: f32,
        write: Write,
    );

    /// One step of SGD as PyTorch's: `d = g + weight_decay·p`; with momentum
    /// `v = momentum·v + (1 - dampening)·d` (the first time `v = d`) and `d = v`, with Nesterov
    /// `d = d + momentum·v`; then `p -= lr·d`. `momentum` is not touched when the factor is 0, and may then be empty.
    fn sgd(
        &self,
        values: Dst<'_, Self>,
        grads: Src<'_, Self>,
        momentum: Dst<'_, Self>,
        step: SgdStep,
    );
    /// `W -= lr·(op(A)·op(B))`, with the bits that [`gemm`](Self::gemm) into a gradient and
    /// [`sgd`](Self::sgd) without momentum and weight decay leave. `false`, and nothing done, where that is no
    /// faster in one pass.
    fn descend(
        &self,
        w: Dst<'_, Self>,
        a: Factor<'_, Self::Buf>,
        b: Src<'_, Self>,
        dims: Gemm,
        lr: f32,
    ) -> bool {
        let _ = (w, a, b, dims, lr);
        false
    }
}
