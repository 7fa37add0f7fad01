//! The CPU backend: every primitive in f32, fast.
//!
//! A primitive that touches few numbers runs on the calling thread; a large one is cut into pieces
//! for the rayon pool that the caller runs in (run the whole training loop inside one pool: handing
//! over from outside costs more). No primitive allocates, and none gives different bits for a
//! different number of threads.

mod after;
pub(crate) mod awake;
pub(crate) mod bf16;
pub mod buffer;
#[cfg(test)]
mod check;
pub(crate) mod conv;
pub(crate) mod dispatch;
mod dropout;
mod elementwise;
pub(crate) mod gemm;
mod isa;
mod layout;
mod leaves;
mod loss;
mod norm;
mod norm_backward;
mod optim;
mod parallel;
mod pixels;
mod pool;
#[doc(hidden)]
pub mod probe;
mod reduce;
mod rows;
mod scratch;
mod sparse;
pub(crate) mod table;
mod team;
mod terms;
pub(crate) mod tiles;
mod widths;

pub use dispatch::{ISA_VARIABLE, Isa, isa_from_env};

use super::conv::one_after_the_other as one_by_one;
use super::norm::{convolved_first, one_after_the_other};
use super::{
    Backend, BatchNorm, BatchNormBackward, ConvBackward, Convolved, DropoutMask, Dst, Factor, Gemm,
    LookUp, Precision, RowLoss, SgdStep, Src, Upstream, WeightGradient, Write,
};
use crate::error::Result;
use crate::pixels::{PixelRow, look_up};
use crate::shape::{Conv, Images, Pool};
use after::After;
use bf16::Factors;
use buffer::{Buffer, bytes_mut, slice, slice_mut};
use dispatch::select;
use isa::sparse::Left;

/// Most samples in one block of a spatial tensor.
pub const BATCH_BLOCK: usize = 32;

/// The processor that this program runs on.
///
/// ```
/// use unforget::backend::{Backend, View, ViewMut, cpu::Cpu};
///
/// let cpu = Cpu::default();
/// let mut x = cpu.alloc(4)?;
/// cpu.upload(ViewMut { buf: &mut x, offset: 0, len: 4 }, &[-1.0, 2.0, -3.0, 4.0]);
/// let mut y = cpu.alloc(4)?;
/// let dst = ViewMut { buf: &mut y, offset: 0, len: 4 };
/// cpu.relu(dst, View { buf: &x, offset: 0, len: 4 });
/// assert_eq!(cpu.host(View { buf: &y, offset: 1, len: 3 }), Some(&[2.0, 0.0, 4.0][..]));
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// How the factors of products are rounded, if they are.
    factors: Option<Factors>,
}

impl Cpu {
    /// How products and convolutions multiply from now on. Everything is stored and added up in f32 in each
    /// precision, and small products are computed in f32 as well, since rounding their factors would cost
    /// more than it saves:
    ///
    /// | precision | factors | hardware |
    /// |---|---|---|
    /// | [`Full`](Precision::Full) | f32 | any |
    /// | [`High`](Precision::High) | two bfloat16 numbers each, three products | AMX |
    /// | [`Bf16`](Precision::Bf16) | bfloat16 | AMX, or AMD's AVX512-BF16 |
    ///
    /// On a CPU without the hardware a warning says, once, that it computes in f32.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) for [`Tf32`](Precision::Tf32), which is a GPU's.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        self.factors = Factors::new(precision)?;
        Ok(())
    }

    /// Products, however small, with these factors.
    #[cfg(test)]
    pub(super) fn with_factors(factors: Factors) -> Self {
        Cpu {
            factors: Some(factors),
        }
    }
}

/// The slices of the arguments of batch normalisation, and its input.
fn forward_slices<X>(args: BatchNorm<'_, Buffer, X>) -> (norm::Forward<'_>, X) {
    let slices = norm::Forward {
        y: slice_mut(args.y),
        mean: slice_mut(args.mean),
        inv_std: slice_mut(args.inv_std),
        running: slice_mut(args.running),
        gamma: slice(args.gamma),
        beta: slice(args.beta),
        residual: args.residual.map(slice),
        relu: args.relu,
    };
    (slices, args.x)
}

