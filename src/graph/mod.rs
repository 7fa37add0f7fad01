//! The record of one step: nodes, their memory, the parameters. Bookkeeping only; what an operation
//! computes, and its derivative, is written in [`ops`](crate::ops).
//!
//! A node's inputs always have a smaller index than the node, so index order is topological order
//! and the backward pass is one loop from the last node to the first.

mod arena;
mod bytes;
mod deferred;
mod inner;
mod macs;
mod masks;
mod node;
mod outcomes;
mod params;
mod room;

pub(crate) use arena::{Arena, Block, Lent};
pub(crate) use bytes::multiply;
pub(crate) use deferred::Deferred;
pub use macs::MultiplyAdds;
pub use masks::MaskId;
pub(crate) use masks::Masks;
pub(crate) use node::{Held, Node, Op, Order};
pub use node::{Norm, Var};
use outcomes::Outcomes;
pub use params::{BufferId, ParamId, ParamLayout};
pub(crate) use params::{Params, Pending};

use crate::backend::{Backend, Elem, SgdStep, SpatialLayout, Write};
use crate::error::Result;
use crate::pixels::PixelRow;
use crate::rng::TorchGenerator;
use crate::shape::Shape;

/// What a step is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Dropout active, batch statistics, gradients.
    Train,
    /// No dropout, running statistics, nothing recorded for a backward pass.
    Eval,
    /// No dropout, running statistics, but gradients (for importance estimates).
    EvalWithGrad,
}

/// A recording of operations on one backend, with the parameters they use.
///
/// This is the engine below [`Tape`](crate::tape::Tape); use it directly to check gradients in f64 on
/// [`Reference`](crate::backend::reference::Reference).
pub struct Graph<B: Backend> {
    pub(crate) backend: B,
    pub(crate) nodes: Vec<Node>,
    pub(crate) arena: Arena<B>,
    pub(crate) params: Params<B>,
    pub(crate) masks: Masks,
    /// Host numbers on their way to the device; kept so that a step does not allocate.
    pub(crate) staging: Vec<B::Elem>,
    /// Values and gradient of a loss that is computed on the host, kept for the same reason.
    pub(crate) host: [Vec<f64>; 2],
    pub(crate) groups: Vec<usize>,
    pub(crate) mode: Mode,
    /// The run's generator, as PyTorch's global one: initial weights, shuffles and keys come from it.
    pub(crate) generator: TorchGenerator,
    outcomes: Outcomes<B>,
    deferred: Vec<Deferred>,
    pub(crate) dropouts: u32,
    /// Training steps begun, which keys the random numbers of dropout.
    pub(crate) train_steps: u64,
    step: u32,
}

impl<B: Backend> Graph<B> {
    /// An empty graph.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the backend has no memory.
    pub fn new(backend: B) -> Result<Self> {
        Ok(Graph {
            params: Params::new(&backend)?,
            backend,
            masks: Masks::default(),
            nodes: Vec::new(),
            arena: Arena::new(),
            staging: Vec::new(),
            host: Default::default(),
            groups: Vec::new(),
            mode: Mode::Eval,
            generator: TorchGenerator::manual_seed(0),
            outcomes: Outcomes::default(),
            deferred: Vec::new(),
            dropouts: 0,
            train_steps: 0,
            step: 0,
        })
    }

    /// Starts a step: forgets all values and gradients. Every [`Var`] of an earlier step is stale.
    pub fn begin(&mut self, mode: Mode) {
        self.end_step();
        self.groups.clear();
        self.params.zero_grad();
        self.params.fit(&self.backend);
        self.mode = mode;
        self.dropouts = 0;
        self.train_steps += u64::from(mode == Mode::Train);
    }

    /// Divides the batch of this step into groups of consecutive samples, each normalised by its
    /// own statistics in every batch normalisation of the step.
    pub fn set_groups(&mut self, sizes: &[usize]) {
        self.groups.clear();
        self.groups.extend(sizes.iter().filter(|&&n| n > 0));
    }

