//! Parameters, gradients and momentum as three flat buffers with named offsets, and the running
//! statistics beside them.
//!
//! One fill clears all gradients, one pass is a step of SGD, one write is a checkpoint. Names and
//! the order of numbers at the edge are those of PyTorch's state dict; inside, weights lie as the
//! kernels want them ([`ParamLayout`]).

mod flat;
mod memory;
mod momentum;
mod pending;
mod replace;

use memory::grow;
pub(crate) use pending::Pending;

use super::Arena;
use crate::backend::{Backend, Elem, SgdStep, View, ViewMut, Write};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// A parameter of the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ParamId(u32);

/// A pair of running statistics (mean and variance) of the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BufferId(u32);

/// How a parameter is stored, and what it looks like in PyTorch's state dict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamLayout {
    /// Stored as it looks.
    Plain(Shape),
    /// A linear layer's weight: `[out, in]` in PyTorch, stored `[in][out]`.
    Linear {
        /// Columns of the input.
        inputs: usize,
        /// Columns of the output.
        outputs: usize,
    },
    /// A convolution's weight: `[out, in, kh, kw]` in PyTorch, stored `[kh][kw][in][out]`.
    Conv {
        /// Output channels.
        outputs: usize,
        /// Input channels.
        inputs: usize,
        /// Rows and columns of the kernel.
        kernel: [usize; 2],
    },
}

impl ParamLayout {
    /// The shape in PyTorch's state dict.
    pub fn shape(&self) -> Shape {
        match *self {
            ParamLayout::Plain(shape) => shape,
            ParamLayout::Linear { inputs, outputs } => Shape::new(&[outputs, inputs]),
            ParamLayout::Conv {
                outputs,
                inputs,
                kernel: [kh, kw],
            } => Shape::new(&[outputs, inputs, kh, kw]),
        }
    }

    /// For number `i` of PyTorch's order, its place in storage.
    pub(crate) fn stored_at(&self, i: usize) -> usize {
        match *self {
            ParamLayout::Plain(_) => i,
            ParamLayout::Linear { inputs, outputs } => i % inputs * outputs + i / inputs,
            ParamLayout::Conv {
                outputs,
                inputs,
                kernel: [kh, kw],
            } => {
                let taps = kh * kw;
                let (tap, channel) = (i % taps, i / taps);
                (tap * inputs + channel % inputs) * outputs + channel / inputs
            }
        }
    }

    fn to_storage<E: Elem>(self, torch: &[E]) -> Vec<E> {
        let mut out = vec![E::default(); torch.len()];
        for (i, &x) in torch.iter().enumerate() {
            out[self.stored_at(i)] = x;
        }
        out
    }

    fn to_torch<E: Elem>(self, stored: &[E]) -> Vec<E> {
        (0..stored.len())
            .map(|i| stored[self.stored_at(i)])
            .collect()
    }
}

struct Param {
    name: String,
    layout: ParamLayout,
    offset: usize,
    len: usize,
    /// Lies right behind the parameter before it, without alignment.
    adjacent: bool,
    trainable: bool,
    /// A gradient was written in this step.
    written: bool,
    /// The momentum buffer holds a value.
    has_momentum: bool,
}

struct Running {
    name: String,
    offset: usize,
    channels: usize,
    batches: u64,
}

/// All parameters and running statistics of the models on a tape.
pub(crate) struct Params<B: Backend> {
    values: B::Buf,
    grads: B::Buf,
    momentum: B::Buf,
    running: B::Buf,
    /// Room for other values and running statistics, and for what is added to the gradients.
    spare: [B::Buf; 2],
    len: usize,
    running_len: usize,
    params: Vec<Param>,
    buffers: Vec<Running>,
    /// The gradient that is still a product.
    pending: Option<Pending>,
    /// The values may have room for more parameters.
    roomy: bool,
}

/// Offsets are rounded up to this many numbers (64 bytes of f32), so that a parameter starts on a
/// cache line.
const ALIGN: usize = 16;

