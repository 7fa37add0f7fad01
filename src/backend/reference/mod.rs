//! The oracle: every primitive as the plainest loops that compute it.
//!
//! All arithmetic is done in f64 and rounded once to the element type, so that `Reference<f64>` is
//! what every other backend is measured against and `Reference<f32>` is its best f32 answer. Nothing
//! here is fast, nothing runs in parallel, and some primitives allocate.

mod conv;
mod loss;
mod norm;
mod pool;
#[cfg(test)]
mod tests;

use super::dropout::dropout_keeps;
use super::{
    Backend, BatchNorm, BatchNormBackward, DropoutMask, Dst, Elem, Gemm, LookUp, RowLoss, SgdStep,
    SpatialLayout, Src, Upstream, View, ViewMut, Write,
};
use crate::error::{Error, Result};
use crate::pixels::PixelRow;
use crate::shape::{Conv, Images, Pool};
use std::marker::PhantomData;

/// Plain loops over host memory; `E` is the type that results are rounded to.
///
/// ```
/// use unforget::backend::{Backend, ViewMut, reference::Reference};
///
/// let backend = Reference::<f64>::default();
/// let mut buf = backend.alloc(3)?;
/// backend.fill(ViewMut { buf: &mut buf, offset: 1, len: 2 }, 5.0);
/// assert_eq!(buf, [0.0, 5.0, 5.0]);
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct Reference<E>(PhantomData<E>);

/// The numbers that a view shows.
fn slice<E>(view: View<'_, Vec<E>>) -> &[E] {
    &view.buf[view.offset..][..view.len]
}

/// The numbers that a view shows, to write.
fn slice_mut<E>(view: ViewMut<'_, Vec<E>>) -> &mut [E] {
    &mut view.buf[view.offset..][..view.len]
}

/// Writes one number the way `write` says.
fn put<E: Elem>(at: &mut E, value: f64, write: Write) {
    *at = E::from_f64(match write {
        Write::Set => value,
        Write::Add => at.to_f64() + value,
    });
}

/// Writes a whole result: `values` yields one number for each of `dst`.
fn put_all<E: Elem>(dst: &mut [E], values: impl IntoIterator<Item = f64>, write: Write) {
    for (at, value) in dst.iter_mut().zip(values) {
        put(at, value, write);
    }
}

impl<E: Elem> Backend for Reference<E> {
    type Elem = E;
    type Buf = Vec<E>;
    const BATCH_BLOCK: usize = 1;

    fn alloc(&self, len: usize) -> Result<Vec<E>> {
        let mut buf = Vec::new();
        buf.try_reserve_exact(len)
            .map_err(|reason| Error::Device(format!("no memory for {len} numbers: {reason}")))?;
        buf.resize(len, E::default());
        Ok(buf)
    }

    fn capacity(buf: &Vec<E>) -> usize {
        buf.len()
    }

    fn upload(&self, dst: Dst<'_, Self>, src: &[E]) {
        slice_mut(dst).copy_from_slice(src);
    }

    fn download(&self, src: Src<'_, Self>, dst: &mut [E]) {
        dst.copy_from_slice(slice(src));
    }

