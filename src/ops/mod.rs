//! The differentiable operations, one file each: formula, forward, backward, gradient check.
//!
//! Forward and backward are methods of [`Graph`]; the backward method of an operation is called
//! with its node and its node's gradient, serves one parent at a time, and writes with the parent's
//! [`Write`](crate::backend::Write): the first writer sets, later writers add.

mod add;
mod batch;
mod batch_norm;
mod conv2d;
mod conv2d_batch_norm;
mod dropout;
mod host_loss;
mod layout;
mod linear;
mod mask;
mod mse;
mod pool;
mod relu;
mod row_loss;
mod rows;
mod tanh;

#[cfg(test)]
mod gradcheck;

pub use row_loss::{DerLoss, LossRows};

use crate::backend::Backend;
use crate::graph::{Graph, Op, Var};
use batch_norm::Saved;

impl<B: Backend> Graph<B> {
    /// Computes the gradient of `loss` (one number) with respect to every parameter and every input
    /// that wants one. Parameter gradients of several calls in one step add up. The loss, and every other value that
    /// an operation has returned, can be read afterwards.
    ///
    /// # Panics
    /// If `loss` is not a single number.
    #[track_caller]
    pub fn backward(&mut self, loss: Var) {
        let Some(last) = self.seed(loss) else { return };
        self.make_room(last);
        for index in (0..=last).rev() {
            let node = self.nodes[index];
            let Some(dy) = node.grad else { continue };
            let mut kept = true;
            match node.op {
                Op::Input => continue,
                Op::Weight(id) => self.weight_backward(id, dy),
                Op::HostLoss { x, slope } => self.host_loss_backward(x, slope, dy),
                Op::Reshape(x) => self.reshape_backward(x, dy),
                Op::ToRows(x) => self.rows_backward(x, dy),
                Op::ToSpatial(x) => self.spatial_backward(x, dy),
                Op::MatMul(a, b) => self.matmul_backward(a, b, dy),
                Op::Linear { x, weight, bias } => self.linear_backward(x, weight, bias, dy),
                Op::Conv2d {
                    x,
                    weight,
                    bias,
                    conv,
                } => {
                    kept = self.conv2d_backward(x, weight, bias, conv, dy);
                }
                Op::BatchNorm {
                    x,
                    norm,
                    mean,
                    inv_std,
                    train,
                    residual,
                    relu,
                } => {
                    let saved = Saved {
                        of: self.var(index),
                        mean,
                        inv_std,
                        y: relu.then_some(node.value),
                    };
                    kept = self.batch_norm_backward(x, norm, residual, saved, train, dy);
                }
                Op::Relu(x) => self.relu_backward(x, node.value, dy),
                Op::Tanh(x) => self.tanh_backward(x, node.value, dy),
                Op::Dropout { x, mask } => self.dropout_backward(x, mask, dy),
                Op::MaxPool { x, pool } => self.max_pool_backward(x, pool, node.value, dy),
                Op::AvgPool { x, pool } => self.avg_pool_backward(x, pool, dy),
                Op::Add(a, b) => self.add_backward(a, b, dy),
                Op::Scale(x, factor) => self.scale_backward(x, factor, dy),
                Op::Concat(a, b) => self.concat_backward(a, b, dy),
                Op::Slice { x, start } => self.slice_backward(x, start, node.shape, dy),
                Op::MaskColumns { x, keep } => self.mask_columns_backward(x, keep, dy),
                Op::MoveRows { x, inverse } => {
                    self.move_rows_backward(x, inverse, node.shape, dy);
                }
                Op::RowLoss {
                    logits,
                    rows,
                    targets,
                    probs,
                    dims,
                } => {
                    self.row_loss_backward(logits, rows, targets, probs, dims, dy);
                }
                Op::Mse(x, t) => self.mse_backward(x, t, dy),
            }
            // Consumed: a later gradient may use its memory. A second backward pass through the same
            // node starts afresh.
            self.nodes[index].grad = None;
            if kept {
                self.give_gradient(dy);
            }
        }
    }
}
