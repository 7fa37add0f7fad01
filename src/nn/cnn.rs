//! Small convolutional networks.

use super::{Backbone, Conv2d, Head, INITIAL_OUT_FEATURES, Linear, Module, with_multi_head};
use crate::shape::Window;
use crate::tape::{Tape, Var};

fn pool2() -> Window {
    Window::Fixed {
        kernel: 2,
        stride: 2,
        padding: 0,
    }
}

/// Avalanche's `SimpleCNN` for three-channel images of at least 16x16 pixels: two blocks of two 3x3
/// convolutions, a 1x1 convolution, global maximum, classifier; dropout 0.25.
#[derive(Clone, Debug)]
pub struct SimpleCnn {
    convs: [Conv2d; 5],
    classifier: Head,
    drop_rate: f32,
}

impl SimpleCnn {
    /// The network for `num_classes` classes with Avalanche's drop rate of 0.25.
    #[track_caller]
    pub fn new(tape: &mut Tape, num_classes: usize) -> Self {
        let convs = [
            Conv2d::new(tape, "features.0", 3, 32, 3).padding(1),
            Conv2d::new(tape, "features.2", 32, 32, 3),
            Conv2d::new(tape, "features.6", 32, 64, 3).padding(1),
            Conv2d::new(tape, "features.8", 64, 64, 3),
            Conv2d::new(tape, "features.12", 64, 64, 1),
        ];
        let classifier = Linear::new(tape, "classifier.0", 64, num_classes);
        SimpleCnn {
            convs,
            classifier: Head::Linear(classifier),
            drop_rate: 0.25,
        }
    }

    /// Avalanche's `MTSimpleCNN`: the same with a head for each task. As there, a linear head of ten
    /// units is drawn first and thrown away. A batch of a single image works; Avalanche's does not.
    #[track_caller]
    pub fn multi_task(tape: &mut Tape) -> Self {
        let model = Self::new(tape, 10);
        with_multi_head(tape, model, INITIAL_OUT_FEATURES)
    }

    /// Sets the drop rate.
    pub fn drop_rate(self, drop_rate: f32) -> Self {
        SimpleCnn { drop_rate, ..self }
    }
}

impl Backbone for SimpleCnn {
    fn features(&self, tape: &mut Tape, mut x: Var) -> Var {
        for (i, conv) in self.convs.iter().enumerate() {
            x = conv.forward(tape, x);
            x = tape.relu(x);
            x = match i {
                0 | 2 => continue,
                1 | 3 => tape.max_pool(x, pool2(), pool2()),
                _ => tape.max_pool(x, Window::Adaptive { out: 1 }, Window::Adaptive { out: 1 }),
            };
            x = tape.dropout(x, self.drop_rate);
        }
        tape.flatten(x)
    }

    fn head(&self) -> &Head {
        &self.classifier
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.classifier
    }
}

/// Avalanche's `LeNet5` for 32x32 images: three 5x5 convolutions with tanh and average pooling, two
/// linear layers.
#[derive(Clone, Debug)]
pub struct LeNet5 {
    convs: [Conv2d; 3],
    ff: Linear,
    classifier: Head,
}

impl LeNet5 {
    /// The network for `n_classes` classes and images of `input_channels` channels.
    #[track_caller]
    pub fn new(tape: &mut Tape, n_classes: usize, input_channels: usize) -> Self {
        let convs = [
            Conv2d::new(tape, "feature_extractor.0", input_channels, 6, 5),
            Conv2d::new(tape, "feature_extractor.3", 6, 16, 5),
            Conv2d::new(tape, "feature_extractor.6", 16, 120, 5),
        ];
        let ff = Linear::new(tape, "ff.0", 120, 84);
        let classifier = Linear::new(tape, "classifier.0", 84, n_classes);
        LeNet5 {
            convs,
            ff,
            classifier: Head::Linear(classifier),
        }
    }
}

impl Backbone for LeNet5 {
    fn features(&self, tape: &mut Tape, mut x: Var) -> Var {
        for (i, conv) in self.convs.iter().enumerate() {
            x = conv.forward(tape, x);
            x = tape.tanh(x);
            if i < 2 {
                x = tape.avg_pool(x, pool2(), pool2());
            }
        }
        let x = tape.flatten(x);
        let x = self.ff.forward(tape, x);
        tape.tanh(x)
    }

    fn head(&self) -> &Head {
        &self.classifier
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.classifier
    }

    fn features_treat_rows_apart(&self) -> bool {
        true
    }
}