/// The slices of the arguments of its backward pass.
fn backward_slices(args: BatchNormBackward<'_, Buffer>) -> norm_backward::Backward<'_> {
    norm_backward::Backward {
        dx: args.dx.map(|(dx, write)| (slice_mut(dx), write)),
        dgamma_dbeta: slice_mut(args.dgamma_dbeta),
        x: slice(args.x),
        dy: match args.dy {
            Upstream::Kept(dy) => Upstream::Kept(slice(dy)),
            Upstream::BecomesInput(dy) => Upstream::BecomesInput(slice_mut(dy)),
            Upstream::BecomesResidual(dy) => Upstream::BecomesResidual(slice_mut(dy)),
        },
        gamma: slice(args.gamma),
        beta: slice(args.beta),
        mean: slice(args.mean),
        inv_std: slice(args.inv_std),
        relu: match args.y {
            None => norm_backward::Relu::None,
            Some(_) if !args.residual => norm_backward::Relu::OfInput,
            Some(y) => norm_backward::Relu::Of(slice(y)),
        },
        dresidual: args.dresidual.map(|(d, write)| (slice_mut(d), write)),
    }
}

/// The slices of what the gradient of a weight needs.
fn weight_gradient(weight: WeightGradient<'_, Buffer>) -> conv::WeightGradient<'_> {
    conv::WeightGradient {
        x: slice(weight.x),
        dw: slice_mut(weight.dw),
    }
}

/// The left factor of a product.
fn looked_up<'a>(a: LookUp<'a, Buffer>, dims: Gemm) -> Left<'a> {
    Left::Bytes(&buffer::bytes(a.bytes)[..dims.m * dims.k], a.table)
}

impl Backend for Cpu {
    type Elem = f32;
    type Buf = Buffer;
    const BATCH_BLOCK: usize = BATCH_BLOCK;
    const MAKES_ROWS: bool = true;
    const DESCENDS: bool = true;

    fn alloc(&self, len: usize) -> Result<Buffer> {
        Buffer::zeroed(len)
    }

    fn capacity(buf: &Buffer) -> usize {
        buf.numbers().len()
    }

    fn upload(&self, dst: Dst<'_, Self>, src: &[f32]) {
        slice_mut(dst).copy_from_slice(src);
    }

    fn download(&self, src: Src<'_, Self>, dst: &mut [f32]) {
        dst.copy_from_slice(slice(src));
    }

