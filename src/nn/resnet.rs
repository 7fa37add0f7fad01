//! ResNet-18 for 32x32 images.

use super::{Backbone, BatchNorm, Conv2d, Head, Linear, MultiHeadClassifier};
use crate::shape::Window;
use crate::tape::{Tape, Var};

/// Two 3x3 convolutions with batch normalisation, and a shortcut around them: the identity, or a
/// 1x1 convolution with batch normalisation where the shape changes.
#[derive(Clone, Debug)]
pub(super) struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    /// A block with PyTorch's default initial weights; `shortcut` is what the shortcut is called.
    pub(super) fn new(
        tape: &mut Tape,
        name: &str,
        shortcut: &str,
        [inputs, width]: [usize; 2],
        stride: usize,
    ) -> Self {
        let at = |part: &str| format!("{name}.{part}");
        let conv1 = Conv2d::without_bias(tape, &at("conv1"), inputs, width, 3);
        let bn1 = BatchNorm::new(tape, &at("bn1"), width);
        let conv2 = Conv2d::without_bias(tape, &at("conv2"), width, width, 3);
        let bn2 = BatchNorm::new(tape, &at("bn2"), width);
        let shortcut = (stride != 1 || inputs != width).then(|| {
            let conv = Conv2d::without_bias(tape, &at(&format!("{shortcut}.0")), inputs, width, 1);
            (
                conv.stride(stride),
                BatchNorm::new(tape, &at(&format!("{shortcut}.1")), width),
            )
        });
        let (conv1, conv2) = (conv1.stride(stride).padding(1), conv2.padding(1));
        BasicBlock {
            conv1,
            bn1,
            conv2,
            bn2,
            shortcut,
        }
    }

    /// The convolutions in the order in which PyTorch lists them.
    pub(super) fn convs(&self) -> impl Iterator<Item = &Conv2d> {
        [&self.conv1, &self.conv2]
            .into_iter()
            .chain(self.shortcut.iter().map(|(conv, _)| conv))
    }

    pub(super) fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        // The shortcut comes first, so that it is last in the backward pass: a 1x1 convolution of stride 2 adds its
        // gradient to a quarter of the pixels, where it would otherwise have to write all.
        let residual = match &self.shortcut {
            Some((conv, bn)) => conv.forward_norm(tape, x, bn),
            None => x,
        };
        let y = self.conv1.forward_norm_relu(tape, x, &self.bn1, None);
        self.conv2
            .forward_norm_relu(tape, y, &self.bn2, Some(residual))
    }
}

/// ResNet-18 with a 3x3 stem and no pooling after it: four stages of two blocks with `width`, 2, 4
/// and 8 times `width` channels, global average, linear head. With width 64 the network of the
/// paper's CIFAR benchmarks; with width 20 Avalanche's `SlimResNet18`.
#[derive(Clone, Debug)]
pub struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<BasicBlock>,
    linear: Head,
}

impl ResNet18 {
    /// The network for `n_classes` classes, with `width` channels in its first stage.
    #[track_caller]
    pub fn new(tape: &mut Tape, n_classes: usize, width: usize) -> Self {
        Self::with_head(tape, width, |tape, inputs| {
            Head::Linear(Linear::new(tape, "linear", inputs, n_classes))
        })
    }

    fn with_head(
        tape: &mut Tape,
        width: usize,
        head: impl FnOnce(&mut Tape, usize) -> Head,
    ) -> Self {
        let conv1 = Conv2d::without_bias(tape, "conv1", 3, width, 3).padding(1);
        let bn1 = BatchNorm::new(tape, "bn1", width);
        let mut blocks = Vec::new();
        let mut inputs = width;
        for stage in 0..4 {
            let channels = width << stage;
            for i in 0..2 {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                blocks.push(BasicBlock::new(
                    tape,
                    &name,
                    "shortcut",
                    [inputs, channels],
                    stride,
                ));
                inputs = channels;
            }
        }
        let linear = head(tape, inputs);
        ResNet18 {
            conv1,
            bn1,
            blocks,
            linear,
        }
    }

    /// Avalanche's `SlimResNet18`: width 20.
    #[track_caller]
    pub fn slim(tape: &mut Tape, n_classes: usize) -> Self {
        Self::new(tape, n_classes, 20)
    }

    /// Avalanche's `MTSlimResNet18`: `width` channels in its first stage (20 there) and a head for
    /// each task, of `n_classes` units at first.
    #[track_caller]
    pub fn multi_task(tape: &mut Tape, n_classes: usize, width: usize) -> Self {
        Self::with_head(tape, width, |tape, inputs| {
            Head::MultiHead(MultiHeadClassifier::new(tape, "linear", inputs, n_classes))
        })
    }
}

impl Backbone for ResNet18 {
    fn features(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = self.conv1.forward_norm_relu(tape, x, &self.bn1, None);
        for block in &self.blocks {
            x = block.forward(tape, x);
        }
        let x = tape.avg_pool(x, Window::Adaptive { out: 1 }, Window::Adaptive { out: 1 });
        tape.flatten(x)
    }

    fn head(&self) -> &Head {
        &self.linear
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.linear
    }
}