impl<B: Backend> Params<B> {
    pub fn new(backend: &B) -> Result<Self> {
        Ok(Params {
            values: backend.alloc(0)?,
            grads: backend.alloc(0)?,
            momentum: backend.alloc(0)?,
            running: backend.alloc(0)?,
            spare: [backend.alloc(0)?, backend.alloc(0)?],
            len: 0,
            running_len: 0,
            params: Vec::new(),
            buffers: Vec::new(),
            pending: None,
            roomy: false,
        })
    }

    /// Adds a parameter; `init` is in PyTorch's order. `adjacent` puts it right behind the last
    /// one, without alignment.
    #[track_caller]
    pub fn add(
        &mut self,
        backend: &B,
        name: &str,
        layout: ParamLayout,
        init: &[B::Elem],
        adjacent: bool,
    ) -> ParamId {
        assert_eq!(
            init.len(),
            layout.shape().len(),
            "parameter {name}: initial values"
        );
        self.demand_free_name(name, None);
        let offset = replace::place(self.len, adjacent);
        let len = init.len();
        grow(backend, &mut self.values, self.len, offset + len);
        self.len = offset + len;
        self.roomy = true;
        let dst = ViewMut {
            buf: &mut self.values,
            offset,
            len,
        };
        backend.upload(dst, &layout.to_storage(init));
        self.params.push(Param {
            name: name.to_string(),
            layout,
            offset,
            len,
            adjacent,
            trainable: true,
            written: false,
            has_momentum: false,
        });
        ParamId(self.params.len() as u32 - 1)
    }

    /// Panics if a parameter other than `except` has this name.
    #[track_caller]
    fn demand_free_name(&self, name: &str, except: Option<ParamId>) {
        assert!(
            (self.ids()).all(|id| Some(id) == except || self.name(id) != name),
            "parameter {name} exists already: give each layer a name of its own"
        );
    }

    /// Adds running statistics of `channels` channels: mean 0, variance 1.
    pub fn add_running(&mut self, backend: &B, name: &str, channels: usize) -> BufferId {
        let offset = self.running_len;
        grow(backend, &mut self.running, offset, offset + 2 * channels);
        self.running_len += 2 * channels;
        let variance = ViewMut {
            buf: &mut self.running,
            offset: offset + channels,
            len: channels,
        };
        backend.fill(variance, B::Elem::from_f64(1.0));
        self.buffers.push(Running {
            name: name.to_string(),
            offset,
            channels,
            batches: 0,
        });
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// The ids of all parameters, in order of creation.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<B> {
        (0..self.params.len() as u32).map(ParamId)
    }

    /// The ids of all running statistics, in order of creation.
    pub fn buffer_ids(&self) -> impl Iterator<Item = BufferId> + use<B> {
        (0..self.buffers.len() as u32).map(BufferId)
    }

    fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0 as usize]
    }

    pub fn name(&self, id: ParamId) -> &str {
        &self.param(id).name
    }

    pub fn layout(&self, id: ParamId) -> ParamLayout {
        self.param(id).layout
    }

    pub fn trainable(&self, id: ParamId) -> bool {
        self.param(id).trainable
    }

    pub fn set_trainable(&mut self, id: ParamId, trainable: bool) {
        self.params[id.0 as usize].trainable = trainable;
    }

    pub fn value(&self, id: ParamId) -> View<'_, B::Buf> {
        let p = self.param(id);
        View {
            buf: &self.values,
            offset: p.offset,
            len: p.len,
        }
    }

    /// Values for reading and the gradient for writing, which are different buffers.
    pub fn grad(&mut self, id: ParamId) -> ViewMut<'_, B::Buf> {
        let p = &self.params[id.0 as usize];
        ViewMut {
            buf: &mut self.grads,
            offset: p.offset,
            len: p.len,
        }
    }

    /// Two parameters that lie side by side (`beta` was added as adjacent to `gamma`) and any other, and the gradients
    /// of the two.
    pub fn adjacent(
        &mut self,
        gamma: ParamId,
        beta: ParamId,
        other: ParamId,
    ) -> ([View<'_, B::Buf>; 3], ViewMut<'_, B::Buf>) {
        let (first, second) = (self.param(gamma), self.param(beta));
        assert_eq!(
            first.offset + first.len,
            second.offset,
            "scale and shift lie side by side"
        );
        let other = self.param(other);
        let (offset, len) = (first.offset, first.len);
        let value = |offset, len| View {
            buf: &self.values,
            offset,
            len,
        };
        (
            [
                value(offset, len),
                value(offset + len, len),
                value(other.offset, other.len),
            ],
            ViewMut {
                buf: &mut self.grads,
                offset,
                len: 2 * len,
            },
        )
    }

    /// How the next gradient of `id` is written, or `None` if it is frozen. Marks it as written. A product
    /// that is pending is no longer.
    pub fn write(&mut self, backend: &B, arena: &mut Arena<B>, id: ParamId) -> Option<Write> {
        if self.pending.is_some_and(|p| p.weight == id) {
            self.settle(backend, arena);
        }
        let p = &mut self.params[id.0 as usize];
        let write = if p.written { Write::Add } else { Write::Set };
        p.trainable.then(|| {
            p.written = true;
            write
        })
    }

    /// Forgets the gradients of the last step.
    pub fn zero_grad(&mut self) {
        self.params.iter_mut().for_each(|p| p.written = false);
        self.pending = None;
    }

    /// Running mean and variance, for writing.
    pub fn running(&mut self, id: BufferId) -> ViewMut<'_, B::Buf> {
        let b = &self.buffers[id.0 as usize];
        ViewMut {
            buf: &mut self.running,
            offset: b.offset,
            len: 2 * b.channels,
        }
    }

    /// Everything a batch normalisation reads and writes beside its activations: scale, shift and
    /// running statistics; and any other parameter.
    pub fn norm(
        &mut self,
        gamma: ParamId,
        beta: ParamId,
        running: BufferId,
        other: ParamId,
    ) -> ([View<'_, B::Buf>; 3], ViewMut<'_, B::Buf>) {
        let r = &self.buffers[running.0 as usize];
        let value = |id: ParamId| {
            let p = &self.params[id.0 as usize];
            View {
                buf: &self.values,
                offset: p.offset,
                len: p.len,
            }
        };
        (
            [value(gamma), value(beta), value(other)],
            ViewMut {
                buf: &mut self.running,
                offset: r.offset,
                len: 2 * r.channels,
            },
        )
    }

    pub fn count_batch(&mut self, id: BufferId, groups: usize) {
        self.buffers[id.0 as usize].batches += groups as u64;
    }

    /// Name, channels and number of batches seen of running statistics.
    pub fn buffer(&self, id: BufferId) -> (&str, usize, u64) {
        let b = &self.buffers[id.0 as usize];
        (&b.name, b.channels, b.batches)
    }

    /// Running mean and then variance.
    pub fn read_running(&self, backend: &B, id: BufferId) -> Vec<B::Elem> {
        let b = &self.buffers[id.0 as usize];
        let mut out = vec![B::Elem::default(); 2 * b.channels];
        backend.download(
            View {
                buf: &self.running,
                offset: b.offset,
                len: out.len(),
            },
            &mut out,
        );
        out
    }

    /// Overwrites running mean and then variance, and the number of batches seen.
    pub fn write_running(&mut self, backend: &B, id: BufferId, values: &[B::Elem], batches: u64) {
        backend.upload(self.running(id), values);
        self.buffers[id.0 as usize].batches = batches;
    }

    /// The values in PyTorch's order.
    pub fn read(&self, backend: &B, id: ParamId) -> Vec<B::Elem> {
        self.read_from(backend, &self.values, id)
    }

    /// The gradient in PyTorch's order, or `None` if nothing has written it in this step.
    pub fn read_grad(&self, backend: &B, arena: &Arena<B>, id: ParamId) -> Option<Vec<B::Elem>> {
        let p = self.param(id);
        p.written.then(|| {
            let mut stored = vec![B::Elem::default(); p.len];
            self.copy_grad(backend, arena, id, &mut stored);
            p.layout.to_torch(&stored)
        })
    }

    fn read_from(&self, backend: &B, buf: &B::Buf, id: ParamId) -> Vec<B::Elem> {
        let p = self.param(id);
        let mut stored = vec![B::Elem::default(); p.len];
        backend.download(
            View {
                buf,
                offset: p.offset,
                len: p.len,
            },
            &mut stored,
        );
        p.layout.to_torch(&stored)
    }

    /// Overwrites the values; `torch` is in PyTorch's order.
    ///
    /// # Errors
    /// [`Error::StateDict`] if the number of values differs.
    pub fn write_values(&mut self, backend: &B, id: ParamId, torch: &[B::Elem]) -> Result<()> {
        let stored = self.fitting(id, torch)?;
        let Param { offset, len, .. } = *self.param(id);
        backend.upload(
            ViewMut {
                buf: &mut self.values,
                offset,
                len,
            },
            &stored,
        );
        Ok(())
    }

    fn fitting(&self, id: ParamId, torch: &[B::Elem]) -> Result<Vec<B::Elem>> {
        let p = self.param(id);
        if torch.len() != p.len {
            return Err(Error::StateDict(format!(
                "parameter {}: expected {} numbers of shape {}, found {}; was it saved from \
                 another model?",
                p.name,
                p.len,
                p.layout.shape(),
                torch.len()
            )));
        }
        Ok(p.layout.to_storage(torch))
    }

    /// One step of SGD over the parameters whose gradient was written in this step; the others are
    /// left alone, as PyTorch leaves parameters without a gradient. Consecutive parameters in the
    /// same state go in one pass, which is nearly always the whole model but for a gradient that is still
    /// a product.
    pub fn sgd(&mut self, backend: &B, arena: &mut Arena<B>, mut step: SgdStep) {
        let done = (self.descend(backend, arena, step)).map(|id| id.0 as usize);
        let keeps = step.momentum != 0.0;
        if keeps {
            self.make_room_for_momentum(backend);
        }
        let mut next = 0;
        while next < self.params.len() {
            let state = |i: usize| {
                let p = &self.params[i];
                (p.written && p.trainable && done != Some(i), p.has_momentum)
            };
            let run = state(next);
            let mut end = next;
            while end < self.params.len() && state(end) == run {
                end += 1;
            }
            let offset = self.params[next].offset;
            let last = &self.params[end - 1];
            let len = last.offset + last.len - offset;
            if run.0 {
                step.first = !run.1;
                backend.sgd(
                    ViewMut {
                        buf: &mut self.values,
                        offset,
                        len,
                    },
                    View {
                        buf: &self.grads,
                        offset,
                        len,
                    },
                    ViewMut {
                        buf: &mut self.momentum,
                        offset: if keeps { offset } else { 0 },
                        len: if keeps { len } else { 0 },
                    },
                    step,
                );
                self.params[next..end]
                    .iter_mut()
                    .for_each(|p| p.has_momentum = keeps);
            }
            next = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_order_is_a_permutation_that_undoes_itself() {
        for layout in [
            ParamLayout::Plain(Shape::new(&[2, 3])),
            ParamLayout::Linear {
                inputs: 3,
                outputs: 4,
            },
            ParamLayout::Conv {
                outputs: 4,
                inputs: 3,
                kernel: [2, 5],
            },
        ] {
            let torch: Vec<f32> = (0..layout.shape().len()).map(|i| i as f32).collect();
            assert_eq!(layout.to_torch(&layout.to_storage(&torch)), torch);
        }
        let conv = ParamLayout::Conv {
            outputs: 2,
            inputs: 3,
            kernel: [1, 2],
        };
        // out 1, in 2, tap 1 is the last number in PyTorch and in storage.
        assert_eq!(conv.stored_at(11), 11);
        // out 1, in 0, tap 0: first tap, first input, second output.
        assert_eq!(conv.stored_at(6), 1);
    }
}