    /// A value from outside, in row order (`[N, C, H, W]` as PyTorch has it). `grad` asks for its
    /// gradient.
    ///
    /// # Panics
    /// If `values` has not the length of the shape.
    #[track_caller]
    pub fn input(&mut self, shape: Shape, values: &[B::Elem], grad: bool) -> Var {
        assert_eq!(
            shape.len(),
            values.len(),
            "input of shape {shape}: number of values"
        );
        let value = self.arena.take(&self.backend, values.len());
        let mut lent = self.arena.lend(value);
        self.backend.upload(lent.view(), values);
        self.arena.restore(lent);
        let needs_grad = grad && self.mode != Mode::Eval;
        self.push_leaf(Op::Input, shape, value, needs_grad)
    }

    /// A constant in row order that begins with `values` and goes on with rows made from stored bytes: see
    /// [`Backend::gather_pixels`]. Where the backend can, rows stay bytes until an operation wants numbers; a
    /// linear layer does not.
    ///
    /// # Panics
    /// If values and rows do not fill the shape.
    #[track_caller]
    pub fn pixels(&mut self, shape: Shape, values: &[B::Elem], rows: &[PixelRow]) -> Var {
        let (len, size) = (shape.len(), shape.len() / shape.dim(0).max(1));
        let fit = |row: &PixelRow| size.is_multiple_of(row.cutout.size.iter().product());
        assert!(
            values.len() + rows.len() * size == len && rows.iter().all(fit),
            "pixels of shape {shape}: {} values and {} rows",
            values.len(),
            rows.len()
        );
        let value = self.arena.take(&self.backend, len);
        if values.is_empty() && self.keep_bytes(value, rows) {
            return self.push_leaf(Op::Input, shape, value, false);
        }
        let mut lent = self.arena.lend(value);
        let mut y = lent.view();
        if !values.is_empty() {
            y.len = values.len();
            self.backend.upload(y.reborrow(), values);
        }
        y.offset += values.len();
        y.len = len - values.len();
        self.backend.gather_pixels(y, rows);
        self.arena.restore(lent);
        self.push_leaf(Op::Input, shape, value, false)
    }

    fn push_leaf(&mut self, op: Op, shape: Shape, value: Block, needs_grad: bool) -> Var {
        self.record(Node {
            op,
            shape,
            order: Order::Rows,
            value,
            grad: None,
            needs_grad,
            held: Held::Kept,
        })
    }

    /// Records a node.
    pub(crate) fn record(&mut self, node: Node) -> Var {
        self.nodes.push(node);
        self.var(self.nodes.len() - 1)
    }

    /// The value of node `index`.
    pub(crate) fn var(&self, index: usize) -> Var {
        Var {
            index: index as u32,
            step: self.step,
        }
    }

    /// Records the result of `op`, whose parents are `parents`; it has a gradient if one of them
    /// has, or if `own` says that the operation's own parameters want one.
    pub(crate) fn push(
        &mut self,
        op: Op,
        shape: Shape,
        order: Order,
        value: Block,
        parents: &[Var],
        own: bool,
    ) -> Var {
        let wanted = own || parents.iter().any(|&p| self.peek(p).needs_grad);
        let needs_grad = wanted && self.mode != Mode::Eval;
        self.record(Node {
            op,
            shape,
            order,
            value,
            grad: None,
            needs_grad,
            held: Held::Kept,
        })
    }

    /// Whether one of these parameters is to be trained.
    pub(crate) fn trains(&self, params: &[Option<ParamId>]) -> bool {
        params.iter().flatten().any(|&p| self.params.trainable(p))
    }

    /// The node of `v`, whose value may then be read.
    ///
    /// # Panics
    /// If `v` belongs to an earlier step.
    #[track_caller]
    pub(crate) fn node(&mut self, v: Var) -> Node {
        let node = self.peek(v);
        self.look_up(node.value);
        node
    }

