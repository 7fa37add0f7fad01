//! The CUDA backend: every primitive in f32 on an NVIDIA GPU.
//!
//! The kernels are in `kernels/*.cu`; their PTX is part of the program, and the driver compiles it for
//! its GPU. So building needs no toolkit, and running needs nothing but the driver (525 or later) and a
//! GPU of compute capability 8.0 or later. Everything runs in order on one stream; the host waits only
//! where numbers come back. Launches are collected until then, and a sequence of them that comes again
//! (each training step is one) is replayed as a captured graph.
//!
//! Samples are stored one after the other ([`Backend::BATCH_BLOCK`] is 1), so spatial order is plain
//! NHWC.
//!
//! Sums are taken in an order that depends on sizes and on the number of multiprocessors only: the same
//! GPU gives the same bits every time.

mod driver;
mod images;
mod kernels;
mod norm;
mod nvrtc;
mod pixels;
mod probe;
mod product;
mod sequence;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod window;

use super::{
    Backend, BatchNorm, BatchNormBackward, DropoutMask, Dst, Gemm, Precision, RowLoss, SgdStep,
    Src, View, ViewMut, Write,
};
use crate::error::{Error, Result};
use crate::pixels::PixelRow;
use crate::shape::{Conv, Images, Pool};
pub use driver::Buffer;
use driver::Driver;
use kernels::Kernel;
use pixels::PixelStore;
pub(crate) use probe::available;
use sequence::Arg;
use std::cell::RefCell;

/// Threads in a block of a kernel that goes number by number.
const BLOCK: usize = 256;

/// The arguments of a launch, in the order of the kernel's source.
macro_rules! args {
    ($($arg:expr),+ $(,)?) => { &[$(Arg::from($arg)),+] };
}
use args;

/// An NVIDIA GPU.
pub struct Cuda {
    ordinal: usize,
    precision: Precision,
    driver: Box<Driver>,
    scratch: Box<RefCell<Scratch>>,
    pixels: Box<RefCell<PixelStore>>,
}

/// Memory that a primitive uses for itself; the next one may overwrite it.
struct Scratch {
    /// Parts of sums.
    partial: Buffer,
    /// A zero for each tile of a product.
    counters: Buffer,
    /// The number of the step, for dropout: uploaded, so that the launch is the same in every step.
    step: Buffer,
    /// The learning rate, uploaded when it changes, for the same reason.
    rate: Buffer,
    /// Its bits.
    known_rate: Option<u32>,
}

