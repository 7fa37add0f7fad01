//! The one door to the engine: everything below this module is generic over the backend, nothing
//! above it is.

use crate::backend::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::backend::cuda::{self, Cuda};
use crate::backend::reference::Reference;
use crate::backend::{Backend, Elem, SgdStep};
use crate::error::{Error, Result};
use crate::pixels::PixelRow;
use crate::rng::TorchGenerator;
use crate::shape::{Shape, Window};
use ndarray::{ArrayD, CowArray, IxDyn};
use std::borrow::Cow;
use std::ops::Range;

pub use crate::backend::{Precision, argmax};
pub use crate::graph::{
    BufferId, Graph, MaskId, Mode, MultiplyAdds, Norm, ParamId, ParamLayout, Var,
};
pub use crate::ops::{DerLoss, LossRows};

/// Where a tape computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// The processor, in f32, on the kernels it has.
    #[default]
    Cpu,
    /// Plain loops in f64: slow, and obviously right. For checking a model's gradients.
    Reference,
    /// The NVIDIA GPU of this number, in f32. Needs the crate's feature `cuda`.
    Cuda(usize),
}

impl Device {
    /// The first GPU if there is one that this build can use, otherwise the processor.
    pub fn fastest() -> Device {
        #[cfg(feature = "cuda")]
        if cuda::available() {
            return Device::Cuda(0);
        }
        Device::Cpu
    }
}

/// A tape records operations, runs them, and differentiates them. It owns the parameters of the
/// models built on it and the generator that everything random in a run draws from.
///
/// A step begins with [`begin`](Self::begin), which forgets all values of the step before; a warm
/// step allocates no memory. A shape that does not fit is a bug of the caller and panics, naming the
/// operation and both shapes.
///
/// ```
/// use unforget::tape::{Device, Mode, Tape};
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// tape.begin(Mode::Train);
/// let x = tape.variable(&[1, 2], &[3.0, -4.0]);
/// let y = tape.relu(x);
/// let loss = tape.mse(y, x);
/// tape.backward(loss);
/// assert_eq!(tape.item(loss), 8.0); // (0² + 4²) / 2
/// # Ok::<(), unforget::Error>(())
/// ```
#[cfg_attr(
    feature = "cuda",
    expect(
        clippy::large_enum_variant,
        reason = "a run has one tape, which is hardly ever moved"
    )
)]
pub enum Tape {
    /// On the processor.
    Cpu(Graph<Cpu>),
    /// On the oracle.
    Reference(Graph<Reference<f64>>),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Graph<Cuda>),
}

macro_rules! on {
    ($tape:expr, $graph:ident => $call:expr) => {
        match $tape {
            Tape::Cpu($graph) => $call,
            Tape::Reference($graph) => $call,
            #[cfg(feature = "cuda")]
            Tape::Cuda($graph) => $call,
        }
    };
}

mod outcomes;
mod parameters;
mod state;
mod threads;
mod weights;

pub use threads::Awake;
pub use weights::{Flat, Weights};

impl Tape {
    /// A tape on `device`, its generator seeded with 0.
    ///
    /// # Errors
    /// [`Error::Device`] when the device cannot be used.
    pub fn new(device: Device) -> Result<Self> {
        Ok(match device {
            Device::Cpu => Tape::Cpu(Graph::new(Cpu::default())?),
            Device::Reference => Tape::Reference(Graph::new(Reference::default())?),
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => Tape::Cuda(Graph::new(Cuda::new(ordinal)?)?),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => {
                return Err(Error::Device(
                    "this unforget was built without CUDA: build it with `cargo build --release \
                     --features cuda`, or use --device cpu"
                        .into(),
                ));
            }
        })
    }

