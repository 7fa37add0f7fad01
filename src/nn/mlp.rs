//! Multi-layer perceptrons.

use super::init::{uniform, xavier_bound};
use super::{Linear, Module};
use crate::tape::{Tape, Var};
use ndarray::ArrayD;

/// Linear layers with ReLU between them: the network of the paper's MNIST benchmarks with the sizes
/// `[784, 100, 100, C]`. Names as in a `torch.nn.Sequential`: `0`, `2`, `4`.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// A network with these numbers of columns, from input to output, and PyTorch's default initial
    /// weights.
    ///
    /// # Panics
    /// If fewer than two sizes are given.
    #[track_caller]
    pub fn new(tape: &mut Tape, sizes: &[usize]) -> Self {
        assert!(
            sizes.len() >= 2,
            "an MLP has an input and an output size, found {sizes:?}"
        );
        let layer = |(i, pair): (usize, &[usize])| {
            Linear::new(tape, &(2 * i).to_string(), pair[0], pair[1])
        };
        Mlp {
            layers: sizes.windows(2).enumerate().map(layer).collect(),
        }
    }

    /// Draws the weights again as the paper's authors do: Xavier-uniform, with zero biases
    /// (`torch.nn.init.xavier_uniform_` layer by layer).
    pub fn xavier(self, tape: &mut Tape) -> Self {
        for layer in &self.layers {
            let shape = tape.parameter_value(layer.weight).shape().to_vec();
            let (fan_out, fan_in) = (shape[0], shape[1]);
            let bound = xavier_bound(fan_in, fan_out);
            let weights = uniform(tape.generator(), bound, fan_in * fan_out);
            let weights = ArrayD::from_shape_vec(shape, weights).expect("as many as before");
            tape.set_parameter(layer.weight, &weights)
                .expect("the shape it has");
            if let Some(bias) = layer.bias {
                tape.set_parameter(bias, &ArrayD::zeros(vec![fan_out]))
                    .expect("the shape it has");
            }
        }
        self
    }
}

impl Module for Mlp {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = tape.flatten(x);
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x = tape.relu(x);
            }
            x = layer.forward(tape, x);
        }
        x
    }

    fn n_classes(&self) -> Option<usize> {
        self.layers.last().map(|layer| layer.outputs)
    }
}

/// Avalanche's `SimpleMLP`: blocks of linear layer, ReLU and dropout, then the classifier. Names as
/// there: `features.0`, `features.3.0`, `features.4.0`, …, `classifier`.
#[derive(Clone, Debug)]
pub struct SimpleMlp {
    features: Vec<Linear>,
    classifier: Linear,
    drop_rate: f32,
}

impl SimpleMlp {
    /// A network of `hidden_layers` blocks of `hidden_size` columns. Avalanche's defaults are
    /// 10 classes, input 784, hidden 512, one layer, drop rate 0.5.
    ///
    /// # Panics
    /// If there is no hidden layer or the drop rate is not in `[0, 1)`.
    #[track_caller]
    pub fn new(
        tape: &mut Tape,
        num_classes: usize,
        input_size: usize,
        hidden_size: usize,
        hidden_layers: usize,
        drop_rate: f32,
    ) -> Self {
        assert!(
            hidden_layers >= 1,
            "SimpleMLP has at least one hidden layer"
        );
        assert!(
            (0.0..1.0).contains(&drop_rate),
            "a drop rate lies in [0, 1), found {drop_rate}"
        );
        let mut features = vec![Linear::new(tape, "features.0", input_size, hidden_size)];
        for i in 1..hidden_layers {
            let name = format!("features.{}.0", i + 2);
            features.push(Linear::new(tape, &name, hidden_size, hidden_size));
        }
        let classifier = Linear::new(tape, "classifier", hidden_size, num_classes);
        SimpleMlp {
            features,
            classifier,
            drop_rate,
        }
    }
}

impl Module for SimpleMlp {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = tape.flatten(x);
        for layer in &self.features {
            x = layer.forward(tape, x);
            x = tape.relu(x);
            x = tape.dropout(x, self.drop_rate);
        }
        self.classifier.forward(tape, x)
    }

    fn n_classes(&self) -> Option<usize> {
        Some(self.classifier.outputs)
    }
}
