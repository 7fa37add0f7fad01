//! The steps in candle: its layers, losses and SGD, on its CPU device.

use candle_core::{Device, Module, ModuleT, Result, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Optimizer, SGD, loss};

use crate::case::{ALPHA, BETA, CLASSES, Case, LR, Network, Weights};

/// The initial weights and every variable made of them.
struct Variables {
    weights: Weights,
    all: Vec<Var>,
}

impl Variables {
    fn add(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        self.all.push(var.clone());
        Ok(var.as_tensor().clone())
    }

    fn linear(&mut self, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.weights.draw(inputs * outputs, inputs);
        let bias = self.weights.draw(outputs, inputs);
        let weight = self.add(weight, &[outputs, inputs])?;
        Ok(Linear::new(weight, Some(self.add(bias, &[outputs])?)))
    }

    fn conv(&mut self, inputs: usize, outputs: usize, k: usize, stride: usize) -> Result<Conv2d> {
        let seen = inputs * k * k;
        let weight = self.weights.draw(outputs * seen, seen);
        let config = Conv2dConfig {
            padding: k / 2,
            stride,
            ..Conv2dConfig::default()
        };
        let weight = self.add(weight, &[outputs, inputs, k, k])?;
        Ok(Conv2d::new(weight, None, config))
    }

    fn norm(&mut self, channels: usize) -> Result<BatchNorm> {
        let constant = |value: f32| Tensor::full(value, channels, &Device::Cpu);
        let weight = self.add(vec![1.0; channels], &[channels])?;
        let bias = self.add(vec![0.0; channels], &[channels])?;
        BatchNorm::new(channels, constant(0.0)?, constant(1.0)?, weight, bias, 1e-5)
    }
}

struct Block {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    fn new(v: &mut Variables, inputs: usize, width: usize, stride: usize) -> Result<Self> {
        Ok(Block {
            conv1: v.conv(inputs, width, 3, stride)?,
            norm1: v.norm(width)?,
            conv2: v.conv(width, width, 3, 1)?,
            norm2: v.norm(width)?,
            shortcut: match stride != 1 || inputs != width {
                true => Some((v.conv(inputs, width, 1, stride)?, v.norm(width)?)),
                false => None,
            },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self
            .norm1
            .forward_t(&self.conv1.forward(x)?, true)?
            .relu()?;
        let y = self.norm2.forward_t(&self.conv2.forward(&y)?, true)?;
        match &self.shortcut {
            Some((conv, norm)) => (y + norm.forward_t(&conv.forward(x)?, true)?)?.relu(),
            None => (y + x)?.relu(),
        }
    }
}

enum Net {
    Mlp([Linear; 3]),
    ResNet(Box<(Conv2d, BatchNorm, Vec<Block>, Linear)>),
}

impl Net {
    fn new(network: Network, v: &mut Variables) -> Result<Self> {
        let width = match network {
            Network::Mlp => {
                let layers = [
                    v.linear(784, 100)?,
                    v.linear(100, 100)?,
                    v.linear(100, CLASSES)?,
                ];
                return Ok(Net::Mlp(layers));
            }
            Network::ResNet(width) => width,
        };
        let (conv, norm) = (v.conv(3, width, 3, 1)?, v.norm(width)?);
        let (mut blocks, mut inputs) = (Vec::new(), width);
        for stage in 0..4 {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push(Block::new(v, inputs, width << stage, stride)?);
                inputs = width << stage;
            }
        }
        let linear = v.linear(inputs, CLASSES)?;
        Ok(Net::ResNet(Box::new((conv, norm, blocks, linear))))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Net::Mlp([a, b, c]) => {
                let x = a.forward(&x.flatten_from(1)?)?.relu()?;
                c.forward(&b.forward(&x)?.relu()?)
            }
            Net::ResNet(net) => {
                let (conv, norm, blocks, linear) = &**net;
                let mut x = norm.forward_t(&conv.forward(x)?, true)?.relu()?;
                for block in blocks {
                    x = block.forward(&x)?;
                }
                linear.forward(&x.mean((2, 3))?)
            }
        }
    }
}

/// A step that returns its loss.
pub fn start(case: Case) -> Result<impl FnMut() -> Result<f32>> {
    let mut variables = Variables {
        weights: Weights::new(),
        all: Vec::new(),
    };
    let net = Net::new(case.network, &mut variables)?;
    let mut sgd = SGD::new(variables.all, LR)?;
    let (rows, [c, h, w]) = (case.rows(), case.image());
    let batches = case.batches().into_iter().map(|batch| {
        Ok((
            Tensor::from_vec(batch.x, (rows, c, h, w), &Device::Cpu)?,
            Tensor::from_vec(batch.labels, rows, &Device::Cpu)?,
            Tensor::from_vec(batch.kept, (rows, CLASSES), &Device::Cpu)?,
        ))
    });
    let mut batches = batches.collect::<Result<Vec<_>>>()?.into_iter().cycle();
    let terms = case.terms();
    Ok(move || {
        let (x, labels, kept) = batches.next().expect("batches go round");
        let rows_of = |tensor: &Tensor, part| {
            let (first, rows) = case.part(part);
            tensor.narrow(0, first, rows)
        };
        let logits: Vec<Tensor> = if case.apart {
            let parts = 0..case.parts.len();
            parts
                .map(|part| net.forward(&rows_of(&x, part)?))
                .collect::<Result<_>>()?
        } else {
            let all = net.forward(&x)?;
            let parts = 0..case.parts.len();
            parts
                .map(|part| rows_of(&all, part))
                .collect::<Result<_>>()?
        };
        let new = loss::cross_entropy(&logits[terms.current], &rows_of(&labels, terms.current)?)?;
        let far = loss::mse(&logits[terms.logits], &rows_of(&kept, terms.logits)?)?;
        let old = loss::cross_entropy(&logits[terms.labels], &rows_of(&labels, terms.labels)?)?;
        let loss = ((new + (far * ALPHA)?)? + (old * BETA)?)?;
        sgd.backward_step(&loss)?;
        loss.to_scalar()
    })
}
