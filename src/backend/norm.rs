//! The arguments of batch normalisation.

use super::{Backend, ConvBackward, View, ViewMut, Write};
use crate::shape::{Conv, Images};

/// The arguments of batch normalisation in training mode. Its input lies in memory, or is what a convolution is about to
/// put out ([`Convolved`]).
pub struct BatchNorm<'a, Buf, X = View<'a, Buf>> {
    /// Output, `rows x c`.
    pub y: ViewMut<'a, Buf>,
    /// Saved for the backward pass: the mean of each group, `groups x c`.
    pub mean: ViewMut<'a, Buf>,
    /// Saved for the backward pass: `1 / sqrt(variance + eps)`, `groups x c`.
    pub inv_std: ViewMut<'a, Buf>,
    /// Running mean and then running (unbiased) variance, `2 x c`; updated group after group.
    pub running: ViewMut<'a, Buf>,
    /// Input, `rows x c`.
    pub x: X,
    /// Scale, `c`.
    pub gamma: View<'a, Buf>,
    /// Shift, `c`.
    pub beta: View<'a, Buf>,
    /// Added to the result, `rows x c`.
    pub residual: Option<View<'a, Buf>>,
    /// The result goes through a ReLU at the end, after the residual was added.
    pub relu: bool,
}

impl<'a, Buf, X> BatchNorm<'a, Buf, X> {
    /// The same with another input, which `f` makes of this one.
    pub fn map_x<Y>(self, f: impl FnOnce(X) -> Y) -> BatchNorm<'a, Buf, Y> {
        BatchNorm {
            y: self.y,
            mean: self.mean,
            inv_std: self.inv_std,
            running: self.running,
            x: f(self.x),
            gamma: self.gamma,
            beta: self.beta,
            residual: self.residual,
            relu: self.relu,
        }
    }
}

/// The convolution that puts out the input of a batch normalisation, and where to.
pub struct Convolved<'a, Buf> {
    /// Output of the convolution.
    pub y: ViewMut<'a, Buf>,
    /// Its input.
    pub x: View<'a, Buf>,
    /// Its weight.
    pub w: View<'a, Buf>,
    /// The convolution.
    pub conv: Conv,
}

/// The gradient of the output of a batch normalisation, to read, or to read and to overwrite: what replaces it then
/// needs no memory of its own.
pub enum Upstream<R, W> {
    /// It stays.
    Kept(R),
    /// It becomes the gradient of the input, and `dx` is `None`.
    BecomesInput(W),
    /// It becomes the gradient of the residual, and `dresidual` is `None`.
    BecomesResidual(W),
}

/// The arguments of the backward pass of batch normalisation.
pub struct BatchNormBackward<'a, Buf> {
    /// Gradient of the input, if wanted apart from `dy`, and how to write it.
    pub dx: Option<(ViewMut<'a, Buf>, Write)>,
    /// Gradient of the scale and then of the shift, `2 x c`.
    pub dgamma_dbeta: ViewMut<'a, Buf>,
    /// Input of the forward pass.
    pub x: View<'a, Buf>,
    /// Gradient of the output.
    pub dy: Upstream<View<'a, Buf>, ViewMut<'a, Buf>>,
    /// Scale, `c`.
    pub gamma: View<'a, Buf>,
    /// Shift, `c`.
    pub beta: View<'a, Buf>,
    /// Mean of each group as saved, `groups x c`.
    pub mean: View<'a, Buf>,
    /// `1 / sqrt(variance + eps)` of each group as saved, `groups x c`.
    pub inv_std: View<'a, Buf>,
    /// Output of the forward pass if that had a ReLU: where it is not above 0, `dy` counts as 0.
    pub y: Option<View<'a, Buf>>,
    /// Whether a residual was added before the ReLU. If not, what is above 0 can be told from `x` as well.
    pub residual: bool,
    /// Gradient of the residual, if there was one and it is wanted apart from `dy`: `dy` with what the ReLU
    /// leaves of it.
    pub dresidual: Option<(ViewMut<'a, Buf>, Write)>,
}

/// [`Backend::batch_norm_backward_after`] in two passes.
///
/// # Panics
/// If the gradient of the output is [kept](Upstream::Kept).
pub(super) fn one_after_the_other<B: Backend>(
    backend: &B,
    first: ConvBackward<'_, B::Buf>,
    mut args: BatchNormBackward<'_, B::Buf>,
    images: Images,
    groups: &[usize],
    write: Write,
) {
    let dx = match &mut args.dy {
        Upstream::BecomesInput(dy) | Upstream::BecomesResidual(dy) => dy.reborrow(),
        Upstream::Kept(_) => unreachable!("what is computed here can be written"),
    };
    backend.conv2d_backward(dx, first);
    backend.batch_norm_backward(args, images, groups, write);
}

/// [`Backend::batch_norm_after`] in two passes.
pub(super) fn convolved_first<B: Backend>(
    backend: &B,
    args: BatchNorm<'_, B::Buf, Convolved<'_, B::Buf>>,
    images: Images,
    groups: &[usize],
    eps: f32,
    momentum: f32,
) {
    let args = args.map_x(|mut first| {
        backend.conv2d(first.y.reborrow(), first.x, first.w, first.conv);
        first.y.into()
    });
    backend.batch_norm(args, images, groups, eps, momentum);
}