    /// The node of `v`, whose value may still be bytes.
    ///
    /// # Panics
    /// If `v` belongs to an earlier step.
    #[track_caller]
    pub(crate) fn peek(&self, v: Var) -> Node {
        assert_eq!(
            v.step, self.step,
            "a Var of an earlier step was used: begin(), or a parameter of another shape, ended it"
        );
        self.nodes[v.index as usize]
    }

    /// Whether `v` belongs to the running step.
    pub(crate) fn is_live(&self, v: Var) -> bool {
        v.step == self.step
    }

    /// The shape of a value.
    #[track_caller]
    pub fn shape(&self, v: Var) -> Shape {
        self.peek(v).shape
    }

    /// A new block of `len` numbers, lent for writing.
    pub(crate) fn output(&mut self, len: usize) -> (Block, Lent<B::Buf>) {
        let block = self.arena.take(&self.backend, len);
        (block, self.arena.lend(block))
    }

    /// A new block that holds what lies in `staging`.
    pub(crate) fn staged(&mut self) -> Block {
        let (block, mut lent) = self.output(self.staging.len());
        self.backend.upload(lent.view(), &self.staging);
        self.arena.restore(lent);
        block
    }

    /// The gradient of `v`, lent for writing, and whether to set it or to add to it; `None` if
    /// nobody wants it.
    pub(crate) fn grad_of(&mut self, v: Var) -> Option<(Lent<B::Buf>, Write)> {
        let node = self.peek(v);
        if !node.needs_grad {
            return None;
        }
        self.settle(v);
        let (block, write) = match node.grad {
            Some(block) => (block, Write::Add),
            None => {
                let block = self.arena.take(&self.backend, node.shape.len());
                self.nodes[v.index as usize].grad = Some(block);
                (block, Write::Set)
            }
        };
        Some((self.arena.lend(block), write))
    }

    /// Makes `block`, the gradient of a node that is about to be consumed, the gradient of `v`, if that is wanted and
    /// has none yet; returns whether it did. Whoever calls this puts the numbers there.
    pub(crate) fn take_over(&mut self, v: Var, block: Block) -> bool {
        let node = self.peek(v);
        let fits = node.needs_grad && node.grad.is_none();
        if fits {
            self.nodes[v.index as usize].grad = Some(block);
        }
        fits
    }

    /// How the next gradient of a parameter is written, see [`Params::write`].
    pub(crate) fn write_of(&mut self, id: ParamId) -> Option<Write> {
        self.params.write(&self.backend, &mut self.arena, id)
    }

    /// Puts the gradient `seed` on `root` and returns its index, for the backward loop.
    #[track_caller]
    pub(crate) fn seed(&mut self, root: Var) -> Option<usize> {
        let node = self.peek(root);
        assert_eq!(
            node.shape.len(),
            1,
            "backward starts at one number, not at {}",
            node.shape
        );
        let (mut lent, _) = self.grad_of(root)?;
        self.backend.fill(lent.view(), B::Elem::from_f64(1.0));
        self.arena.restore(lent);
        Some(root.index as usize)
    }

    /// The values of `v` in row order.
    #[track_caller]
    pub fn read(&self, v: Var) -> Vec<B::Elem> {
        let node = self.peek(v);
        match self.read_bytes(node.value) {
            Some(values) => values,
            None => self.read_block(node.value, node),
        }
    }

    /// The gradient of an input of this step in row order, after the backward pass; `None` if it
    /// has none. Gradients of other values are recycled during the pass.
    #[track_caller]
    pub fn read_grad(&self, v: Var) -> Option<Vec<B::Elem>> {
        let node = self.peek(v);
        assert!(
            matches!(node.op, Op::Input),
            "only an input keeps its gradient"
        );
        node.grad.map(|block| self.read_block(block, node))
    }

    /// The values of `v` where they lie, if that is host memory and row order.
    #[track_caller]
    pub fn host(&self, v: Var) -> Option<&[B::Elem]> {
        let node = self.peek(v);
        let len = node.shape.len();
        let view = self.arena.range(node.value, 0, len);
        (node.order == Order::Rows && self.arena.only_bytes(node.value).is_none())
            .then(|| self.backend.host(view))
            .flatten()
    }

