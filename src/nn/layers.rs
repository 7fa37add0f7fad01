//! Layers with parameters. Each takes the name that its parameters have in PyTorch's state dict.

use super::Module;
use super::init::{default_bound, uniform};
use crate::shape::Shape;
use crate::tape::{Norm, ParamId, ParamLayout, Tape, Var};

/// `y = x·Wᵀ + b`, as `torch.nn.Linear`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// The weight, `[out, in]`.
    pub weight: ParamId,
    /// The bias, `[out]`.
    pub bias: Option<ParamId>,
    /// Columns of the input.
    pub inputs: usize,
    /// Columns of the output.
    pub outputs: usize,
}

impl Linear {
    /// A layer from `inputs` to `outputs` columns with PyTorch's default initial weights.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn new(tape: &mut Tape, name: &str, inputs: usize, outputs: usize) -> Self {
        let [w, b] = Self::draw(tape, inputs, outputs);
        let [weight, bias] = Self::layouts(inputs, outputs);
        Linear {
            weight: tape.parameter(&format!("{name}.weight"), weight, &w),
            bias: Some(tape.parameter(&format!("{name}.bias"), bias, &b)),
            inputs,
            outputs,
        }
    }

    /// The initial weight and bias of a new layer.
    pub(super) fn draw(tape: &mut Tape, inputs: usize, outputs: usize) -> [Vec<f32>; 2] {
        let bound = default_bound(inputs);
        let weight = uniform(tape.generator(), bound, inputs * outputs);
        [weight, uniform(tape.generator(), bound, outputs)]
    }

    fn layouts(inputs: usize, outputs: usize) -> [ParamLayout; 2] {
        let bias = ParamLayout::Plain(Shape::new(&[outputs]));
        [ParamLayout::Linear { inputs, outputs }, bias]
    }

    /// Grows the layer to `outputs` columns between two steps: a fresh layer of that width is drawn,
    /// and the weights there are copied over it. Both parameters lose their momentum.
    ///
    /// # Panics
    /// If `outputs` is less than the layer has.
    #[track_caller]
    pub fn grow(&mut self, tape: &mut Tape, outputs: usize) {
        let [w, b] = Self::draw(tape, self.inputs, outputs);
        let [weight, bias] = Self::layouts(self.inputs, outputs);
        tape.grow_parameter(self.weight, weight, &w);
        if let Some(id) = self.bias {
            tape.grow_parameter(id, bias, &b);
        }
        self.outputs = outputs;
    }

    /// Puts a new layer of this name and width in the place of this one.
    #[track_caller]
    pub(super) fn replace(&mut self, tape: &mut Tape, name: &str, outputs: usize) {
        let [w, b] = Self::draw(tape, self.inputs, outputs);
        let [weight, bias] = Self::layouts(self.inputs, outputs);
        tape.replace_parameter(self.weight, &format!("{name}.weight"), weight, &w);
        if let Some(id) = self.bias {
            tape.replace_parameter(id, &format!("{name}.bias"), bias, &b);
        }
        self.outputs = outputs;
    }

    /// Gives the layer's parameters other names.
    #[track_caller]
    pub(super) fn rename(&self, tape: &mut Tape, name: &str) {
        tape.rename_parameter(self.weight, &format!("{name}.weight"));
        if let Some(id) = self.bias {
            tape.rename_parameter(id, &format!("{name}.bias"));
        }
    }
}

impl Module for Linear {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        tape.linear(x, self.weight, self.bias)
    }

    fn n_classes(&self) -> Option<usize> {
        Some(self.outputs)
    }
}

/// Two-dimensional convolution, as `torch.nn.Conv2d` with dilation 1 and one group.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// The weight, `[out, in, kh, kw]`.
    pub weight: ParamId,
    /// The bias, `[out]`.
    pub bias: Option<ParamId>,
    /// Step between windows.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
}

