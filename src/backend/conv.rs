//! The arguments of the backward pass of a convolution.

use super::{Backend, Dst, View, ViewMut, Write};
use crate::shape::Conv;

/// The arguments of the gradients of a convolution.
pub struct ConvBackward<'a, Buf> {
    /// Gradient of the output.
    pub dy: View<'a, Buf>,
    /// The weight.
    pub w: View<'a, Buf>,
    /// The convolution.
    pub conv: Conv,
    /// How the gradient of the input is written.
    pub write: Write,
    /// The gradient of the weight, if it is wanted.
    pub weight: Option<WeightGradient<'a, Buf>>,
}

/// What the gradient of the weight of a convolution needs more, and where it goes.
pub struct WeightGradient<'a, Buf> {
    /// The input of the convolution.
    pub x: View<'a, Buf>,
    /// The gradient, which is set.
    pub dw: ViewMut<'a, Buf>,
}

/// [`Backend::conv2d_backward`] in two passes.
pub(super) fn one_after_the_other<B: Backend>(
    backend: &B,
    dx: Dst<'_, B>,
    args: ConvBackward<'_, B::Buf>,
) {
    if let Some(WeightGradient { x, dw }) = args.weight {
        backend.conv2d_backward_weight(dw, x, args.dy, args.conv, Write::Set);
    }
    backend.conv2d_backward_data(dx, args.dy, args.w, args.conv, args.write);
}