    /// Copies the first numbers of `v` as they lie; for a loss this is `[total, current, logits,
    /// replay]`.
    #[track_caller]
    pub(crate) fn read_raw<const N: usize>(&self, v: Var) -> [B::Elem; N] {
        let mut out = [B::Elem::default(); N];
        self.backend
            .download(self.arena.range(self.peek(v).value, 0, N), &mut out);
        out
    }

    fn read_block(&self, block: Block, node: Node) -> Vec<B::Elem> {
        let mut raw = vec![B::Elem::default(); node.shape.len()];
        self.backend
            .download(self.arena.range(block, 0, raw.len()), &mut raw);
        if node.order == Order::Rows {
            return raw;
        }
        let images = node.shape.images();
        let layout = SpatialLayout::new(images, B::BATCH_BLOCK);
        let mut out = Vec::with_capacity(raw.len());
        for n in 0..images.n {
            for c in 0..images.c {
                for y in 0..images.h {
                    out.extend((0..images.w).map(|x| raw[layout.index(n, y, x) + c]));
                }
            }
        }
        out
    }

    /// Adds a parameter with initial values in PyTorch's order.
    ///
    /// # Panics
    /// If the name is taken or the number of values does not fit.
    #[track_caller]
    pub fn parameter(&mut self, name: &str, layout: ParamLayout, init: &[B::Elem]) -> ParamId {
        self.params.add(&self.backend, name, layout, init, false)
    }

    /// Gives a parameter another name, layout and values (in PyTorch's order): what replacing a
    /// layer by another does. Ends the step: every [`Var`] is stale and gradients are forgotten.
    /// The id stays valid, the momentum of the parameter is dropped, all others keep theirs.
    ///
    /// # Panics
    /// If another parameter has this name or the number of values does not fit.
    #[track_caller]
    pub fn replace_parameter(
        &mut self,
        id: ParamId,
        name: &str,
        layout: ParamLayout,
        values: &[B::Elem],
    ) {
        self.end_step();
        self.params.replace(&self.backend, id, name, layout, values);
    }

    /// Grows a parameter: `fresh` holds the values of a newly initialised one of the layout
    /// `layout`, over which the numbers it has now are copied. Otherwise as
    /// [`replace_parameter`](Self::replace_parameter).
    ///
    /// # Panics
    /// If a dimension would shrink or the number of values does not fit.
    #[track_caller]
    pub fn grow_parameter(&mut self, id: ParamId, layout: ParamLayout, fresh: &[B::Elem]) {
        self.end_step();
        self.params.grow(&self.backend, id, layout, fresh);
    }

    /// Forgets the values of the step; what was recorded with the old shapes must not be used.
    fn end_step(&mut self) {
        self.nodes.clear();
        self.deferred.clear();
        self.arena.rewind();
        self.step = self.step.wrapping_add(1);
    }

    /// Adds the scale (ones), shift (zeros) and running statistics of a batch normalisation over
    /// `channels` channels, named as in PyTorch.
    #[track_caller]
    pub fn norm(&mut self, name: &str, channels: usize, eps: f32, momentum: f32) -> Norm {
        let layout = ParamLayout::Plain(Shape::new(&[channels]));
        let (ones, zeros) = (
            vec![B::Elem::from_f64(1.0); channels],
            vec![B::Elem::default(); channels],
        );
        let gamma = self.parameter(&format!("{name}.weight"), layout, &ones);
        let beta = self
            .params
            .add(&self.backend, &format!("{name}.bias"), layout, &zeros, true);
        let running = self.params.add_running(&self.backend, name, channels);
        Norm {
            gamma,
            beta,
            running,
            eps,
            momentum,
        }
    }

    /// One step of SGD with the gradients of this step. See [`Backend::sgd`].
    pub fn sgd(&mut self, step: SgdStep) {
        self.params.sgd(&self.backend, &mut self.arena, step);
    }
}