impl Conv2d {
    /// A square kernel with a bias, stride 1 and no padding, with PyTorch's default initial weights.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn new(tape: &mut Tape, name: &str, inputs: usize, outputs: usize, kernel: usize) -> Self {
        let mut layer = Self::without_bias(tape, name, inputs, outputs, kernel);
        let bound = default_bound(inputs * kernel * kernel);
        let b = uniform(tape.generator(), bound, outputs);
        let layout = ParamLayout::Plain(Shape::new(&[outputs]));
        layer.bias = Some(tape.parameter(&format!("{name}.bias"), layout, &b));
        layer
    }

    /// As [`new`](Self::new), without a bias.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn without_bias(
        tape: &mut Tape,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
    ) -> Self {
        let fan_in = inputs * kernel * kernel;
        let w = uniform(tape.generator(), default_bound(fan_in), outputs * fan_in);
        let layout = ParamLayout::Conv {
            outputs,
            inputs,
            kernel: [kernel; 2],
        };
        let weight = tape.parameter(&format!("{name}.weight"), layout, &w);
        Conv2d {
            weight,
            bias: None,
            stride: [1; 2],
            padding: [0; 2],
        }
    }

    /// Sets the step between windows.
    pub fn stride(self, stride: usize) -> Self {
        Conv2d {
            stride: [stride; 2],
            ..self
        }
    }

    /// Sets the zeros added on each side.
    pub fn padding(self, padding: usize) -> Self {
        Conv2d {
            padding: [padding; 2],
            ..self
        }
    }
}

impl Conv2d {
    /// The normalisation of this layer's output: one operation with the numbers of two.
    #[track_caller]
    pub fn forward_norm(&self, tape: &mut Tape, x: Var, norm: &BatchNorm) -> Var {
        self.normalised(tape, x, norm, None, false)
    }

    /// The ReLU of the normalisation of this layer's output, to which `residual` is added before: one operation with the
    /// numbers of four.
    #[track_caller]
    pub fn forward_norm_relu(
        &self,
        tape: &mut Tape,
        x: Var,
        norm: &BatchNorm,
        residual: Option<Var>,
    ) -> Var {
        self.normalised(tape, x, norm, residual, true)
    }

    #[track_caller]
    fn normalised(
        &self,
        tape: &mut Tape,
        x: Var,
        norm: &BatchNorm,
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        let (stride, padding, frozen) = (self.stride, self.padding, norm.frozen);
        match self.bias {
            None => tape.conv2d_batch_norm(
                x,
                self.weight,
                stride,
                padding,
                norm.norm,
                frozen,
                residual,
                relu,
            ),
            Some(_) => {
                let y = self.forward(tape, x);
                match relu {
                    true => norm.forward_relu(tape, y, residual),
                    false => norm.forward(tape, y),
                }
            }
        }
    }
}

impl Module for Conv2d {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        tape.conv2d(x, self.weight, self.bias, self.stride, self.padding)
    }
}

/// Batch normalisation over channels, as `torch.nn.BatchNorm1d` and `BatchNorm2d`: eps 1e-5,
/// momentum 0.1.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Parameters and running statistics.
    pub norm: Norm,
    /// Keeps to the running statistics in training as well, and does not update them.
    pub frozen: bool,
}

impl BatchNorm {
    /// A normalisation of `channels` channels: scale 1, shift 0, running mean 0 and variance 1.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn new(tape: &mut Tape, name: &str, channels: usize) -> Self {
        BatchNorm {
            norm: tape.norm(name, channels, 1e-5, 0.1),
            frozen: false,
        }
    }
}

impl BatchNorm {
    /// The ReLU of this layer's output, to which `residual` is added before: one operation with the
    /// numbers of three.
    #[track_caller]
    pub fn forward_relu(&self, tape: &mut Tape, x: Var, residual: Option<Var>) -> Var {
        tape.batch_norm_relu(x, self.norm, self.frozen, residual)
    }
}

impl Module for BatchNorm {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        tape.batch_norm(x, self.norm, self.frozen)
    }
}
