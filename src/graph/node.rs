//! What the tape is made of: a closed list of operations holding ids and scalars, never tensors.

use super::arena::Block;
use super::params::{BufferId, ParamId};
use crate::backend::{DropoutMask, RowLoss};
use crate::shape::{Conv, Pool, Shape};

/// A value recorded on the tape in the current step. Copying it copies an index: there is nothing
/// to drop and nothing to borrow. Using it after the next [`begin`](super::Graph::begin) panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Var {
    pub(super) index: u32,
    pub(super) step: u32,
}

/// How the numbers of a `[N, C, H, W]` value lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Sample after sample in CHW order; the only order of values of rank 0 to 2.
    Rows,
    /// The backend's own order, see [`backend`](crate::backend#layout).
    Spatial,
}

/// One recorded operation and where its result lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub shape: Shape,
    pub order: Order,
    pub value: Block,
    pub grad: Option<Block>,
    pub needs_grad: bool,
    pub held: Held,
}

/// How long the value of a node is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// To the end of the step.
    Kept,
    /// Until the backward pass of the one operation that has it.
    Inner,
    /// No longer.
    Gone,
}

/// Every operation of the engine. Its mathematics lies in [`ops`](crate::ops), one file each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Input,
    Weight(ParamId),
    Reshape(Var),
    ToRows(Var),
    ToSpatial(Var),
    MatMul(Var, Var),
    Linear {
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
    },
    Conv2d {
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        conv: Conv,
    },
    BatchNorm {
        x: Var,
        norm: Norm,
        mean: Block,
        inv_std: Block,
        train: bool,
        /// Added before the ReLU.
        residual: Option<Var>,
        relu: bool,
    },
    Relu(Var),
    Tanh(Var),
    Dropout {
        x: Var,
        mask: DropoutMask,
    },
    MaxPool {
        x: Var,
        pool: Pool,
    },
    AvgPool {
        x: Var,
        pool: Pool,
    },
    Add(Var, Var),
    Scale(Var, f32),
    Concat(Var, Var),
    Slice {
        x: Var,
        start: u32,
    },
    MaskColumns {
        x: Var,
        keep: Block,
    },
    MoveRows {
        x: Var,
        inverse: Block,
    },
    RowLoss {
        logits: Var,
        rows: Block,
        targets: Option<Block>,
        probs: Block,
        dims: RowLoss,
    },
    Mse(Var, Var),
    HostLoss {
        x: Var,
        slope: Block,
    },
}

/// The parameters and running statistics of a batch normalisation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    /// Scale.
    pub gamma: ParamId,
    /// Shift; created right after `gamma`, so that both lie side by side.
    pub beta: ParamId,
    /// Running mean and variance.
    pub running: BufferId,
    /// Added to the variance before the square root.
    pub eps: f32,
    /// Weight of the new batch in the running statistics.
    pub momentum: f32,
}
