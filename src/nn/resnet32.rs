//! ResNet-32 for 32x32 images.

use super::init::kaiming_std;
use super::resnet::BasicBlock;
use super::{Backbone, BatchNorm, Conv2d, Head, Linear};
use crate::shape::Window;
use crate::tape::{Tape, Var};
use ndarray::ArrayD;

/// Blocks in each stage.
const BLOCKS: usize = 5;

/// Avalanche's `resnet32`, the network of the paper on residual networks for CIFAR (He et al., 2016)
/// in the form that class-incremental work took over: a 3x3 stem of 16 channels, three stages of five
/// blocks with 16, 32 and 64 channels, global average, linear head `fc`. Where the shape changes, the
/// shortcut is a 1x1 convolution with batch normalisation (`downsample`).
///
/// All layers are drawn as PyTorch draws them by default; then the convolutions are drawn again,
/// normal with variance `2 / fan_out`. 466,906 parameters for ten classes.
#[derive(Clone, Debug)]
pub struct ResNet32 {
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<BasicBlock>,
    fc: Head,
}

impl ResNet32 {
    /// The network for `n_classes` classes.
    #[track_caller]
    pub fn new(tape: &mut Tape, n_classes: usize) -> Self {
        let conv1 = Conv2d::without_bias(tape, "conv1", 3, 16, 3).padding(1);
        let bn1 = BatchNorm::new(tape, "bn1", 16);
        let mut blocks = Vec::new();
        let mut inputs = 16;
        for stage in 0..3 {
            let channels = 16 << stage;
            for i in 0..BLOCKS {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                let widths = [inputs, channels];
                blocks.push(BasicBlock::new(tape, &name, "downsample", widths, stride));
                inputs = channels;
            }
        }
        let fc = Linear::new(tape, "fc", inputs, n_classes);
        for conv in [&conv1]
            .into_iter()
            .chain(blocks.iter().flat_map(BasicBlock::convs))
        {
            draw_again(tape, conv);
        }
        ResNet32 {
            conv1,
            bn1,
            blocks,
            fc: Head::Linear(fc),
        }
    }
}

/// `kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")`
fn draw_again(tape: &mut Tape, conv: &Conv2d) {
    let mut weight: ArrayD<f32> = tape.parameter_value(conv.weight);
    let fan_out = weight.len() / weight.shape()[1];
    let numbers = weight.as_slice_mut().expect("just made, in standard order");
    tape.generator()
        .fill_normal(numbers, 0.0, kaiming_std(fan_out));
    tape.set_parameter(conv.weight, &weight)
        .expect("the shape it has");
}

impl Backbone for ResNet32 {
    fn features(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = self.conv1.forward_norm_relu(tape, x, &self.bn1, None);
        for block in &self.blocks {
            x = block.forward(tape, x);
        }
        let x = tape.avg_pool(x, Window::Adaptive { out: 1 }, Window::Adaptive { out: 1 });
        tape.flatten(x)
    }

    fn head(&self) -> &Head {
        &self.fc
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.fc
    }
}