    /// How matrix products and convolutions multiply from now on.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has no such precision: [`Precision::Tf32`] is a GPU's,
    /// [`Precision::High`] a CPU's, and the reference has only its own. A CPU without the instructions for
    /// one of its precisions computes in f32 and says so in a warning.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        match self {
            Tape::Cpu(g) => g.backend.set_precision(precision),
            #[cfg(feature = "cuda")]
            Tape::Cuda(_) if precision == Precision::High => Err(Error::Device(
                "the precision high is a CPU's: on a GPU use --precision tf32 or f32".into(),
            )),
            #[cfg(feature = "cuda")]
            Tape::Cuda(g) => {
                g.backend.set_precision(precision);
                Ok(())
            }
            Tape::Reference(_) if precision == Precision::Full => Ok(()),
            Tape::Reference(_) => Err(Error::Device(format!(
                "the reference computes in its own precision only, not in {precision:?}"
            ))),
        }
    }

    /// Seeds the generator of the run, as `torch.manual_seed`.
    pub fn manual_seed(&mut self, seed: u64) {
        *self.generator() = TorchGenerator::manual_seed(seed);
    }

    /// The generator of the run.
    pub fn generator(&mut self) -> &mut TorchGenerator {
        on!(self, g => &mut g.generator)
    }

    /// Runs `work` and turns running out of memory on the way into an error.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Device`] when the tape could not get memory.
    pub fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(result) => result,
            Err(payload) => match payload.downcast::<Error>() {
                Ok(error) => Err(*error),
                Err(bug) => std::panic::resume_unwind(bug),
            },
        }
    }

    // --- a step ------------------------------------------------------------------------------

    /// Starts a step: every [`Var`] of an earlier step is stale, all gradients are forgotten.
    pub fn begin(&mut self, mode: Mode) {
        on!(self, g => g.begin(mode));
    }

    /// What the running step is for.
    pub fn mode(&self) -> Mode {
        on!(self, g => g.mode)
    }

    /// See [`Graph::set_groups`].
    pub fn set_groups(&mut self, sizes: &[usize]) {
        on!(self, g => g.set_groups(sizes));
    }

    /// A constant of this shape, in PyTorch's order.
    #[track_caller]
    pub fn input(&mut self, dims: &[usize], values: &[f32]) -> Var {
        self.leaf(dims, values, false)
    }

    /// Whether the device has a memory of its own: then numbers are better read as seldom as can be.
    pub fn has_own_memory(&self) -> bool {
        fn has<B: Backend>(_: &Graph<B>) -> bool {
            B::OWN_MEMORY
        }
        on!(self, g => has(g))
    }

    /// Whether [`pixels`](Self::pixels) is better than making rows on the host.
    pub fn makes_rows(&self) -> bool {
        fn makes<B: Backend>(_: &Graph<B>) -> bool {
            B::MAKES_ROWS
        }
        on!(self, g => makes(g))
    }

    /// A constant of this shape, in PyTorch's order, that begins with `values` and goes on with rows made from
    /// stored bytes.
    #[track_caller]
    pub fn pixels(&mut self, dims: &[usize], values: &[f32], rows: &[PixelRow]) -> Var {
        on!(self, g => g.pixels(Shape::new(dims), &Elem::from_f32s(values), rows))
    }

    /// An input whose gradient is wanted.
    #[track_caller]
    pub fn variable(&mut self, dims: &[usize], values: &[f32]) -> Var {
        self.leaf(dims, values, true)
    }

    #[track_caller]
    fn leaf(&mut self, dims: &[usize], values: &[f32], grad: bool) -> Var {
        let shape = Shape::new(dims);
        on!(self, g => g.input(shape, &Elem::from_f32s(values), grad))
    }

    /// Computes all gradients of `loss`. See [`Graph::backward`].
    #[track_caller]
    pub fn backward(&mut self, loss: Var) {
        on!(self, g => g.backward(loss));
    }

    /// One step of SGD with the gradients of this step.
    pub fn sgd(&mut self, step: SgdStep) {
        on!(self, g => g.sgd(step));
    }

    // --- operations --------------------------------------------------------------------------

    /// See [`Graph::matmul`].
    #[track_caller]
    pub fn matmul(&mut self, a: Var, b: Var) -> Var {
        on!(self, g => g.matmul(a, b))
    }

    /// See [`Graph::linear`].
    #[track_caller]
    pub fn linear(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>) -> Var {
        on!(self, g => g.linear(x, weight, bias))
    }

    /// See [`Graph::weight`].
    pub fn weight(&mut self, id: ParamId) -> Var {
        on!(self, g => g.weight(id))
    }

    /// See [`Graph::conv2d`].
    #[track_caller]
    pub fn conv2d(
        &mut self,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Var {
        on!(self, g => g.conv2d(x, weight, bias, stride, padding))
    }

    /// See [`Graph::batch_norm`].
    #[track_caller]
    pub fn batch_norm(&mut self, x: Var, norm: Norm, frozen: bool) -> Var {
        on!(self, g => g.batch_norm(x, norm, frozen))
    }

    /// See [`Graph::batch_norm_relu`].
    #[track_caller]
    pub fn batch_norm_relu(
        &mut self,
        x: Var,
        norm: Norm,
        frozen: bool,
        residual: Option<Var>,
    ) -> Var {
        on!(self, g => g.batch_norm_relu(x, norm, frozen, residual))
    }

    /// See [`Graph::conv2d_batch_norm`].
    #[track_caller]
    #[expect(
        clippy::too_many_arguments,
        reason = "those of a convolution and of a normalisation"
    )]
    pub fn conv2d_batch_norm(
        &mut self,
        x: Var,
        weight: ParamId,
        stride: [usize; 2],
        padding: [usize; 2],
        norm: Norm,
        frozen: bool,
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        on!(self, g => g.conv2d_batch_norm(x, weight, stride, padding, norm, frozen, residual, relu))
    }

    /// See [`Graph::relu`].
    #[track_caller]
    pub fn relu(&mut self, x: Var) -> Var {
        on!(self, g => g.relu(x))
    }

    /// See [`Graph::tanh`].
    #[track_caller]
    pub fn tanh(&mut self, x: Var) -> Var {
        on!(self, g => g.tanh(x))
    }

    /// See [`Graph::dropout`].
    #[track_caller]
    pub fn dropout(&mut self, x: Var, p: f32) -> Var {
        on!(self, g => g.dropout(x, p))
    }

    /// See [`Graph::max_pool`].
    #[track_caller]
    pub fn max_pool(&mut self, x: Var, rows: Window, cols: Window) -> Var {
        on!(self, g => g.max_pool(x, rows, cols))
    }

    /// See [`Graph::avg_pool`].
    #[track_caller]
    pub fn avg_pool(&mut self, x: Var, rows: Window, cols: Window) -> Var {
        on!(self, g => g.avg_pool(x, rows, cols))
    }

    /// See [`Graph::flatten`].
    #[track_caller]
    pub fn flatten(&mut self, x: Var) -> Var {
        on!(self, g => g.flatten(x))
    }

    /// See [`Graph::reshape`].
    #[track_caller]
    pub fn reshape(&mut self, x: Var, dims: &[usize]) -> Var {
        on!(self, g => g.reshape(x, Shape::new(dims)))
    }

    /// See [`Graph::add`].
    #[track_caller]
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        on!(self, g => g.add(a, b))
    }

    /// See [`Graph::scale`].
    #[track_caller]
    pub fn scale(&mut self, x: Var, factor: f32) -> Var {
        on!(self, g => g.scale(x, factor))
    }

    /// See [`Graph::concat`].
    #[track_caller]
    pub fn concat(&mut self, a: Var, b: Var) -> Var {
        on!(self, g => g.concat(a, b))
    }

    /// The samples `range` of `x`. See [`Graph::slice`].
    #[track_caller]
    pub fn slice(&mut self, x: Var, range: Range<usize>) -> Var {
        on!(self, g => g.slice(x, range.start, range.len()))
    }

    /// See [`Graph::mask_columns`].
    #[track_caller]
    pub fn mask_columns(&mut self, x: Var, mask: MaskId, value: f32) -> Var {
        on!(self, g => g.mask_columns(x, mask, value))
    }

    /// See [`Graph::take_rows`].
    #[track_caller]
    pub fn take_rows(&mut self, x: Var, labels: &[u32], label: u32) -> Var {
        on!(self, g => g.take_rows(x, labels, label))
    }

    /// See [`Graph::put_rows`].
    #[track_caller]
    pub fn put_rows(&mut self, x: Var, labels: &[u32], label: u32, cols: usize) -> Var {
        on!(self, g => g.put_rows(x, labels, label, cols))
    }

    /// See [`Graph::cross_entropy`].
    #[track_caller]
    pub fn cross_entropy(&mut self, logits: Var, labels: &[u32]) -> Var {
        on!(self, g => g.cross_entropy(logits, labels))
    }

    /// See [`Graph::mse`].
    #[track_caller]
    pub fn mse(&mut self, x: Var, target: Var) -> Var {
        on!(self, g => g.mse(x, target))
    }

    /// A loss that `loss` computes outside of the engine, with its derivative. See
    /// [`Graph::host_loss`].
    ///
    /// ```
    /// use unforget::tape::{Device, Mode, Tape};
    ///
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// tape.begin(Mode::Train);
    /// let x = tape.variable(&[1, 2], &[3.0, -4.0]);
    /// let loss = tape.host_loss(x, |x, gradient| {
    ///     gradient.copy_from_slice(x);
    ///     x.iter().map(|x| x * x / 2.0).sum()
    /// });
    /// tape.backward(loss);
    /// assert_eq!((tape.item(loss), tape.grad(x).unwrap()[[0, 1]]), (12.5, -4.0));
    /// # Ok::<(), unforget::Error>(())
    /// ```
    #[track_caller]
    pub fn host_loss(&mut self, x: Var, loss: impl FnOnce(&[f64], &mut [f64]) -> f64) -> Var {
        on!(self, g => g.host_loss(x, loss))
    }

    /// See [`Graph::der_loss`].
    #[track_caller]
    pub fn der_loss(&mut self, logits: Var, loss: &DerLoss<'_>) -> Var {
        on!(self, g => g.der_loss(logits, loss))
    }

    /// See [`Graph::row_loss`].
    #[track_caller]
    pub fn row_loss(
        &mut self,
        logits: Var,
        rows: &LossRows<'_>,
        weights: impl FnMut(usize) -> (f64, f64),
    ) -> Var {
        on!(self, g => g.row_loss(logits, rows, weights))
    }

    /// See [`Graph::loss_terms`].
    #[track_caller]
    pub fn loss_terms(&self, loss: Var) -> [f32; 4] {
        on!(self, g => g.loss_terms(loss))
    }

    /// See [`Graph::multiply_adds`].
    #[track_caller]
    pub fn multiply_adds(&self, output: Var) -> MultiplyAdds {
        on!(self, g => g.multiply_adds(output))
    }

    // --- values ------------------------------------------------------------------------------

    /// The shape of a value.
    #[track_caller]
    pub fn shape(&self, v: Var) -> Shape {
        on!(self, g => g.shape(v))
    }

    /// The values of `v` in PyTorch's order: a view where memory allows, a copy otherwise.
    #[track_caller]
    pub fn value(&self, v: Var) -> CowArray<'_, f32, IxDyn> {
        let dims = self.dims(v);
        on!(self, g => match g.host(v).map(Elem::to_f32s) {
            Some(Cow::Borrowed(values)) => ndarray::ArrayViewD::from_shape(dims, values)
                .expect("fits")
                .into(),
            Some(Cow::Owned(values)) => array(dims, values).into(),
            None => array(dims, narrow(&g.read(v))).into(),
        })
    }

    /// The first number of `v`: the value of a loss.
    #[track_caller]
    pub fn item(&self, v: Var) -> f32 {
        on!(self, g => g.read_raw::<1>(v)[0].to_f32())
    }

    /// Copies the values of `v`, in PyTorch's order, into `out`, which is cleared first.
    #[track_caller]
    pub fn copy_into(&self, v: Var, out: &mut Vec<f32>) {
        out.clear();
        on!(self, g => match g.host(v) {
            Some(values) => out.extend_from_slice(&Elem::to_f32s(values)),
            None => out.extend_from_slice(&Elem::to_f32s(&g.read(v))),
        });
    }

    /// The gradient of a [`variable`](Self::variable) after the backward pass.
    #[track_caller]
    pub fn grad(&self, v: Var) -> Option<ArrayD<f32>> {
        let values = on!(self, g => g.read_grad(v).map(|x| narrow(&x)));
        values.map(|values| array(self.dims(v), values))
    }

    fn dims(&self, v: Var) -> Vec<usize> {
        let shape = self.shape(v);
        shape.dims()[..shape.rank()].to_vec()
    }
}

fn narrow<E: Elem>(values: &[E]) -> Vec<f32> {
    E::to_f32s(values).into_owned()
}

fn array(dims: Vec<usize>, values: Vec<f32>) -> ArrayD<f32> {
    ArrayD::from_shape_vec(dims, values).expect("a tensor holds as many numbers as its shape says")
}