    fn host<'a>(&self, src: Src<'a, Self>) -> Option<&'a [f32]> {
        Some(slice(src))
    }

    fn gather_pixels(&self, y: Dst<'_, Self>, rows: &[PixelRow]) {
        pixels::each_row(slice_mut(y), rows, PixelRow::write);
    }

    fn bytes_len(bytes: usize) -> Option<usize> {
        Some(bytes.div_ceil(size_of::<f32>()))
    }

    fn gather_bytes(&self, y: Dst<'_, Self>, rows: &[PixelRow], size: usize) {
        pixels::gather_bytes(bytes_mut(y), rows, size);
    }

    fn look_up(&self, y: Dst<'_, Self>, bytes: LookUp<'_, Buffer>) {
        look_up(bytes.table, buffer::bytes(bytes.bytes), None, slice_mut(y));
    }

    fn gemm_bytes(
        &self,
        c: Dst<'_, Self>,
        a: LookUp<'_, Buffer>,
        b: Src<'_, Self>,
        dims: Gemm,
        write: Write,
    ) -> bool {
        let a = looked_up(a, dims);
        let factors = self.factors.filter(|factors| factors.multiply(dims));
        if factors.is_some_and(|factors| !factors.leave_out()) {
            return false;
        }
        let pairs = factors.map(Factors::kernels);
        sparse::product(select(), pairs, slice_mut(c), a, slice(b), dims, write)
    }

    fn fill(&self, dst: Dst<'_, Self>, value: f32) {
        slice_mut(dst).fill(value);
    }

    fn scale_add(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, alpha: f32, write: Write) {
        elementwise::map(slice_mut(dst), slice(src), write, |x| alpha * x);
    }

    fn gemm(&self, c: Dst<'_, Self>, a: Src<'_, Self>, b: Src<'_, Self>, dims: Gemm, write: Write) {
        let (c, a, b) = (slice_mut(c), slice(a), slice(b));
        match self.factors {
            Some(factors) => bf16::gemm(factors, c, a, b, dims, write),
            None => gemm::gemm(c, a, b, dims, write),
        }
    }

    fn add_bias(&self, y: Dst<'_, Self>, bias: Src<'_, Self>, cols: usize) {
        elementwise::add_bias(slice_mut(y), slice(bias), cols);
    }

    fn sum_rows(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, cols: usize, write: Write) {
        reduce::sum_rows(slice_mut(dst), slice(src), cols, write);
    }

    fn to_spatial(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        layout::to_spatial(slice_mut(y), slice(x), images, write);
    }

    fn to_rows(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        layout::to_rows(slice_mut(y), slice(x), images, write);
    }

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
    ) {
        let copy = layout::SampleCopy {
            dst: dst_images,
            dst_start,
            src: src_images,
            src_start,
            count,
        };
        layout::copy_samples(slice_mut(dst), slice(src), &copy, write);
    }

    fn mask_columns(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        keep: Src<'_, Self>,
        value: f32,
        write: Write,
    ) {
        rows::mask_columns(slice_mut(y), slice(x), slice(keep), value, write);
    }

    fn gather_rows(
        &self,
        y: Dst<'_, Self>,
        y_cols: usize,
        x: Src<'_, Self>,
        x_cols: usize,
        index: Src<'_, Self>,
        write: Write,
    ) {
        rows::gather_rows(slice_mut(y), y_cols, slice(x), x_cols, slice(index), write);
    }

    fn conv2d(&self, y: Dst<'_, Self>, x: Src<'_, Self>, w: Src<'_, Self>, conv: Conv) {
        conv::conv2d(self.factors, slice_mut(y), slice(x), slice(w), conv);
    }

    fn conv2d_backward_data(
        &self,
        dx: Dst<'_, Self>,
        dy: Src<'_, Self>,
        w: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        let (dx, dy, w) = (slice_mut(dx), slice(dy), slice(w));
        conv::conv2d_backward_data(self.factors, dx, dy, w, conv, write);
    }

    fn conv2d_backward_weight(
        &self,
        dw: Dst<'_, Self>,
        x: Src<'_, Self>,
        dy: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        let (dw, x, dy) = (slice_mut(dw), slice(x), slice(dy));
        conv::conv2d_backward_weight(self.factors, dw, x, dy, conv, write);
    }

    fn weight_goes_along(&self, conv: Conv) -> bool {
        conv::weight_goes_along(self.factors, conv)
    }

    fn conv2d_backward(&self, dx: Dst<'_, Self>, args: ConvBackward<'_, Buffer>) {
        match args.weight {
            Some(weight) if self.weight_goes_along(args.conv) => {
                let (dx, weight) = (slice_mut(dx), weight_gradient(weight));
                let (dy, w) = (slice(args.dy), slice(args.w));
                conv::conv2d_backward((dx, args.write), Some(weight), dy, w, args.conv, None);
            }
            weight => one_by_one(self, dx, ConvBackward { weight, ..args }),
        }
    }

    fn batch_norm(
        &self,
        args: BatchNorm<'_, Buffer>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) {
        let (args, x) = forward_slices(args);
        norm::forward(args, slice(x), images, groups, eps, momentum);
    }

    fn batch_norm_after(
        &self,
        args: BatchNorm<'_, Buffer, Convolved<'_, Buffer>>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) {
        let by_rows = conv::by_rows(self.factors, args.x.conv, images);
        if !by_rows || !leaves::of_whole_blocks(images, groups) {
            return convolved_first(self, args, images, groups, eps, momentum);
        }
        let (args, first) = forward_slices(args);
        let (y, x, w) = (slice_mut(first.y), slice(first.x), slice(first.w));
        norm::forward_after(args, y, images, groups, eps, momentum, |y, rows_done| {
            let after = After {
                rows_done,
                beside: [&[]; 2],
            };
            conv::conv2d_then(y, x, w, first.conv, after);
        });
    }

    fn batch_norm_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        norm_backward::backward(backward_slices(args), images, groups, write);
    }

    fn adds_up_after(&self, conv: Conv) -> bool {
        conv::by_rows(self.factors, conv, conv.input)
    }

    fn batch_norm_backward_after(
        &self,
        first: ConvBackward<'_, Buffer>,
        args: BatchNormBackward<'_, Buffer>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        let by_rows = conv::by_rows(self.factors, first.conv, images);
        if !by_rows || !leaves::of_whole_blocks(images, groups) {
            return one_after_the_other(self, first, args, images, groups, write);
        }
        let (dy, w) = (slice(first.dy), slice(first.w));
        let weight = first.weight.map(weight_gradient);
        // The output is the input of the convolution: what makes the gradient of the weight has just read it.
        let y = args.y.filter(|_| args.residual && weight.is_none());
        let y = y.map_or(&[][..], slice);
        let beside = [slice(args.x), y];
        norm_backward::backward_after(
            backward_slices(args),
            images,
            groups,
            write,
            |dx, rows_done| {
                let after = Some(After { rows_done, beside });
                conv::conv2d_backward((dx, first.write), weight, dy, w, first.conv, after);
            },
        );
    }

    fn batch_norm_eval(&self, args: BatchNorm<'_, Buffer>, c: usize, eps: f32) {
        let (args, x) = forward_slices(args);
        norm::eval(args, slice(x), c, eps);
    }

    fn batch_norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        c: usize,
        write: Write,
    ) {
        norm_backward::eval_backward(backward_slices(args), c, write);
    }

    fn relu(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        elementwise::map(slice_mut(y), slice(x), Write::Set, elementwise::relu);
    }

    fn relu_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let gradient = elementwise::relu_backward;
        elementwise::map2(slice_mut(dx), slice(y), slice(dy), write, gradient);
    }

    fn tanh(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        elementwise::map(slice_mut(y), slice(x), Write::Set, f32::tanh);
    }

    fn tanh_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let gradient = |y: f32, dy: f32| dy * (1.0 - y * y);
        elementwise::map2(slice_mut(dx), slice(y), slice(dy), write, gradient);
    }

    fn dropout(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        images: Images,
        mask: DropoutMask,
        write: Write,
    ) {
        dropout::dropout(slice_mut(y), slice(x), images, mask, write);
    }

    fn max_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool) {
        pool::max(slice_mut(y), slice(x), pool);
    }

    fn max_pool_backward(
        &self,
        dx: Dst<'_, Self>,
        x: Src<'_, Self>,
        y: Src<'_, Self>,
        dy: Src<'_, Self>,
        pool: Pool,
        write: Write,
    ) {
        pool::max_backward(slice_mut(dx), slice(x), slice(y), slice(dy), pool, write);
    }

    fn avg_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool) {
        pool::avg(slice_mut(y), slice(x), pool);
    }

    fn avg_pool_backward(&self, dx: Dst<'_, Self>, dy: Src<'_, Self>, pool: Pool, write: Write) {
        pool::avg_backward(slice_mut(dx), slice(dy), pool, write);
    }

    fn row_loss(
        &self,
        terms: Dst<'_, Self>,
        probs: Dst<'_, Self>,
        logits: Src<'_, Self>,
        rows: Src<'_, Self>,
        targets: Option<Src<'_, Self>>,
        dims: RowLoss,
    ) {
        let targets = targets.map(slice);
        loss::row_loss(
            slice_mut(terms),
            slice_mut(probs),
            slice(logits),
            slice(rows),
            targets,
            dims,
        );
    }

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
    ) {
        let args = loss::RowLossBackward {
            probs: slice(probs),
            logits: slice(logits),
            table: slice(rows),
            targets: targets.map(slice),
            dl: slice(dl)[0],
            dims,
        };
        loss::row_loss_backward(slice_mut(dx), &args, write);
    }

    fn mse(&self, loss: Dst<'_, Self>, x: Src<'_, Self>, t: Src<'_, Self>) {
        slice_mut(loss)[0] = loss::mse(slice(x), slice(t));
    }

    fn mse_backward(
        &self,
        dx: Dst<'_, Self>,
        x: Src<'_, Self>,
        t: Src<'_, Self>,
        dl: Src<'_, Self>,
        sign: f32,
        write: Write,
    ) {
        let scale = sign * slice(dl)[0] * 2.0 / x.len as f32;
        loss::mse_backward(slice_mut(dx), slice(x), slice(t), scale, write);
    }

    fn sgd(
        &self,
        values: Dst<'_, Self>,
        grads: Src<'_, Self>,
        momentum: Dst<'_, Self>,
        step: SgdStep,
    ) {
        optim::sgd(slice_mut(values), slice(grads), slice_mut(momentum), step);
    }

    fn descend(
        &self,
        w: Dst<'_, Self>,
        a: Factor<'_, Buffer>,
        b: Src<'_, Self>,
        dims: Gemm,
        lr: f32,
    ) -> bool {
        let a = match a {
            Factor::Numbers(a) => Left::Numbers(slice(a)),
            Factor::Bytes(a) => looked_up(a, dims),
        };
        self.factors.is_none() && gemm::descend(slice_mut(w), a, slice(b), dims, lr)
    }
}
