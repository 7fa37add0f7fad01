//! The steps in burn: its layers, losses and SGD, on whichever of its devices is named.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::pool::AdaptiveAvgPool2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::case::{ALPHA, BETA, CLASSES, Case, LR, Network, Weights};

/// Makes layers with PyTorch's weights.
struct Layers<'a> {
    weights: Weights,
    device: &'a Device,
}

impl Layers<'_> {
    fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        let mut linear = LinearConfig::new(inputs, outputs).init(self.device);
        let weight = self.weights.draw(inputs * outputs, inputs);
        let bias = self.weights.draw(outputs, inputs);
        // PyTorch's rows are outputs, burn's are inputs.
        let turned = (0..inputs * outputs).map(|i| weight[i % outputs * inputs + i / outputs]);
        let turned = TensorData::new(turned.collect::<Vec<f32>>(), [inputs, outputs]);
        linear.weight = Param::from_data(turned, self.device);
        let bias = TensorData::new(bias, [outputs]);
        linear.bias = Some(Param::from_data(bias, self.device));
        linear
    }

    fn conv(&mut self, inputs: usize, outputs: usize, k: usize, stride: usize) -> Conv2d {
        let (seen, edge) = (inputs * k * k, k / 2);
        let mut conv = Conv2dConfig::new([inputs, outputs], [k, k])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(edge, edge, edge, edge))
            .with_bias(false)
            .init(self.device);
        let weight = self.weights.draw(outputs * seen, seen);
        let weight = TensorData::new(weight, [outputs, inputs, k, k]);
        conv.weight = Param::from_data(weight, self.device);
        conv
    }

    fn norm(&self, channels: usize) -> BatchNorm {
        BatchNormConfig::new(channels).init(self.device)
    }
}

#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    shortcut: Option<Shortcut>,
}

#[derive(Module, Debug)]
struct Shortcut {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Block {
    fn new(layers: &mut Layers, inputs: usize, width: usize, stride: usize) -> Self {
        Block {
            conv1: layers.conv(inputs, width, 3, stride),
            norm1: layers.norm(width),
            conv2: layers.conv(width, width, 3, 1),
            norm2: layers.norm(width),
            shortcut: (stride != 1 || inputs != width).then(|| Shortcut {
                conv: layers.conv(inputs, width, 1, stride),
                norm: layers.norm(width),
            }),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.norm1.forward(self.conv1.forward(x.clone())));
        let y = self.norm2.forward(self.conv2.forward(y));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.norm.forward(shortcut.conv.forward(x)),
            None => x,
        };
        relu(y + x)
    }
}

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

#[derive(Module, Debug)]
struct ResNet {
    conv: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
enum Net {
    Mlp(Mlp),
    ResNet(ResNet),
}

impl Net {
    fn new(network: Network, device: &Device) -> Self {
        let weights = Weights::new();
        let mut make = Layers { weights, device };
        let width = match network {
            Network::Mlp => {
                let sizes = [(784, 100), (100, 100), (100, CLASSES)];
                let layers = sizes.map(|(inputs, outputs)| make.linear(inputs, outputs));
                return Net::Mlp(Mlp {
                    layers: layers.into(),
                });
            }
            Network::ResNet(width) => width,
        };
        let (conv, norm) = (make.conv(3, width, 3, 1), make.norm(width));
        let (mut blocks, mut inputs) = (Vec::new(), width);
        for stage in 0..4 {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push(Block::new(&mut make, inputs, width << stage, stride));
                inputs = width << stage;
            }
        }
        let linear = make.linear(inputs, CLASSES);
        Net::ResNet(ResNet {
            conv,
            norm,
            blocks,
            linear,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        match self {
            Net::Mlp(net) => {
                let [a, b, c] = &net.layers[..] else {
                    unreachable!("three layers")
                };
                c.forward(relu(b.forward(relu(a.forward(x.flatten(1, 3))))))
            }
            Net::ResNet(net) => {
                let x = relu(net.norm.forward(net.conv.forward(x)));
                let x = net.blocks.iter().fold(x, |x, block| block.forward(x));
                let pool = AdaptiveAvgPool2dConfig::new([1, 1]).init();
                net.linear.forward(pool.forward(x).flatten(1, 3))
            }
        }
    }
}

/// A step that returns its loss.
pub fn start(case: Case, device: Device) -> impl FnMut() -> f32 {
    let device = device.autodiff();
    let mut net = Some(Net::new(case.network, &device));
    let mut sgd = SgdConfig::new().init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let (rows, [c, h, w]) = (case.rows(), case.image());
    let batches = case.batches().into_iter().map(|batch| {
        let labels: Vec<i64> = batch.labels.into_iter().map(i64::from).collect();
        (
            Tensor::<4>::from_data(TensorData::new(batch.x, [rows, c, h, w]), &device),
            Tensor::<1, Int>::from_data(TensorData::new(labels, [rows]), &device),
            Tensor::<2>::from_data(TensorData::new(batch.kept, [rows, CLASSES]), &device),
        )
    });
    let batches: Vec<_> = batches.collect();
    let mut batches = batches.into_iter().cycle();
    let terms = case.terms();
    move || {
        let (x, labels, kept) = batches.next().expect("batches go round");
        let model = net.take().expect("the network comes back at the end");
        let span = |part| case.part(part);
        let parts = 0..case.parts.len();
        let logits: Vec<Tensor<2>> = if case.apart {
            parts
                .map(|part| model.forward(x.clone().narrow(0, span(part).0, span(part).1)))
                .collect()
        } else {
            let all = model.forward(x);
            parts
                .map(|part| all.clone().narrow(0, span(part).0, span(part).1))
                .collect()
        };
        let labels_of = |part| labels.clone().narrow(0, span(part).0, span(part).1);
        let (first, count) = span(terms.logits);
        let kept = kept.narrow(0, first, count);
        let new = cross_entropy.forward(logits[terms.current].clone(), labels_of(terms.current));
        let far = MseLoss::new().forward(logits[terms.logits].clone(), kept, Reduction::Mean);
        let old = cross_entropy.forward(logits[terms.labels].clone(), labels_of(terms.labels));
        let loss = new + far.mul_scalar(ALPHA) + old.mul_scalar(BETA);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        net = Some(sgd.step(LR, model, gradients));
        loss.into_scalar()
    }
}