impl Cuda {
    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Device`], saying what is missing: the driver, the GPU, or a newer
    /// one of either.
    pub fn new(ordinal: usize) -> Result<Self> {
        let driver = Box::new(Driver::open(ordinal)?);
        let scratch = Box::new(RefCell::new(Scratch {
            partial: driver.alloc(1 << 16)?,
            counters: driver.alloc(1 << 10)?,
            step: driver.alloc(2)?,
            rate: driver.alloc(1)?,
            known_rate: None,
        }));
        Ok(Cuda {
            ordinal,
            precision: Precision::Full,
            driver,
            scratch,
            pixels: Box::default(),
        })
    }

    /// How products and convolutions multiply from now on. In TF32 and bfloat16 they use the tensor cores,
    /// where the dimensions that lie along memory are multiples of 4; others stay in f32.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The GPU's name.
    pub fn name(&self) -> String {
        self.driver.name()
    }

    /// Waits until everything has been computed.
    pub fn finish(&self) {
        self.driver.finish();
    }

    /// A launch of blocks of [`BLOCK`] threads for `n` numbers: a thread each, up to what the
    /// GPU can hold at once.
    fn each(&self, kernel: Kernel, n: usize, args: &[Arg<'_>]) {
        let blocks = n.div_ceil(BLOCK).min(8 * self.driver.processors);
        self.driver
            .launch(kernel, [blocks, 1, 1], [BLOCK as u32, 1, 1], args);
    }

    /// The same for a kernel that takes four numbers at a time where they lie together.
    fn each_four(&self, kernel: Kernel, n: usize, args: &[Arg<'_>]) {
        self.each(kernel, n.div_ceil(4), args);
    }

    /// Runs `work` with scratch memory for `partial` numbers and `counters` zeros.
    fn with_scratch(
        &self,
        partial: usize,
        counters: usize,
        work: impl FnOnce(View<'_, Buffer>, View<'_, Buffer>),
    ) {
        let mut scratch = self.scratch.borrow_mut();
        let Scratch {
            partial: sums,
            counters: zeros,
            ..
        } = &mut *scratch;
        for (buffer, wanted) in [(&mut *sums, partial), (&mut *zeros, counters)] {
            if buffer.len() < wanted {
                let bigger = self.driver.alloc(wanted.next_power_of_two());
                *buffer = bigger.unwrap_or_else(|e| std::panic::resume_unwind(Box::new(e)));
            }
        }
        let view = |buf| View {
            buf,
            offset: 0,
            len: 0,
        };
        work(view(sums), view(zeros));
    }
}

/// A size as the kernels have it.
fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or_else(|_| {
        let message = format!("a tensor with {n} rows or numbers: kernels count up to 2^31");
        std::panic::resume_unwind(Box::new(Error::Device(message)))
    })
}

impl Backend for Cuda {
    type Elem = f32;
    type Buf = Buffer;
    const BATCH_BLOCK: usize = 1;
    const OWN_MEMORY: bool = true;

    fn alloc(&self, len: usize) -> Result<Buffer> {
        self.driver.alloc(len)
    }

    fn capacity(buf: &Buffer) -> usize {
        buf.len()
    }

    fn upload(&self, dst: Dst<'_, Self>, src: &[f32]) {
        self.driver.upload(dst, src);
    }

    fn download(&self, src: Src<'_, Self>, dst: &mut [f32]) {
        self.driver.download(src, dst);
    }

    fn host<'a>(&self, _src: Src<'a, Self>) -> Option<&'a [f32]> {
        None
    }

    fn gather_pixels(&self, y: Dst<'_, Self>, rows: &[PixelRow]) {
        if !self.gather_on_device(&y, rows) {
            let values = PixelRow::write_all(rows, y.len);
            self.upload(y, &values);
        }
    }

    fn fill(&self, dst: Dst<'_, Self>, value: f32) {
        let n = dst.len;
        self.each_four(Kernel::Fill, n, args![&dst, value, n as i64]);
    }

    fn scale_add(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, alpha: f32, write: Write) {
        let n = dst.len;
        let args = args![&dst, src, alpha, n as i64, write];
        self.each_four(Kernel::ScaleAdd, n, args);
    }

    fn gemm(&self, c: Dst<'_, Self>, a: Src<'_, Self>, b: Src<'_, Self>, dims: Gemm, write: Write) {
        self.matrix_product(c, a, b, dims, write);
    }

    fn add_bias(&self, y: Dst<'_, Self>, bias: Src<'_, Self>, cols: usize) {
        let n = y.len;
        self.each_four(Kernel::AddBias, n, args![&y, bias, n as i64, int(cols)]);
    }

    fn sum_rows(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, cols: usize, write: Write) {
        self.column_sums(dst, src, cols, write);
    }

    fn mask_columns(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        keep: Src<'_, Self>,
        value: f32,
        write: Write,
    ) {
        let (n, cols) = (y.len, int(keep.len));
        let args = args![&y, x, keep, value, n as i64, cols, write];
        self.each(Kernel::MaskColumns, n, args);
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
        let (n, y_cols, x_cols) = (y.len, int(y_cols), int(x_cols));
        let args = args![&y, x, index, n as i64, y_cols, x_cols, write];
        self.each(Kernel::GatherRows, n, args);
    }

    fn to_spatial(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        self.transpose(y, x, images.n, images.c, images.pixels(), write);
    }

    fn to_rows(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        self.transpose(y, x, images.n, images.pixels(), images.c, write);
    }

    fn copy_samples(
        &self,
        dst: Dst<'_, Self>,
        dst_images: Images,
        dst_start: usize,
        src: Src<'_, Self>,
        _src_images: Images,
        src_start: usize,
        count: usize,
        write: Write,
    ) {
        let sample = dst_images.sample();
        let len = count * sample;
        let dst = ViewMut {
            offset: dst.offset + dst_start * sample,
            len,
            ..dst
        };
        let src = View {
            offset: src.offset + src_start * sample,
            len,
            ..src
        };
        self.scale_add(dst, src, 1.0, write);
    }

    fn conv2d(&self, y: Dst<'_, Self>, x: Src<'_, Self>, w: Src<'_, Self>, conv: Conv) {
        self.conv_forward(y, x, w, conv);
    }

    fn conv2d_backward_data(
        &self,
        dx: Dst<'_, Self>,
        dy: Src<'_, Self>,
        w: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        self.conv_backward_data(dx, dy, w, conv, write);
    }

    fn conv2d_backward_weight(
        &self,
        dw: Dst<'_, Self>,
        x: Src<'_, Self>,
        dy: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        self.conv_backward_weight(dw, x, dy, conv, write);
    }

    fn batch_norm(
        &self,
        args: BatchNorm<'_, Buffer>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) {
        self.norm_train(args, images, groups, eps, momentum);
    }

    fn batch_norm_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        self.norm_train_backward(args, images, groups, write);
    }

    fn batch_norm_eval(&self, args: BatchNorm<'_, Buffer>, c: usize, eps: f32) {
        self.norm_eval(args, c, eps);
    }

    fn batch_norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        c: usize,
        write: Write,
    ) {
        self.norm_eval_backward(args, c, write);
    }

    fn relu(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        let n = y.len;
        self.each_four(Kernel::ReluForward, n, args![&y, x, n as i64]);
    }

    fn relu_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let n = dx.len;
        let args = args![&dx, y, dy, n as i64, write];
        self.each_four(Kernel::ReluBackward, n, args);
    }

    fn tanh(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        let n = y.len;
        self.each_four(Kernel::TanhForward, n, args![&y, x, n as i64]);
    }

    fn tanh_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let n = dx.len;
        let args = args![&dx, y, dy, n as i64, write];
        self.each_four(Kernel::TanhBackward, n, args);
    }

    fn dropout(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        images: Images,
        mask: DropoutMask,
        write: Write,
    ) {
        self.drop_elements(y, x, images, mask, write);
    }

    fn max_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool) {
        let geometry = window::pool_geometry(pool);
        self.each(Kernel::MaxPoolForward, y.len, args![&y, x, &geometry]);
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
        let geometry = window::pool_geometry(pool);
        let args = args![&dx, x, y, dy, &geometry, write];
        self.each(Kernel::MaxPoolBackward, dx.len, args);
    }

    fn avg_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool) {
        let geometry = window::pool_geometry(pool);
        self.each(Kernel::AvgPoolForward, y.len, args![&y, x, &geometry]);
    }

    fn avg_pool_backward(&self, dx: Dst<'_, Self>, dy: Src<'_, Self>, pool: Pool, write: Write) {
        let geometry = window::pool_geometry(pool);
        let args = args![&dx, dy, &geometry, write];
        self.each(Kernel::AvgPoolBackward, dx.len, args);
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
        let (n, c) = (int(dims.n), int(dims.c));
        let (start, end) = (int(dims.current_start), int(dims.current_end));
        let args = args![&terms, &probs, logits, rows, targets, n, c, start, end];
        // A warp takes a row.
        let threads = 32 * dims.n.clamp(1, 32) as u32;
        self.driver
            .launch(Kernel::RowLossForward, [1; 3], [threads, 1, 1], args);
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
        let (n, c) = (int(dims.n), int(dims.c));
        let args = args![&dx, probs, logits, rows, targets, dl, n, c, write];
        self.each(Kernel::RowLossBackward, dx.len, args);
    }

    fn note_outcome(
        &self,
        ledger: Dst<'_, Self>,
        loss: Src<'_, Self>,
        logits: Src<'_, Self>,
        keep: Src<'_, Self>,
    ) {
        let (n, c) = (logits.len / keep.len.max(1), keep.len);
        let threads = 32 * n.clamp(1, 32) as u32;
        let args = args![&ledger, loss, logits, keep, int(n), int(c)];
        self.driver
            .launch(Kernel::NoteOutcome, [1; 3], [threads, 1, 1], args);
        self.driver.send();
    }

    fn mse(&self, loss: Dst<'_, Self>, x: Src<'_, Self>, t: Src<'_, Self>) {
        let args = args![&loss, x, t, x.len as i64];
        self.driver
            .launch(Kernel::MseForward, [1; 3], [1024, 1, 1], args);
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
        let n = dx.len;
        let args = args![&dx, x, t, dl, sign, n as i64, write];
        self.each_four(Kernel::MseBackward, n, args);
    }

    fn sgd(
        &self,
        values: Dst<'_, Self>,
        grads: Src<'_, Self>,
        momentum: Dst<'_, Self>,
        step: SgdStep,
    ) {
        let n = values.len;
        let mut scratch = self.scratch.borrow_mut();
        let Scratch {
            rate, known_rate, ..
        } = &mut *scratch;
        let rate = ViewMut {
            buf: rate,
            offset: 0,
            len: 1,
        };
        let rate_at = Arg::from(&rate);
        if known_rate.replace(step.lr.to_bits()) != Some(step.lr.to_bits()) {
            self.driver.upload(rate, &[step.lr]);
        }
        let args = args![
            &values,
            grads,
            &momentum,
            n as i64,
            rate_at,
            step.momentum,
            step.dampening,
            step.weight_decay,
            step.nesterov,
            step.first,
        ];
        self.each_four(Kernel::Sgd, n, args);
    }
}