    fn host<'a>(&self, src: Src<'a, Self>) -> Option<&'a [E]> {
        Some(slice(src))
    }

    fn bytes_len(bytes: usize) -> Option<usize> {
        Some(bytes)
    }

    fn gather_bytes(&self, y: Dst<'_, Self>, rows: &[PixelRow], size: usize) {
        let mut bytes = vec![0; size];
        for (y, row) in slice_mut(y).chunks_exact_mut(size.max(1)).zip(rows) {
            row.write_bytes(&mut bytes);
            for (y, &byte) in y.iter_mut().zip(&bytes) {
                *y = E::from_f64(f64::from(byte));
            }
        }
    }

    fn look_up(&self, y: Dst<'_, Self>, bytes: LookUp<'_, Vec<E>>) {
        for (y, byte) in slice_mut(y).iter_mut().zip(slice(bytes.bytes)) {
            *y = E::from_f32(bytes.table[byte.to_f64() as usize]);
        }
    }

    fn gemm_bytes(
        &self,
        c: Dst<'_, Self>,
        a: LookUp<'_, Vec<E>>,
        b: Src<'_, Self>,
        dims: Gemm,
        write: Write,
    ) -> bool {
        let mut numbers = vec![E::default(); a.bytes.len];
        let len = numbers.len();
        self.look_up(
            ViewMut {
                buf: &mut numbers,
                offset: 0,
                len,
            },
            a,
        );
        self.gemm(
            c,
            View {
                buf: &numbers,
                offset: 0,
                len,
            },
            b,
            dims,
            write,
        );
        true
    }

    fn fill(&self, dst: Dst<'_, Self>, value: E) {
        slice_mut(dst).fill(value);
    }

    fn scale_add(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, alpha: E, write: Write) {
        let scaled = slice(src).iter().map(|x| alpha.to_f64() * x.to_f64());
        put_all(slice_mut(dst), scaled, write);
    }

    fn gemm(&self, c: Dst<'_, Self>, a: Src<'_, Self>, b: Src<'_, Self>, dims: Gemm, write: Write) {
        let Gemm { m, n, k, .. } = dims;
        let (c, a, b) = (slice_mut(c), slice(a), slice(b));
        for i in 0..m {
            for j in 0..n {
                let mut sum = 0.0;
                for l in 0..k {
                    let a_at = if dims.a_transposed {
                        l * m + i
                    } else {
                        i * k + l
                    };
                    let b_at = if dims.b_transposed {
                        j * k + l
                    } else {
                        l * n + j
                    };
                    sum += a[a_at].to_f64() * b[b_at].to_f64();
                }
                put(&mut c[i * n + j], sum, write);
            }
        }
    }

    fn add_bias(&self, y: Dst<'_, Self>, bias: Src<'_, Self>, cols: usize) {
        let bias = slice(bias);
        for (at, y) in slice_mut(y).iter_mut().enumerate() {
            put(y, bias[at % cols].to_f64(), Write::Add);
        }
    }

    fn sum_rows(&self, dst: Dst<'_, Self>, src: Src<'_, Self>, cols: usize, write: Write) {
        let src = slice(src);
        for (j, dst) in slice_mut(dst).iter_mut().enumerate() {
            let sum = src.iter().skip(j).step_by(cols).map(|x| x.to_f64()).sum();
            put(dst, sum, write);
        }
    }

    fn to_spatial(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        let (y, x) = (slice_mut(y), slice(x));
        for_each_element(images, |row_order, spatial| {
            put(&mut y[spatial], x[row_order].to_f64(), write);
        });
    }

    fn to_rows(&self, y: Dst<'_, Self>, x: Src<'_, Self>, images: Images, write: Write) {
        let (y, x) = (slice_mut(y), slice(x));
        for_each_element(images, |row_order, spatial| {
            put(&mut y[row_order], x[spatial].to_f64(), write);
        });
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
        // With blocks of one sample the samples are contiguous.
        let sample = dst_images.sample();
        let dst = &mut slice_mut(dst)[dst_start * sample..][..count * sample];
        let src = &slice(src)[src_start * sample..][..count * sample];
        put_all(dst, src.iter().map(|x| x.to_f64()), write);
    }

    fn mask_columns(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        keep: Src<'_, Self>,
        value: E,
        write: Write,
    ) {
        let (x, keep) = (slice(x), slice(keep));
        for (at, y) in slice_mut(y).iter_mut().enumerate() {
            let kept = keep[at % keep.len()].to_f64() != 0.0;
            put(y, if kept { x[at] } else { value }.to_f64(), write);
        }
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
        let (y, x, index) = (slice_mut(y), slice(x), slice(index));
        for (k, row) in index.iter().map(|row| row.to_f64()).enumerate() {
            for j in 0..y_cols {
                let there = row >= 0.0 && j < x_cols;
                let value = if there {
                    x[row as usize * x_cols + j].to_f64()
                } else {
                    0.0
                };
                put(&mut y[k * y_cols + j], value, write);
            }
        }
    }

    fn conv2d(&self, y: Dst<'_, Self>, x: Src<'_, Self>, w: Src<'_, Self>, conv: Conv) {
        conv::forward(slice_mut(y), slice(x), slice(w), conv);
    }

    fn conv2d_backward_data(
        &self,
        dx: Dst<'_, Self>,
        dy: Src<'_, Self>,
        w: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        conv::backward_data(slice_mut(dx), slice(dy), slice(w), conv, write);
    }

    fn conv2d_backward_weight(
        &self,
        dw: Dst<'_, Self>,
        x: Src<'_, Self>,
        dy: Src<'_, Self>,
        conv: Conv,
        write: Write,
    ) {
        conv::backward_weight(slice_mut(dw), slice(x), slice(dy), conv, write);
    }

    fn batch_norm(
        &self,
        args: BatchNorm<'_, Vec<E>>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) {
        norm::forward(args, images, groups, eps, momentum);
    }

    fn batch_norm_backward(
        &self,
        args: BatchNormBackward<'_, Vec<E>>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        norm::backward(args, images, groups, write);
    }

    /// So that gradients that go together are checked like all others.
    fn weight_goes_along(&self, _conv: Conv) -> bool {
        true
    }

    /// So that gradients left for later are checked like all others.
    fn adds_up_after(&self, _conv: Conv) -> bool {
        true
    }

    fn batch_norm_eval(&self, args: BatchNorm<'_, Vec<E>>, c: usize, eps: f32) {
        norm::eval(args, c, eps);
    }

    fn batch_norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Vec<E>>,
        c: usize,
        write: Write,
    ) {
        norm::eval_backward(args, c, write);
    }

    fn relu(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        // Written so that NaN, which is not below 0, passes through.
        let clipped = slice(x)
            .iter()
            .map(|x| x.to_f64())
            .map(|x| if x < 0.0 { 0.0 } else { x });
        put_all(slice_mut(y), clipped, Write::Set);
    }

    fn relu_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let pairs = slice(y).iter().zip(slice(dy));
        let passed = pairs.map(|(y, dy)| if y.to_f64() > 0.0 { dy.to_f64() } else { 0.0 });
        put_all(slice_mut(dx), passed, write);
    }

    fn tanh(&self, y: Dst<'_, Self>, x: Src<'_, Self>) {
        put_all(
            slice_mut(y),
            slice(x).iter().map(|x| x.to_f64().tanh()),
            Write::Set,
        );
    }

    fn tanh_backward(&self, dx: Dst<'_, Self>, y: Src<'_, Self>, dy: Src<'_, Self>, write: Write) {
        let pairs = slice(y).iter().zip(slice(dy));
        let scaled = pairs.map(|(y, dy)| dy.to_f64() * (1.0 - y.to_f64() * y.to_f64()));
        put_all(slice_mut(dx), scaled, write);
    }

    fn dropout(
        &self,
        y: Dst<'_, Self>,
        x: Src<'_, Self>,
        images: Images,
        mask: DropoutMask,
        write: Write,
    ) {
        // With blocks of one sample, memory order is the order in which elements are counted.
        let sample = images.sample();
        let scale = 1.0 / (1.0 - f64::from(mask.p));
        let dropped = slice(x).iter().enumerate().map(|(at, x)| {
            let keep = dropout_keeps(&mask, (at / sample) as u32, (at % sample) as u32);
            x.to_f64() * if keep { scale } else { 0.0 }
        });
        put_all(slice_mut(y), dropped, write);
    }

    fn max_pool(&self, y: Dst<'_, Self>, x: Src<'_, Self>, pool: Pool) {
        pool::max(slice_mut(y), slice(x), pool);
    }

    fn max_pool_backward(
        &self,
        dx: Dst<'_, Self>,
        x: Src<'_, Self>,
        _y: Src<'_, Self>,
        dy: Src<'_, Self>,
        pool: Pool,
        write: Write,
    ) {
        pool::max_backward(slice_mut(dx), slice(x), slice(dy), pool, write);
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
        let rows = loss::Rows::new(slice(logits), slice(rows), targets.map(slice), dims);
        loss::row_loss_backward(slice_mut(dx), slice(probs), &rows, slice(dl)[0], write);
    }

    fn mse(&self, loss: Dst<'_, Self>, x: Src<'_, Self>, t: Src<'_, Self>) {
        let pairs = slice(x).iter().zip(slice(t));
        let sum: f64 = pairs.map(|(x, t)| (x.to_f64() - t.to_f64()).powi(2)).sum();
        put(&mut slice_mut(loss)[0], sum / x.len as f64, Write::Set);
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
        let scale = f64::from(sign) * slice(dl)[0].to_f64() * 2.0 / x.len as f64;
        let pairs = slice(x).iter().zip(slice(t));
        put_all(
            slice_mut(dx),
            pairs.map(|(x, t)| scale * (x.to_f64() - t.to_f64())),
            write,
        );
    }

    fn sgd(
        &self,
        values: Dst<'_, Self>,
        grads: Src<'_, Self>,
        momentum: Dst<'_, Self>,
        step: SgdStep,
    ) {
        let (lr, factor) = (f64::from(step.lr), f64::from(step.momentum));
        let averaged = 1.0 - f64::from(step.dampening);
        let (values, grads, momentum) = (slice_mut(values), slice(grads), slice_mut(momentum));
        for i in 0..values.len() {
            let p = values[i].to_f64();
            let mut d = grads[i].to_f64() + f64::from(step.weight_decay) * p;
            if step.momentum != 0.0 {
                let v = match step.first {
                    true => d,
                    false => factor * momentum[i].to_f64() + averaged * d,
                };
                momentum[i] = E::from_f64(v);
                d = if step.nesterov { d + factor * v } else { v };
            }
            values[i] = E::from_f64(p - lr * d);
        }
    }
}

/// Calls `f(index in row order, index in spatial order)` for every number of a batch.
fn for_each_element(images: Images, mut f: impl FnMut(usize, usize)) {
    let Images { n, c, h, w } = images;
    let layout = SpatialLayout::new(images, 1);
    for sample in 0..n {
        for channel in 0..c {
            for y in 0..h {
                for x in 0..w {
                    let row_order = ((sample * c + channel) * h + y) * w + x;
                    f(row_order, layout.index(sample, y, x) + channel);
                }
            }
        }
    }
}
